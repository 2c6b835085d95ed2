"""Which of the registry's answers to believe, and when: the last good list stands until there is reason to drop it.

Three rules. An empty answer after a full one is held back for a grace (RL-22). An answer that removes too many at once
keeps the removed as SUSPECT, a last resort, for twice that grace (RL-23). What the registry says was taken out on
purpose (`Snapshot.withdrawn`) is believed at once. While the registry is down nothing expires. No clock inside: `now`
is in seconds on any clock that only goes forward.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from sidecar.policy.snapshot import SUSPECT, Member, Snapshot

# How many graces a suspect member stays: one for the registry's health pipeline to recover, one for it to be noticed.
SUSPECT_GRACES = 2

# Why a decision is what it is; also the names of what was disbelieved in the metrics.
BELIEVED = "believed"
UNCHANGED = "unchanged"
EMPTY_HELD = "empty_held"
EMPTY_BELIEVED = "empty_believed"
REMOVAL_HELD = "removal_held"
REMOVAL_BELIEVED = "removal_believed"


class Decision(Struct, frozen=True):
    """What to do about an answer. `snapshot` is what to apply, None: leave all as it is. `text` is for the reader."""

    reason: str
    snapshot: Snapshot | None = None
    text: str = ""


class Membership:
    """The believed list of one service. Feed it answers, outages and the passing of time; apply what it decides."""

    def __init__(self, empty_grace: float, removal_guard: float) -> None:
        self.empty_grace = empty_grace
        self.removal_guard = removal_guard
        self.believed: Snapshot | None = None
        self.recheck_at: float | None = None  # when `on_time` has something to decide
        self._empty: Snapshot | None = None  # an empty answer that is being held back
        self._suspects: dict[str, tuple[Member, float]] = {}  # by address: the member, and when it is given up

    def restore(self, snapshot: Snapshot) -> None:
        """Begin with a list from before a restart; answers are judged against it."""
        self.believed = snapshot

    def on_answer(self, answer: Snapshot, now: float) -> Decision:
        """The registry has answered."""
        last = self._without_withdrawn(answer)
        if not answer.members and last and self.empty_grace > 0:
            return self._hold_empty(answer, last, now)
        self._empty = None
        held = self._judge_removals(answer, last, now)
        return self._believe(answer, now, held)

    def on_outage(self) -> None:
        """The registry does not answer: what it said last is no longer evidence that members are gone for good."""
        self._empty = None
        self._suspects = {address: (member, float("inf")) for address, (member, _) in self._suspects.items()}
        self.recheck_at = None

    def on_time(self, now: float) -> Decision:
        """The moment `recheck_at` has come; harmless at any other."""
        if self.recheck_at is None or now < self.recheck_at:
            return Decision(UNCHANGED)
        if self._empty is not None:
            answer, self._empty = self._empty, None
            self._suspects = {}
            text = f"the answer stayed empty for {self.empty_grace:g}s and is believed now: no instance is left"
            return self._settle(answer, EMPTY_BELIEVED, text)
        gone = [address for address, (_, until) in self._suspects.items() if until <= now]
        for address in gone:
            del self._suspects[address]
        if self.believed is None or not gone:
            self._plan()
            return Decision(UNCHANGED)
        members = tuple(member for member in self.believed.members if member.address not in gone)
        text = f"{len(gone)} instance(s) stayed away and are given up: {listed(gone)}"
        return self._settle(replace(self.believed, members=members), REMOVAL_BELIEVED, text)

    # === the rules ===

    def _without_withdrawn(self, answer: Snapshot) -> dict[str, Member]:
        """The members believed so far, by address, less those that were taken out on purpose."""
        if self.believed is None:
            return {}
        return {m.address: m for m in self.believed.members if m.address not in answer.withdrawn}

    def _hold_empty(self, answer: Snapshot, last: dict[str, Member], now: float) -> Decision:
        """Keep the list, less what was withdrawn, and remember since when it should be empty."""
        news = self._empty is None
        if news:
            self.recheck_at = now + self.empty_grace
        self._empty = answer
        kept: Snapshot | None = None
        if self.believed is not None and len(last) < len(self.believed.members):
            kept = self.believed = replace(self.believed, members=tuple(last.values()))
        if not news and kept is None:
            return Decision(UNCHANGED)
        text = f"the answer is empty: the last {len(last)} instance(s) are kept for up to {self.empty_grace:g}s"
        return Decision(EMPTY_HELD, kept, text)

    def _judge_removals(self, answer: Snapshot, last: dict[str, Member], now: float) -> list[str]:
        """Update the suspects by this answer; the addresses newly held back."""
        present = {member.address for member in answer.members}
        until = now + SUSPECT_GRACES * self.empty_grace
        for address in list(self._suspects):
            if address in present or address not in last:
                del self._suspects[address]
            elif self._suspects[address][1] == float("inf"):
                self._suspects[address] = (self._suspects[address][0], until)
        trusted = [address for address in last if address not in self._suspects]
        removed = [address for address in trusted if address not in present]
        if not removed or self.empty_grace <= 0 or len(removed) <= self.removal_guard * len(trusted):
            return []
        for address in removed:
            self._suspects[address] = (replace(last[address], status=SUSPECT), until)
        return removed

    def _believe(self, answer: Snapshot, now: float, held: list[str]) -> Decision:
        """The answer, with the suspects behind it."""
        suspects = tuple(member for member, _ in self._suspects.values())
        snapshot = replace(answer, members=answer.members + suspects)
        if held:
            text = (
                f"{len(held)} of {len(held) + len(answer.members)} instance(s) vanished at once: they are kept as a"
                f" last resort for {SUSPECT_GRACES * self.empty_grace:g}s: {listed(held)}"
            )
            return self._settle(snapshot, REMOVAL_HELD, text)
        last = self.believed
        if last is not None and (last.members, last.source) == (snapshot.members, snapshot.source):
            self._plan()
            return Decision(UNCHANGED)
        return self._settle(snapshot, BELIEVED, "")

    def _settle(self, snapshot: Snapshot, reason: str, text: str) -> Decision:
        self.believed = snapshot
        self._plan()
        return Decision(reason, snapshot, text)

    def _plan(self) -> None:
        """Set `recheck_at` to the next moment at which time alone changes the list."""
        self.recheck_at = min((until for _, until in self._suspects.values() if until < float("inf")), default=None)


def listed(addresses: list[str]) -> str:
    """Some of them by name, for a sentence."""
    shown = ", ".join(addresses[:3])  # the rest is on the admin page
    return f"{shown} and {len(addresses) - 3} more" if len(addresses) > 3 else shown
