"""Where in memory the next RPC to an endpoint will look, for who can use that: `heap_footprint`, which is compiled."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sidecar.policy.endpoint import Endpoint
    from sidecar.proxy.upstream import UpstreamConnection


class Footprint:
    """Knows nothing, asks for nothing."""

    def fetch(self, endpoint: Endpoint) -> None:
        """An RPC is about to go there."""

    def take(self, endpoint: Endpoint, connection: UpstreamConnection) -> None:
        """See anew what that touches if it takes `connection`."""


def best_footprint() -> Footprint:
    """The one that knows where compiled objects keep what, where there are any."""
    try:
        found: Footprint = import_module("sidecar.proxy.heap_footprint").HeapFootprint()
    except ImportError:
        return Footprint()
    return found
