"""A balancer as a user would write it, to show what one Python call per RPC costs: fewest in flight of all."""

from __future__ import annotations

from sidecar.policy.balancer import Balancer, PickContext
from sidecar.policy.cluster import Cluster
from sidecar.policy.endpoint import Endpoint


class FewestInFlight(Balancer):
    """The endpoint with the fewest RPCs on it."""

    name = "fewest_in_flight"
    wants_context = False

    def pick(self, cluster: Cluster, context: PickContext | None, now: float) -> Endpoint:
        return min(cluster.pickable, key=lambda endpoint: endpoint.in_flight)
