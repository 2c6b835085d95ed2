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

# Why a decision is what it is. All but the first two are said aloud; those in HELD are counted.
BELIEVED = "believed"
UNCHANGED = "unchanged"
EMPTY_HELD = "empty_held"
ABSENCE_HELD = "absence_held"
REMOVAL_HELD = "removal_held"
GIVEN_UP = "given_up"
HELD = frozenset((EMPTY_HELD, ABSENCE_HELD, REMOVAL_HELD))


class Decision(Struct, frozen=True):
    """What to do about an answer. `snapshot` is what to apply, None: leave all as it is. `text` is for the reader."""

    reason: str
    snapshot: Snapshot | None = None
    text: str = ""


class Kept(Struct, frozen=True):
    """A member that the registry does not list any more, and until when it stays all the same."""

    member: Member
    until: float


class Membership:
    """The believed list of one service. Feed it answers, outages and the passing of time; apply what it decides."""

    def __init__(self, empty_grace: float, removal_guard: float) -> None:
        self.empty_grace = empty_grace
        self.removal_guard = removal_guard
        self.believed: Snapshot | None = None
        self._kept: dict[str, Kept] = {}  # by address
        self._returning = False  # the next answer is the first after an outage
        self._doubt_until = 0.0  # before this, absence proves nothing

    @property
    def recheck_at(self) -> float | None:
        """When `on_time` has something to decide; None: not before the next answer."""
        earliest = min((kept.until for kept in self._kept.values()), default=NEVER)
        return None if earliest == NEVER else earliest

    def restore(self, snapshot: Snapshot) -> None:
        """Begin with a list from before a restart; answers are judged against it."""
        self.believed = snapshot

    def on_answer(self, answer: Snapshot, now: float) -> Decision:
        """The registry has answered."""
        present = {member.address for member in answer.members}
        last = self._last(answer)
        self._kept = {a: self._resume(kept, now) for a, kept in self._kept.items() if a in last and a not in present}
        listed_before = [member for address, member in last.items() if address not in self._kept]
        absent = [member for member in listed_before if member.address not in present]
        returning, self._returning = self._returning, False
        reason, text = BELIEVED, ""
        if absent and self.empty_grace > 0:
            if not answer.members or returning or now < self._doubt_until:
                reason, text = self._doubt(answer, absent, now)
            elif len(absent) > self.removal_guard * len(listed_before):
                reason, text = self._suspect(absent, len(listed_before), now)
        kept_members = tuple(kept.member for kept in self._kept.values())
        return self._settle(replace(answer, members=answer.members + kept_members), reason, text)

    def on_outage(self) -> None:
        """The registry does not answer: what it said last is no longer evidence that members are gone for good."""
        self._returning = True
        self._doubt_until = 0.0
        self._kept = {address: Kept(kept.member, NEVER) for address, kept in self._kept.items()}

    def on_time(self, now: float) -> Decision:
        """The moment `recheck_at` has come; harmless at any other."""
        gone = [address for address, kept in self._kept.items() if kept.until <= now]
        if not gone or self.believed is None:
            return Decision(UNCHANGED)
        for address in gone:
            del self._kept[address]
        left = tuple(member for member in self.believed.members if member.address not in gone)
        text = f"{len(gone)} instance(s) stayed away and are given up, {len(left)} left: {listed(gone)}"
        return self._settle(replace(self.believed, members=left), GIVEN_UP, text)

    # === the rules ===

    def _last(self, answer: Snapshot) -> dict[str, Member]:
        """The members believed so far, by address, less those that were taken out on purpose."""
        if self.believed is None:
            return {}
        return {member.address: member for member in self.believed.members if member.address not in answer.withdrawn}

    def _resume(self, kept: Kept, now: float) -> Kept:
        """After an outage the time of the kept begins anew."""
        if kept.until != NEVER:
            return kept
        graces = SUSPECT_GRACES if kept.member.status == SUSPECT else 1
        return Kept(kept.member, now + graces * self.empty_grace)

    def _doubt(self, answer: Snapshot, absent: list[Member], now: float) -> tuple[str, str]:
        """Keep the absent as they were."""
        for member in absent:
            self._kept[member.address] = Kept(member, now + self.empty_grace)
        if now < self._doubt_until:
            return BELIEVED, ""
        self._doubt_until = now + self.empty_grace
        what = "lists fewer after its outage" if answer.members else "lists none"
        text = f"the registry {what}: {len(absent)} instance(s) are kept as they were for {self.empty_grace:g}s"
        return ABSENCE_HELD if answer.members else EMPTY_HELD, text

    def _suspect(self, absent: list[Member], before: int, now: float) -> tuple[str, str]:
        """Keep the absent as a last resort."""
        stay = SUSPECT_GRACES * self.empty_grace
        for member in absent:
            self._kept[member.address] = Kept(replace(member, status=SUSPECT), now + stay)
        text = (
            f"{len(absent)} of {before} instance(s) vanished at once: they are kept as a last resort for {stay:g}s:"
            f" {listed([member.address for member in absent])}"
        )
        return REMOVAL_HELD, text

    def _settle(self, snapshot: Snapshot, reason: str, text: str) -> Decision:
        """Believe `snapshot`. Where the list stays the same there is nothing to apply, but maybe something to say."""
        last, self.believed = self.believed, snapshot
        if last is not None and last.source == snapshot.source and same_list(last, snapshot):
            return Decision(UNCHANGED if reason == BELIEVED else reason, None, text)
        return Decision(reason, snapshot, text)


def same_list(some: Snapshot, other: Snapshot) -> bool:
    """Whether two lists hold the same members, in whatever order; of two without any, whether for the same reason."""
    if not some.members and not other.members:
        return bool(some.left_out) == bool(other.left_out)
    return some.members == other.members or _by_address(some) == _by_address(other)


def _by_address(snapshot: Snapshot) -> dict[str, Member]:
    return {member.address: member for member in snapshot.members}


def listed(addresses: list[str]) -> str:
    """Some of them by name, for a sentence."""
    more = f" and {len(addresses) - SHOWN} more" if len(addresses) > SHOWN else ""
    return ", ".join(addresses[:SHOWN]) + more
