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
        best = cluster.pickable[0]
        fewest = best.in_flight
        for endpoint in cluster.pickable:  # a loop, not `min` with a key: that would be a call for each endpoint
            in_flight = endpoint.in_flight
            if in_flight < fewest:
                best, fewest = endpoint, in_flight
        return best
