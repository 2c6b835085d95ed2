"""Balancers that look at no load: in turn, at random, or one and the same."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

from sidecar.policy.balancer import Balancer, PickContext, Rng, untried, warmth

if TYPE_CHECKING:
    from sidecar.policy.cluster import Cluster
    from sidecar.policy.endpoint import Endpoint

_FULL = 65_535  # the scale of a static stride, as grpc-go's


class RoundRobin(Balancer):
    """In turn, from a random start so that many sidecars do not march in step (LB-01).

    With unequal weights it follows gRPC's static stride: each round visits every endpoint whose scaled weight
    has earned a turn, without a queue and without state per pick (LB-04).
    """

    name = "round_robin"
    wants_context = False

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._next = rng.randrange(1 << 16)
        self._strides: list[int] = []

    def pick(self, cluster: Cluster, context: PickContext | None, now: float) -> Endpoint:
        candidates = untried(cluster.pickable, context)
        endpoint = self._following(candidates, cluster)
        for _ in range(len(candidates)):
            # One in slow start lets some of its turns pass.
            if endpoint.warm_at <= now or self._rng.random() < warmth(endpoint, cluster.slow_start, now):
                break
            endpoint = self._following(candidates, cluster)
        return endpoint

    def _following(self, candidates: list[Endpoint], cluster: Cluster) -> Endpoint:
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
        self._stride_by([endpoint.worth for endpoint in cluster.pickable])

    def _stride_by(self, weights: list[float]) -> None:
        """Go by these weights of the pickable ones from now on."""
        if not weights or min(weights) == max(weights):
            self._strides = []
            return
        scale = _FULL / max(weights)
        self._strides = [max(1, int(weight * scale)) for weight in weights]


class Random(Balancer):
    """Any of them, in proportion to the weights (D3)."""

    name = "random"
    wants_context = False

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._sums: list[float] = []  # of the weights up to and including each place; empty: all are equal

    def pick(self, cluster: Cluster, context: PickContext | None, now: float) -> Endpoint:
        candidates = untried(cluster.pickable, context)
        sums = self._sums
        if sums and candidates is not cluster.pickable:
            sums = _sums_of(candidates)
        endpoint = self._any(candidates, sums)
        for _ in candidates:
            if endpoint.warm_at <= now or self._rng.random() < warmth(endpoint, cluster.slow_start, now):
                break
            endpoint = self._any(candidates, sums)
        return endpoint

    def _any(self, candidates: list[Endpoint], sums: list[float]) -> Endpoint:
        if not sums:
            return candidates[int(self._rng.random() * len(candidates))]
        last = len(sums) - 1
        return candidates[min(bisect_right(sums, self._rng.random() * sums[last]), last)]

    def on_change(self, cluster: Cluster) -> None:
        self._sums = _sums_of(cluster.pickable)


def _sums_of(candidates: list[Endpoint]) -> list[float]:
    weights = [endpoint.worth for endpoint in candidates]
    return list(accumulate(weights)) if weights and min(weights) != max(weights) else []


class PickFirst(Balancer):
    """One and the same while it can be picked, then the next in an order drawn by weight (LB-06).

    The order is drawn once for each endpoint, so that many sidecars choose differently and each stays with its choice.
    """

    name = "pick_first"
    wants_context = False

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._ranks: dict[str, float] = {}  # by address; the highest goes first
        self._order: list[Endpoint] = []  # of the pickable ones
        self._current: Endpoint | None = None

    def pick(self, cluster: Cluster, context: PickContext | None, now: float) -> Endpoint:
        if context is not None and context.tried:
            return untried(self._order, context)[0]
        self._current = self._order[0]
        return self._current

    def on_change(self, cluster: Cluster) -> None:
        # gRFC A113: keys u^(1/weight), sorted downwards, are a draw in proportion to the weights.
        self._ranks = {
            endpoint.address: self._ranks.get(endpoint.address) or self._rng.random() ** (1.0 / endpoint.weight)
            for endpoint in cluster.endpoints
        }
        self._order = sorted(cluster.pickable, key=self._standing, reverse=True)

    def _standing(self, endpoint: Endpoint) -> tuple[bool, int, float]:
        return endpoint is self._current, -endpoint.member.priority, self._ranks[endpoint.address]
