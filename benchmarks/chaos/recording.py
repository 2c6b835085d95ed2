"""What the caller saw: a record per RPC, and what a stretch of them comes to. Pure; instants are monotonic seconds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.stats import percentile

OK, CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE = 0, 1, 4, 8, 13, 14


class Rpc(NamedTuple):
    """One RPC. `took` runs from the planned departure; `text` is the gRPC message of a failure."""

    id: int
    planned_at: float
    took: float
    status: int
    text: str


@dataclass(frozen=True)
class Stretch:
    """RPCs that departed between two instants. Latencies in seconds, failed RPCs included."""

    count: int
    failed: int
    p50: float
    p99: float
    statuses: dict[int, int]

    @property
    def error_rate(self) -> float:
        return self.failed / self.count if self.count else 0.0


class Recording:
    """All RPCs of one generator, in the order of their departure."""

    def __init__(self, rpcs: Iterable[Rpc]) -> None:
        self.rpcs = sorted(rpcs, key=lambda rpc: rpc.planned_at)

    def between(self, start: float, end: float) -> list[Rpc]:
        """Those that departed then."""
        return [rpc for rpc in self.rpcs if start <= rpc.planned_at < end]

    def stretch(self, start: float = 0.0, end: float = float("inf")) -> Stretch:
        """What those came to."""
        rpcs = self.between(start, end)
        took = sorted(rpc.took for rpc in rpcs)
        return Stretch(
            count=len(rpcs),
            failed=sum(rpc.status != OK for rpc in rpcs),
            p50=percentile(took, 0.5) if took else 0.0,
            p99=percentile(took, 0.99) if took else 0.0,
            statuses=dict(Counter(rpc.status for rpc in rpcs)),
        )

    def failures(self) -> list[Rpc]:
        """Those that did not end with OK."""
        return [rpc for rpc in self.rpcs if rpc.status != OK]


def save(path: Path, rpcs: Iterable[Rpc]) -> None:
    """As JSON, for another process."""
    path.write_text(json.dumps(list(rpcs)))


def load(path: Path) -> Recording:
    """What `save` wrote."""
    return Recording(Rpc(*fields) for fields in json.loads(path.read_text()))
