"""Ring hash: every endpoint has entries on a ring, and an RPC belongs to the first at or after its own place (A42)."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from math import ceil
from typing import TYPE_CHECKING, Final

from sidecar.policy.affinity import Affinity
from sidecar.policy.balancer import Rng
from sidecar.policy.settings import BalancingSettings
from sidecar.policy.xxh64 import xxh64

if TYPE_CHECKING:
    from sidecar.policy.endpoint import Endpoint

MIN_RING: Final = 1024  # entries; gRFC A42 and Envoy 1024
MAX_RING: Final = 4096  # gRFC A42's cap


class RingHash(Affinity):
    """In proportion to the weights: a ring of the smallest size on which the lightest has a whole number of entries."""

    name = "ring_hash"

    def __init__(self, rng: Rng, settings: BalancingSettings) -> None:
        super().__init__(rng, settings)
        self._places = array("Q")
        self._owners: list[int] = []  # of each place, as an index

    def build(self) -> None:
        entries: list[tuple[int, int]] = []
        total = sum(weight for _, weight in self._members)
        lightest = min((weight for _, weight in self._members), default=1) / max(total, 1)
        scale = min(ceil(lightest * MIN_RING) / lightest, float(MAX_RING))
        target, made = 0.0, 0
        for owner, (address, weight) in enumerate(self._members):
            target += scale * weight / total
            count = 0
            while made < target:
                entries.append((xxh64(f"{address}_{count}".encode(), 0), owner))
                count += 1
                made += 1
        entries.sort()
        self._places = array("Q", [place for place, _ in entries])
        self._owners = [owner for _, owner in entries]

    def order(self, key: int) -> Iterator[Endpoint]:
        owners = self._owners
        start = bisect_left(self._places, key)
        seen: set[int] = set()
        for step in range(len(owners)):
            owner = owners[(start + step) % len(owners)]
            if owner not in seen:
                seen.add(owner)
                yield self._endpoints[owner]
