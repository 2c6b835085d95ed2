"""One upstream of the data path: its cluster, a pool per endpoint, and the RPCs that wait for one.

`wait` is where an RPC goes that cannot be placed: it is refused at once when waiting cannot help (LB-12), else
queued, bounded in count and time, and tried again in order as soon as something changes.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from sidecar.policy.cluster import (
    ALL_SATURATED,
    IN_FLIGHT_CAP,
    QUEUE_FULL,
    QUEUE_TIMEOUT,
    SHUTTING_DOWN,
    Change,
    Cluster,
    Refusal,
)
from sidecar.policy.ejection import Ejection
from sidecar.policy.endpoint import IDLE, PROBATION, Endpoint
from sidecar.policy.event import Event
from sidecar.policy.method import MethodTable
from sidecar.proxy.connection import Connection
from sidecar.proxy.ejector import Ejector
from sidecar.proxy.footprint import best_footprint
from sidecar.proxy.pool import EndpointPool
from sidecar.proxy.settings import ConnectionSettings, LimitSettings
from sidecar.proxy.upstream import Timeout, UpstreamConnection
from sidecar.telemetry.metrics import UpstreamMetrics, bump

if TYPE_CHECKING:
    from sidecar.http2.interface import HeaderBlock
    from sidecar.policy.route import Router
    from sidecar.proxy.engine import Engine
    from sidecar.proxy.exchange import Exchange
    from sidecar.proxy.gate import Gate
    from sidecar.rpc.metadata import RequestHead


class Dispatch:
    """Places RPCs of one upstream. It lives as long as the upstream is configured."""

    def __init__(
        self,
        engine: Engine,
        cluster: Cluster,
        metrics: UpstreamMetrics,
        connection: ConnectionSettings,
        limits: LimitSettings,
        methods: MethodTable | None = None,
    ) -> None:
        self.engine = engine
        self.cluster = cluster
        self.name = cluster.name
        self.metrics = metrics
        self.connection = connection
        self.limits = limits
        self.footprint = best_footprint()
        self.methods = methods  # None: nothing is set by method
        self.max_in_flight: int = limits.max_in_flight  # of `limits`, at hand for every RPC
        self.replay_size: int = limits.replay_size
        self.ejection: Ejection | None = None  # written by `ejector`; None: nobody is judged
        self.ejector = Ejector(self)
        self.wants_context = cluster.balancer.wants_context
        self.wants_load = cluster.balancer.wants_load
        self.gate: Gate | None = None  # what its RPCs pass beyond the plain caps; None: nothing
        self.router: Router[Dispatch] | None = None  # of the RPCs that the app sends here; None: all stay
        self.in_flight: int = 0
        self.pools: dict[Endpoint, EndpointPool] = {}
        self.on_connection: list[Callable[[UpstreamConnection], None]] = []  # called with each that is ready for use
        # Who waits, and since when, oldest first; transparent retries are served before all others.
        self._retries: OrderedDict[Exchange, float] = OrderedDict()
        self._queue: OrderedDict[Exchange, float] = OrderedDict()
        self._served: tuple[OrderedDict[Exchange, float], float] | None = None  # the place of the one being placed
        self._due = False
        self._ready: list[Endpoint] = []  # connected in this turn; the cluster hears of them when it settles
        self.closed = False
        self._timeout = Timeout(self._on_timeout)
        cluster.on_members.append(self.on_members)
        cluster.on_pickable.append(self.on_pickable)
        self.on_members(Change(added=tuple(cluster.endpoints), removed=()))

    def reconfigure(
        self, connection: ConnectionSettings, limits: LimitSettings, methods: MethodTable | None = None
    ) -> None:
        """New settings after a reload: for connections and RPCs from now on; nothing is cut (K7)."""
        self.connection = connection
        self.limits = limits
        self.methods = methods
        self.max_in_flight = limits.max_in_flight
        self.replay_size = limits.replay_size
        self.wants_context = self.cluster.balancer.wants_context
        self.wants_load = self.cluster.balancer.wants_load
        for pool in self.pools.values():
            pool.reconfigure(connection)

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

    def on_ready(self, endpoint: Endpoint) -> None:
        """A pool has its first connection. Good news can wait for the end of the turn, and for others like it."""
        self._ready.append(endpoint)
        self._mark_due()

    async def dial(self, connection: UpstreamConnection, address: str) -> None:
        """Connect a socket to `address`. Raises OSError."""
        loop = asyncio.get_running_loop()
        if address.startswith("unix:"):
            await loop.create_unix_connection(lambda: _protocol(connection), address.removeprefix("unix:"))
            return
        host, _, port = address.rpartition(":")
        await loop.create_connection(lambda: _protocol(connection), host.strip("[]"), int(port))

    # === ejection: the rare calls, handed on ===

    def note(self, event: Event) -> None:
        """What became of an endpoint."""
        self.ejector.note(event)

    def begin_trial(self, endpoint: Endpoint) -> None:
        """An RPC goes to an endpoint that is not healthy: on trial, or since no better one is ready."""
        if endpoint.state == PROBATION:
            self.ejector.begin_trial(endpoint)

    async def knock(self, address: str) -> None:
        """See whether a TCP connection to `address` can be had. Raises OSError."""
        loop = asyncio.get_running_loop()
        if address.startswith("unix:"):
            transport, _ = await loop.create_unix_connection(asyncio.Protocol, address.removeprefix("unix:"))
        else:
            host, _, port = address.rpartition(":")
            transport, _ = await loop.create_connection(asyncio.Protocol, host.strip("[]"), int(port))
        transport.abort()

    # === placing ===

    def route(self, head: RequestHead, block: HeaderBlock) -> Dispatch:
        """The upstream that an RPC goes to which the app has sent here. Asked only where there are routes."""
        assert self.router is not None
        chosen = self.router.choose(head.path, block.fields, self.engine.rng)
        if chosen is None or chosen.closed:  # a connection of a listener that is going may outlive where it led
            return self
        bump(self.metrics.routed, chosen.name)
        return chosen

    def add(self) -> None:
        """An RPC has arrived."""
        self.in_flight += 1
        self.metrics.exchange_started += 1

    def admit(self, exchange: Exchange) -> None:
        """The cheap refusals first, before anything was spent; then what is configured beyond them; then a place."""
        refusal = None
        if self.in_flight > self.max_in_flight:
            text = f"{self.name}: {self.max_in_flight} RPCs are in flight, which is its limit"
            refusal = Refusal(IN_FLIGHT_CAP, text)
        elif self.engine.strained:
            refusal = self.engine.refusal(self.name)
        if refusal is not None:
            exchange.refuse(refusal)
        elif self.gate is not None:
            exchange.gate = self.gate
            self.gate.enter(exchange)
        else:
            self.place(exchange)

    def place(self, exchange: Exchange) -> None:
        """Nothing is against it: it lines up behind those that wait, or is sent."""
        if self.metrics.queued:
            self.line_up(exchange)
        else:
            exchange.try_attempt()

    def remove(self, exchange: Exchange) -> None:
        """It is over."""
        self.in_flight -= 1
        if exchange.queued:
            self._leave(exchange)

    def acquire(self, endpoint: Endpoint) -> UpstreamConnection | None:
        """A connection of `endpoint` with a free stream slot."""
        self.footprint.fetch(endpoint)
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
        if self._served is not None:
            queue, since = self._served
            self._enter(queue, exchange, since)
            queue.move_to_end(exchange, last=False)  # where it was: nobody overtakes it, and its time runs on
        elif self.metrics.queued >= self.limits.max_queued:
            exchange.refuse(Refusal(QUEUE_FULL, f"{refusal.text}; {self.metrics.queued} RPCs wait already"))
        else:
            self._enter(self._queue, exchange, self.engine.now)

    def line_up(self, exchange: Exchange) -> None:
        """Others wait: nobody overtakes them, even where a slot became free in this very turn."""
        if self.cluster.pickable:
            self._mark_due()
            self.wait(exchange, Refusal(ALL_SATURATED, f"{self.name}: other RPCs wait for a stream slot before it"))
        else:
            self.wait(exchange, self.cluster.explain())

    def requeue(self, exchange: Exchange) -> None:
        """A transparent retry: ahead of all that wait, when the turn settles."""
        self._enter(self._retries, exchange, self.engine.now)
        self._mark_due()

    def _enter(self, queue: OrderedDict[Exchange, float], exchange: Exchange, since: float) -> None:
        exchange.queued = True
        queue[exchange] = since
        self.metrics.queued += 1
        if not self._timeout.is_set:
            self.engine.set_alarm(self._timeout, since + self.limits.queue_timeout)

    def _leave(self, exchange: Exchange) -> None:
        exchange.queued = False
        self.metrics.queued -= 1
        if self._queue.pop(exchange, None) is None:
            self._retries.pop(exchange, None)

    def on_pickable(self) -> None:
        """The cluster changed: look at the queue when the turn settles."""
        if self._queue or self._retries:
            self._mark_due()

    def _mark_due(self) -> None:
        if not self._due:
            self._due = True
            self.engine.mark_waiting(self)

    def serve_queue(self) -> None:
        """Place what can be placed, in order; refuse all when waiting has become useless."""
        self._due = False
        if self._ready:
            ready, self._ready = self._ready, []
            self.cluster.set_ready([endpoint for endpoint in ready if endpoint.connections])
        for queue in (self._retries, self._queue):
            for _ in range(len(queue)):
                if not queue or (not self.cluster.pickable and self.cluster.explain().worth_waiting):
                    break
                exchange, since = next(iter(queue.items()))
                self._leave(exchange)
                self._served = (queue, since)
                exchange.resume()
                self._served = None

    def _on_timeout(self) -> None:
        """The oldest has waited long enough: fail fast (F16)."""
        timeout = self.limits.queue_timeout
        for queue in (self._retries, self._queue):
            while queue:
                exchange, since = next(iter(queue.items()))
                if since + timeout > self.engine.now + 1e-9:
                    break
                self._leave(exchange)
                exchange.refuse(Refusal(QUEUE_TIMEOUT, f"{self.cluster.explain().text}; gave up after {timeout:g}s"))
        oldest = [next(iter(queue.values())) for queue in (self._retries, self._queue) if queue]
        if oldest:
            self.engine.set_alarm(self._timeout, min(oldest) + timeout)

    # === the end ===

    def close(self, reason: str) -> None:
        """The upstream is no longer configured, or the process ends: drain every connection."""
        if self.closed:
            return
        self.closed = True
        self.cluster.on_members.remove(self.on_members)
        self.cluster.on_pickable.remove(self.on_pickable)
        self.engine.cancel_alarm(self._timeout)
        self.ejector.close()
        for pool in self.pools.values():
            pool.close(reason)
        self.pools.clear()
        for exchange in [*self._retries, *self._queue]:
            exchange.refuse(Refusal(SHUTTING_DOWN, f"{self.name}: {reason}"))

    def __repr__(self) -> str:
        return f"<Dispatch {self.name} in_flight={self.in_flight} queued={self.metrics.queued} {self.cluster!r}>"


def _protocol(connection: Connection) -> asyncio.Protocol:
    """asyncio asks for its own base class in its types only; at run time any object with the callbacks will do."""
    return connection  # type: ignore[return-value]
