"""The levels of one upstream, each kept by a watch of its own, merged into the one membership of its cluster (D11).

A level counts once every level before it has been heard of: has answered, was found on disk, or failed. So a start does
not begin in another datacenter because that one answered first. Whatever a watch holds back or keeps through an outage
it does for its own level. An address on two levels belongs to the first.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from sidecar.policy.cluster import Change, Cluster
from sidecar.policy.snapshot import Member, Snapshot
from sidecar.policy.subset import choose_subset

NO_CHANGE = Change((), ())


class Level:
    """One level: what its watch has last said. Level 0 leaves priorities that members state themselves alone."""

    def __init__(self, levels: Levels, number: int) -> None:
        self.levels = levels
        self.name = levels.cluster.name
        self.number = number
        self.snapshot: Snapshot | None = None
        self.heard = False
        self.up = False
        self.detail = "not asked yet"
        self.confirmed_at = 0.0

    @property
    def endpoints(self) -> Sequence[Member]:
        """The members known so far."""
        return self.snapshot.members if self.snapshot is not None else ()

    def apply(self, snapshot: Snapshot, now: float) -> Change:
        """Take over a full membership of this level."""
        self.snapshot = snapshot
        self.heard = True
        self.confirmed_at = now
        return self.levels.apply(now)

    def note_registry(self, up: bool, detail: str, now: float) -> None:
        """Whether the registry answers the watch of this level."""
        news = not self.heard and not up
        self.up, self.detail = up, detail
        if up and self.snapshot is not None:
            self.confirmed_at = now
        if news:
            self.heard = True
            self.levels.apply(now)
        self.levels.note_registry(now)

    def age(self, now: float) -> float:
        """Seconds since this level was last confirmed; 0 for a static one."""
        if self.snapshot is None or self.snapshot.source == "static":
            return 0.0
        return now - self.confirmed_at

    def members(self) -> tuple[Member, ...]:
        """Those of its members that are used, with their priority."""
        if self.snapshot is None:
            return ()
        members = self.snapshot.members
        if self.levels.subset_size is not None:
            members = choose_subset(members, self.levels.subset_size, self.levels.seed)
        return tuple(replace(member, priority=self.number) for member in members) if self.number else members


class Levels:
    """All levels of `cluster`. `seed` decides which members a subset takes; it stays the same for the process."""

    def __init__(self, cluster: Cluster, count: int, subset_size: int | None, seed: int) -> None:
        self.cluster = cluster
        self.subset_size = subset_size
        self.seed = seed
        self.levels = [Level(self, number) for number in range(count)]

    def apply(self, now: float) -> Change:
        """Hand what counts of the levels over to the cluster, as one membership."""
        unheard = next((level.number for level in self.levels if not level.heard), len(self.levels))
        counting = self.levels[:unheard]
        known = [level.snapshot for level in counting if level.snapshot is not None]
        if not known:
            return NO_CHANGE
        members: dict[str, Member] = {}
        for level in counting:
            for member in level.members():
                members.setdefault(member.address, member)
        merged = Snapshot(
            service=known[0].service,
            members=tuple(members.values()),
            source=known[0].source,
            index=known[0].index,
            left_out=sum(snapshot.left_out for snapshot in known),
            wanted=" or ".join(dict.fromkeys(snapshot.wanted for snapshot in known if snapshot.left_out)),
        )
        change = self.cluster.apply(merged, now)
        self._confirm()
        return change

    def note_registry(self, now: float) -> None:
        """The registry is up for the cluster while it answers for every level."""
        down = next((level for level in self.levels if not level.up), None)
        if down is None:
            self.cluster.note_registry(True, self.levels[0].detail, now)
        else:
            where = f"failover level {down.number}: " if down.number else ""
            self.cluster.note_registry(False, where + down.detail, now)
        self._confirm()

    def _confirm(self) -> None:
        """A membership is as old as its oldest level."""
        known = [level.confirmed_at for level in self.levels if level.snapshot is not None]
        if known:
            self.cluster.confirmed_at = min(known)
