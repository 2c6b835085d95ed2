"""Balancers as users might write them, with their mistakes."""

from __future__ import annotations

from sidecar.policy.balancer import Balancer, PickContext
from sidecar.policy.cluster import Cluster
from sidecar.policy.endpoint import Endpoint


class First(Balancer):
    """Works."""

    name = "first"
    wants_context = False

    def pick(self, cluster: Cluster, context: PickContext | None, now: float) -> Endpoint:
        return cluster.pickable[0]


class Failing(First):
    """Raises wherever it is called, but for the pick."""

    def done(self, endpoint: Endpoint, outcome: int, latency: float, now: float) -> None:
        raise ZeroDivisionError("done")

    def on_change(self, cluster: Cluster) -> None:
        raise ZeroDivisionError("on_change")

    def why_avoided(self, endpoint: Endpoint, cluster: Cluster, now: float) -> str:
        raise ZeroDivisionError("why_avoided")


class Choosy(First):
    """Never picks any but the first, and says so."""

    def why_avoided(self, endpoint: Endpoint, cluster: Cluster, now: float) -> str:
        return "" if endpoint is cluster.pickable[0] else "it is not the first"


class Forgetful(First):
    """Remembers the first endpoint that it ever saw, and picks no other."""

    def __init__(self) -> None:
        self.first: Endpoint | None = None

    def pick(self, cluster: Cluster, context: PickContext | None, now: float) -> Endpoint:
        self.first = self.first or cluster.pickable[0]
        return self.first


class Lost(First):
    """Picks nothing."""

    def pick(self, cluster: Cluster, context: PickContext | None, now: float) -> Endpoint:
        return None  # type: ignore[return-value]


class NeedsArguments(First):
    """Cannot be made."""

    def __init__(self, size: int) -> None:
        self.size = size


NOT_A_CLASS = First()
