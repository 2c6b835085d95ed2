"""The active health checks of an upstream: a checker for each of its endpoints, off unless set.

It follows the membership and the connections; what a checker does is in `checker`. It ends with the upstream's pools.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.policy.cluster import Change
from sidecar.policy.endpoint import Endpoint
from sidecar.proxy.health_settings import HealthCheckSettings

if TYPE_CHECKING:
    from sidecar.proxy.checker import Checker
    from sidecar.proxy.dispatch import Dispatch
    from sidecar.proxy.pool import EndpointPool
    from sidecar.proxy.upstream import UpstreamConnection


class HealthChecks:
    """A checker for each endpoint of an upstream; none at all without settings."""

    def __init__(self, dispatch: Dispatch, settings: HealthCheckSettings | None) -> None:
        self.dispatch = dispatch
        self.settings = settings
        self.checkers: dict[Endpoint, Checker] = {}
        dispatch.cluster.on_members.append(self.on_members)
        dispatch.on_connection.append(self.on_connection)
        self._begin()

    def reconfigure(self, settings: HealthCheckSettings | None) -> None:
        """New settings: every endpoint is asked anew; RPCs wait for the first answer, which is one round trip away."""
        if settings != self.settings:
            for checker in self.checkers.values():
                checker.close()
            self.checkers.clear()
            self.settings = settings
            self._begin()

    def _begin(self) -> None:
        if self.settings is not None:
            self.dispatch.engine.begin()
            for endpoint, pool in self.dispatch.pools.items():
                self._check(endpoint, pool, self.settings)
            self.dispatch.engine.settle()

    def _check(self, endpoint: Endpoint, pool: EndpointPool, settings: HealthCheckSettings) -> None:
        from sidecar.proxy.checker import Checker  # a start without health checks does not wait for it

        self.checkers[endpoint] = Checker(pool, settings)

    def on_members(self, change: Change) -> None:
        """The registry's news; the pools are there already."""
        for endpoint in change.removed:
            checker = self.checkers.pop(endpoint, None)
            if checker is not None:
                checker.close()
        if self.settings is not None:
            for endpoint in change.added:
                self._check(endpoint, self.dispatch.pools[endpoint], self.settings)

    def on_connection(self, connection: UpstreamConnection) -> None:
        """One is ready for use."""
        checker = self.checkers.get(connection.endpoint)
        if checker is not None:
            checker.on_connection(connection)
