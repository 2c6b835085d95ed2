"""Which of the registry's answers to believe, and when: the last good list stands until there is reason to drop it.

* An empty answer after a full one proves nothing for a grace: that is what a broken health pipeline looks like (RL-22).
  Neither does an absence right after an outage, while everybody registers again. Until the grace is over the
  absent stay as they were.
* An answer that removes too many at once keeps the removed as SUSPECT, a last resort, for twice that grace (RL-23).
* What the registry says was taken out on purpose (`Snapshot.withdrawn`) is believed at once.
* While the registry is down nothing is given up.

No clock inside: `now` is in seconds on any clock that only goes forward.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from sidecar.policy.snapshot import SUSPECT, Member, Snapshot

# How many graces a suspect member stays: one for the registry's health pipeline to recover, one for it to be noticed.
SUSPECT_GRACES = 2
NEVER = float("inf")
SHOWN = 3  # addresses that a sentence names; the rest is on the admin page

# Why a decision is what it is. All but the first two are said aloud and counted.
BELIEVED = "believed"
UNCHANGED = "unchanged"
EMPTY_HELD = "empty_held"
ABSENCE_HELD = "absence_held"
REMOVAL_HELD = "removal_held"
GIVEN_UP = "given_up"


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
        self._returning = False  # the next answer is the first after an outage
        self._doubted: Snapshot | None = None  # the newest answer, while its absences prove nothing
        self._doubt_until = NEVER
        self._suspects: dict[str, tuple[Member, float]] = {}  # by address: the member, and when it is given up

    @property
    def recheck_at(self) -> float | None:
        """When `on_time` has something to decide; None: not before the next answer."""
        earliest = min((until for _, until in self._suspects.values()), default=NEVER)
        if self._doubted is not None:
            earliest = min(earliest, self._doubt_until)
        return None if earliest == NEVER else earliest

    def restore(self, snapshot: Snapshot) -> None:
        """Begin with a list from before a restart; answers are judged against it."""
        self.believed = snapshot

    def on_answer(self, answer: Snapshot, now: float) -> Decision:
        """The registry has answered."""
        last = self._last(answer)
        present = {member.address for member in answer.members}
        absent = [member for member in last.values() if member.address not in present]
        trusted = [member for member in absent if member.status != SUSPECT]
        returning, self._returning = self._returning, False
        doubtful = not answer.members or returning or self._doubted is not None
        if trusted and doubtful and self.empty_grace > 0:
            return self._doubt(answer, absent, now)
        self._end_doubt()
        held = self._judge_removals(last, present, trusted, now)
        suspects = tuple(member for member, _ in self._suspects.values())
        snapshot = replace(answer, members=answer.members + suspects)
        return self._settle(snapshot, REMOVAL_HELD if held else BELIEVED, held)

    def on_outage(self) -> None:
        """The registry does not answer: what it said last is no longer evidence that members are gone for good."""
        self._returning = True
        self._end_doubt()
        self._suspects = {address: (member, NEVER) for address, (member, _) in self._suspects.items()}

    def on_time(self, now: float) -> Decision:
        """The moment `recheck_at` has come; harmless at any other."""
        if self._doubted is not None and now >= self._doubt_until:
            snapshot = self._doubted
            self._end_doubt()
            self._suspects = {}
        elif self.believed is not None and any(until <= now for _, until in self._suspects.values()):
            self._suspects = {a: (member, until) for a, (member, until) in self._suspects.items() if until > now}
            stay = [m for m in self.believed.members if m.status != SUSPECT or m.address in self._suspects]
            snapshot = replace(self.believed, members=tuple(stay))
        else:
            return Decision(UNCHANGED)
        left = {member.address for member in snapshot.members}
        gone = [m.address for m in self.believed.members if m.address not in left] if self.believed else []
        text = f"{len(gone)} instance(s) stayed away and are given up, {len(left)} left: {listed(gone)}"
        return self._settle(snapshot, GIVEN_UP, text)

    # === the rules ===

    def _last(self, answer: Snapshot) -> dict[str, Member]:
        """The members believed so far, by address, less those that were taken out on purpose."""
        if self.believed is None:
            return {}
        return {member.address: member for member in self.believed.members if member.address not in answer.withdrawn}

    def _doubt(self, answer: Snapshot, absent: list[Member], now: float) -> Decision:
        """Keep the absent as they were, and remember until when."""
        begins = self._doubted is None
        if begins:
            self._doubt_until = now + self.empty_grace
            self._suspects = {}  # they stay with the rest
        self._doubted = answer
        snapshot = replace(answer, members=answer.members + tuple(absent))
        if not begins:
            return self._settle(snapshot, BELIEVED, "")
        what = "lists none" if not answer.members else "lists fewer after its outage"
        text = f"the registry {what}: {len(absent)} instance(s) are kept as they were for {self.empty_grace:g}s"
        return self._settle(snapshot, ABSENCE_HELD if answer.members else EMPTY_HELD, text)

    def _end_doubt(self) -> None:
        self._doubted = None
        self._doubt_until = NEVER

    def _judge_removals(self, last: dict[str, Member], present: set[str], removed: list[Member], now: float) -> str:
        """Update the suspects by an answer; says who was newly held back, if anybody."""
        until = now + SUSPECT_GRACES * self.empty_grace
        self._suspects = {
            address: (member, until if stays == NEVER else stays)
            for address, (member, stays) in self._suspects.items()
            if address in last and address not in present
        }
        before = sum(member.status != SUSPECT for member in last.values())
        if not removed or self.empty_grace <= 0 or len(removed) <= self.removal_guard * before:
            return ""
        for member in removed:
            self._suspects[member.address] = (replace(member, status=SUSPECT), until)
        return (
            f"{len(removed)} of {before} instance(s) vanished at once: they are kept as a last resort for"
            f" {SUSPECT_GRACES * self.empty_grace:g}s: {listed([member.address for member in removed])}"
        )

    def _settle(self, snapshot: Snapshot, reason: str, text: str) -> Decision:
        """Believe `snapshot`. Where the list stays the same there is nothing to apply, but maybe something to say."""
        last, self.believed = self.believed, snapshot
        if last is not None and last.source == snapshot.source and same(last.members, snapshot.members):
            return Decision(UNCHANGED if reason == BELIEVED else reason, None, text)
        return Decision(reason, snapshot, text)


def same(some: tuple[Member, ...], others: tuple[Member, ...]) -> bool:
    """Whether two lists hold the same members, in whatever order."""
    return some == others or {m.address: m for m in some} == {m.address: m for m in others}


def listed(addresses: list[str]) -> str:
    """Some of them by name, for a sentence."""
    more = f" and {len(addresses) - SHOWN} more" if len(addresses) > SHOWN else ""
    return ", ".join(addresses[:SHOWN]) + more
