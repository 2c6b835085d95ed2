"""The seam of the balancers and the built-in ones. A balancer chooses among `cluster.pickable`; it never blocks.

`pick` is called once per attempt, `done` once per attempt that was started. The caller keeps `in_flight`.
A user's class (`module:Class`) subclasses `Balancer` and costs one Python call per RPC.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sidecar.policy.cluster import Cluster
    from sidecar.policy.endpoint import Endpoint
    from sidecar.rpc.metadata import RequestHead


class Rng(Protocol):
    """The part of random.Random that policies use."""

    def random(self) -> float: ...

    def randrange(self, stop: int, /) -> int: ...


class PickContext:
    """What a balancer may know of the RPC. Made only for balancers that ask for it, and for every retry."""

    __slots__ = ("head", "tried")

    def __init__(self, head: RequestHead, tried: tuple[Endpoint, ...]) -> None:
        self.head = head
        self.tried = tried  # endpoints of earlier attempts, avoided while another is pickable (RT-07)


class Balancer:
    """Chooses an endpoint. Subclass it; `name` shows in `/clusters`."""

    name: str = "custom"
    wants_context: bool = True

    def pick(self, cluster: Cluster, context: PickContext | None, now: float) -> Endpoint:
        """One of `cluster.pickable`, which is never empty here and never changes while this runs."""
        raise NotImplementedError

    def done(self, endpoint: Endpoint, outcome: int, latency: float, now: float) -> None:
        """An attempt on `endpoint` ended (`rpc.outcome`), after `latency` seconds."""

    def on_change(self, cluster: Cluster) -> None:
        """`cluster.pickable` was replaced."""


# === built in ===


class RoundRobin(Balancer):
    """In turn, from a random start so that many sidecars do not march in step (LB-01).

    With unequal weights it follows gRPC's static stride: each round visits every endpoint whose scaled weight
    has earned a turn, without a queue and without state per pick (LB-04).
    """

    name = "round_robin"
    wants_context = False

    def __init__(self, rng: Rng) -> None:
        self._next = rng.randrange(1 << 16)
        self._strides: list[int] = []

    def pick(self, cluster: Cluster, context: PickContext | None, now: float) -> Endpoint:
        candidates = untried(cluster.pickable, context)
        if self._strides and candidates is cluster.pickable:
            return self._weighted(candidates)
        self._next += 1
        return candidates[self._next % len(candidates)]

    def _weighted(self, candidates: list[Endpoint]) -> Endpoint:
        count = len(candidates)
        while True:
            self._next += 1
            index = self._next % count
            stride = self._strides[index]
            position = (stride * (self._next // count) + index * (_FULL // 2)) % _FULL
            if position >= _FULL - stride:
                return candidates[index]

    def on_change(self, cluster: Cluster) -> None:
        weights = [endpoint.weight for endpoint in cluster.pickable]
        if not weights or min(weights) == max(weights):
            self._strides = []
            return
        scale = _FULL / max(weights)
        self._strides = [max(1, int(weight * scale)) for weight in weights]


_FULL = 65_535  # the scale of a static stride, as grpc-go's


class LeastRequest(Balancer):
    """The endpoint with the fewest RPCs in flight for its weight; ties go round.

    Up to `FULL_SCAN` endpoints all are looked at, beyond that four drawn at random: in simulation four choices
    take nearly all of the gain of a full scan, two do not.
    """

    name = "least_request"
    wants_context = False
    FULL_SCAN = 16  # Envoy looks at two, or at all when told to
    CHOICES = 4

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._next = rng.randrange(1 << 16)

    def pick(self, cluster: Cluster, context: PickContext | None, now: float) -> Endpoint:
        candidates = untried(cluster.pickable, context)
        count = len(candidates)
        self._next += 1
        start = self._next % count
        best = candidates[start]
        looks = count if count <= self.FULL_SCAN else self.CHOICES
        index = start
        for _ in range(looks - 1):
            index = index + 1 if count <= self.FULL_SCAN else self._rng.randrange(count)
            if index == count:
                index = 0
            other = candidates[index]
            # (a + 1) / weight, without the division
            if (other.in_flight + 1) * best.weight < (best.in_flight + 1) * other.weight:
                best = other
        return best


def untried(candidates: list[Endpoint], context: PickContext | None) -> list[Endpoint]:
    """The candidates that no earlier attempt of this RPC went to; all of them when there are no others."""
    if context is None or not context.tried:
        return candidates
    return [endpoint for endpoint in candidates if endpoint not in context.tried] or candidates


BALANCERS: dict[str, Callable[[Rng], Balancer]] = {
    RoundRobin.name: RoundRobin,
    LeastRequest.name: LeastRequest,
}
