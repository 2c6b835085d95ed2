"""What other proxies balance by, for the simulation: Envoy's default and linkerd's, written after their documents.

They are measured against, not shipped; both look at two endpoints only.
"""

from __future__ import annotations

import math

from sidecar.policy.balancer import Balancer, PickContext, Rng
from sidecar.policy.cluster import Cluster
from sidecar.policy.endpoint import Endpoint


class TwoLeastRequest(Balancer):
    """Envoy's LEAST_REQUEST: two draws with replacement, the one with fewer in flight (gRFC A48 likewise)."""

    name = "two-choice least request"
    wants_context = False

    def __init__(self, rng: Rng) -> None:
        self.rng = rng

    def pick(self, cluster: Cluster, context: PickContext | None, now: float) -> Endpoint:
        candidates = cluster.pickable
        one, other = (candidates[int(self.rng.random() * len(candidates))] for _ in range(2))
        return other if other.in_flight < one.in_flight else one


class TwoPeakEwma(Balancer):
    """linkerd's: two different ones, the one with the lower peak EWMA times (in flight + 1)."""

    name = "two-choice peak EWMA"
    wants_context = False
    DECAY = 10.0  # seconds
    DEFAULT = 0.030  # seconds

    def __init__(self, rng: Rng) -> None:
        self.rng = rng
        self.estimates: dict[Endpoint, tuple[float, float]] = {}  # seconds, and when that was right

    def pick(self, cluster: Cluster, context: PickContext | None, now: float) -> Endpoint:
        candidates = cluster.pickable
        first = int(self.rng.random() * len(candidates))
        second = int(self.rng.random() * (len(candidates) - 1))
        one, other = candidates[first], candidates[second + (second >= first)]
        return other if self.cost(other, now) < self.cost(one, now) else one

    def cost(self, endpoint: Endpoint, now: float) -> float:
        estimate, at = self.estimates.get(endpoint, (self.DEFAULT, now))
        return estimate * math.exp((at - now) / self.DECAY) * (endpoint.in_flight + 1)

    def done(self, endpoint: Endpoint, outcome: int, latency: float, now: float) -> None:
        estimate, at = self.estimates.get(endpoint, (self.DEFAULT, now))
        if latency < estimate:
            kept = math.exp((at - now) / self.DECAY)
            latency = kept * estimate + (1 - kept) * latency
        self.estimates[endpoint] = (latency, now)
