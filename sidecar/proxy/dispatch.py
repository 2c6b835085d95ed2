"""One upstream of the data path: its cluster, a pool per endpoint, and the RPCs that wait for one.

`wait` is where an RPC goes that cannot be placed: it is refused at once when waiting cannot help (LB-12), else
queued, bounded in count and time, and tried again in order as soon as something changes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from sidecar.policy.cluster import QUEUE_FULL, QUEUE_TIMEOUT, Change, Cluster, Refusal
from sidecar.policy.endpoint import IDLE, Endpoint
from sidecar.proxy.connection import Connection
from sidecar.proxy.pool import EndpointPool
from sidecar.proxy.settings import ConnectionSettings, LimitSettings
from sidecar.proxy.upstream import Timeout, UpstreamConnection
from sidecar.telemetry.metrics import UpstreamMetrics

if TYPE_CHECKING:
    from sidecar.proxy.engine import Engine
    from sidecar.proxy.exchange import Exchange


class Dispatch:
    """Places RPCs of one upstream. It lives as long as the upstream is configured."""

    def __init__(
        self,
        engine: Engine,
        cluster: Cluster,
        metrics: UpstreamMetrics,
        connection: ConnectionSettings,
        limits: LimitSettings,
    ) -> None:
        self.engine = engine
        self.cluster = cluster
        self.name = cluster.name
        self.metrics = metrics
        self.connection = connection
        self.limits = limits
        self.wants_context = cluster.balancer.wants_context
        self.in_flight: int = 0
        self.pools: dict[Endpoint, EndpointPool] = {}
        self._queue: deque[tuple[Exchange, float]] = deque()  # and since when it waits
        self._due = False
        self._timeout = Timeout(self._on_timeout)
        cluster.on_members.append(self.on_members)
        cluster.on_pickable.append(self.on_pickable)
        self.on_members(Change(added=tuple(cluster.endpoints), removed=()))

    def reconfigure(self, connection: ConnectionSettings, limits: LimitSettings) -> None:
        """New settings after a reload: for connections and RPCs from now on; nothing is cut (K7)."""
        self.connection = connection
        self.limits = limits
        self.wants_context = self.cluster.balancer.wants_context
        for pool in self.pools.values():
            pool.settings = connection

    # === members ===

    def on_members(self, change: Change) -> None:
        """The registry's news: a pool for each new endpoint, and an end to those that left."""
        self.engine.begin()
        for endpoint in change.removed:
            pool = self.pools.pop(endpoint, None)
            if pool is not None:
                pool.close("removed")
        for endpoint in change.added:
            pool = EndpointPool(self, endpoint)
            endpoint.pool = pool
            self.pools[endpoint] = pool
            if self.connection.eager:
                pool.connect()
        self.engine.settle()

    async def dial(self, connection: UpstreamConnection, address: str) -> None:
        """Connect a socket to `address`. Raises OSError."""
        loop = asyncio.get_running_loop()
        if address.startswith("unix:"):
            await loop.create_unix_connection(lambda: _protocol(connection), address.removeprefix("unix:"))
            return
        host, _, port = address.rpartition(":")
        await loop.create_connection(lambda: _protocol(connection), host.strip("[]"), int(port))

    # === placing ===

    def add(self) -> None:
        """An RPC has arrived."""
        self.in_flight += 1
        self.metrics.exchange_started += 1

    def remove(self, exchange: Exchange) -> None:
        """It is over."""
        self.in_flight -= 1
        exchange.queued = False

    def acquire(self, endpoint: Endpoint) -> UpstreamConnection | None:
        """A connection of `endpoint` with a free stream slot."""
        pool = endpoint.pool
        assert isinstance(pool, EndpointPool)
        return pool.acquire()

    def wait(self, exchange: Exchange, refusal: Refusal) -> None:
        """Queue the RPC if a moment may help, else refuse it."""
        if not refusal.worth_waiting:
            exchange.refuse(refusal)
            return
        for endpoint, pool in self.pools.items():
            if endpoint.connectivity == IDLE:
                pool.connect()
        if len(self._queue) >= self.limits.max_queued:
            exchange.refuse(Refusal(QUEUE_FULL, f"{refusal.text}; {len(self._queue)} RPCs wait already"))
            return
        exchange.queued = True
        self._queue.append((exchange, self.engine.now))
        self.metrics.queued = len(self._queue)
        if not self._timeout.is_set:
            self.engine.set_alarm(self._timeout, self.engine.now + self.limits.queue_timeout)

    def requeue(self, exchange: Exchange) -> None:
        """A transparent retry: ahead of all that wait, when the turn settles."""
        exchange.queued = True
        self._queue.appendleft((exchange, self.engine.now))
        self._mark_due()

    def on_pickable(self) -> None:
        """The cluster changed: look at the queue when the turn settles."""
        if self._queue:
            self._mark_due()

    def _mark_due(self) -> None:
        if not self._due:
            self._due = True
            self.engine.mark_waiting(self)

    def serve_queue(self) -> None:
        """Place what can be placed, in order; refuse all when waiting has become useless."""
        self._due = False
        for _ in range(len(self._queue)):
            if not self._queue:
                break
            if not self.cluster.pickable:
                refusal = self.cluster.explain()
                if refusal.worth_waiting:
                    break
            exchange, _ = self._queue.popleft()
            if exchange.queued:
                exchange.queued = False
                exchange.resume()
        self.metrics.queued = len(self._queue)

    def _on_timeout(self) -> None:
        """The oldest has waited long enough: fail fast (F16)."""
        timeout = self.limits.queue_timeout
        while self._queue and self._queue[0][1] + timeout <= self.engine.now + 1e-9:
            exchange, _ = self._queue.popleft()
            if exchange.queued:
                exchange.queued = False
                text = f"{self.cluster.explain().text}; gave up after {timeout:g}s"
                exchange.refuse(Refusal(QUEUE_TIMEOUT, text))
        self.metrics.queued = len(self._queue)
        if self._queue:
            self.engine.set_alarm(self._timeout, self._queue[0][1] + timeout)

    # === the end ===

    def close(self, reason: str) -> None:
        """The upstream is no longer configured, or the process ends: drain every connection."""
        self.cluster.on_members.remove(self.on_members)
        self.cluster.on_pickable.remove(self.on_pickable)
        self.engine.cancel_alarm(self._timeout)
        for pool in self.pools.values():
            pool.close(reason)
        self.pools.clear()
        while self._queue:
            exchange, _ = self._queue.popleft()
            if exchange.queued:
                exchange.queued = False
                exchange.refuse(Refusal("shutting_down", f"{self.name}: {reason}"))

    def __repr__(self) -> str:
        return f"<Dispatch {self.name} in_flight={self.in_flight} queued={len(self._queue)} {self.cluster!r}>"


def _protocol(connection: Connection) -> asyncio.Protocol:
    """asyncio asks for its own base class in its types only; at run time any object with the callbacks will do."""
    return connection  # type: ignore[return-value]
