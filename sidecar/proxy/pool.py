"""The connections to one endpoint: dial, reuse, grow at the stream limit, replace, close.

At most one connect runs at a time, with backoff after a failure; several connections exist only because the
peer's stream limit was reached (gRFC A105). The pool tells the cluster how the endpoint is connected; it picks
nothing.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING, Final

from sidecar.policy.backoff import Backoff
from sidecar.policy.endpoint import CONNECTING, IDLE, READY, TRANSIENT_FAILURE, Endpoint
from sidecar.proxy.upstream import Timeout, UpstreamConnection
from sidecar.telemetry.metrics import bump

if TYPE_CHECKING:
    from sidecar.proxy.dispatch import Dispatch
    from sidecar.proxy.settings import ConnectionSettings

log = logging.getLogger("sidecar.proxy")

BACKOFF_FACTOR: Final = 1.6  # gRPC connection-backoff.md
BACKOFF_JITTER: Final = 0.2  # the same
AGE_JITTER: Final = 0.1  # gRFC A9: +-10 %
# A connection that lived shorter did not do any good: the next connect waits for the backoff.
SHORT_LIFE: Final = 0.25
# The footprint is taken with so many attempts at first, while what they need is being made, and then with every 64th:
# taking it follows every pointer once, and with a stale one each attempt does.
_SETTLING: Final = 4
_RETAKE: Final = 64


class EndpointPool:
    """All connections to `endpoint`. It ends when the endpoint left the cluster and its last attempt is over."""

    def __init__(self, dispatch: Dispatch, endpoint: Endpoint) -> None:
        self.dispatch = dispatch
        self.engine = dispatch.engine
        self.endpoint = endpoint
        self.settings = dispatch.connection
        self.name = dispatch.name
        self.patience: float = 1.0  # what the PING intervals are multiplied with; doubled when the endpoint complains
        self.trust: float = 0.0  # seconds of silence after which a connection is asked before it is used
        self.keepalive_interval: float = 0.0  # likewise while it has open streams; 0: never
        self.set_intervals()
        self.connections: list[UpstreamConnection] = []  # usable ones, oldest first
        self.draining: set[UpstreamConnection] = set()
        self.doubted: set[UpstreamConnection] = set()  # they owe the answer to a PING, and take no new attempts
        self.replacing: UpstreamConnection | None = None  # drains as soon as a younger one is ready
        self.acquired: int = 0  # connections for attempts
        self.closed = False
        self.failing = False
        self._dial: asyncio.Task[None] | None = None
        self._backoff = Backoff(self.settings.backoff_base, BACKOFF_FACTOR, self.settings.backoff_max, BACKOFF_JITTER)
        self._redial = Timeout(self.connect)
        self._grace = Timeout(self._cut)

    # === picks ===

    def acquire(self) -> UpstreamConnection | None:
        """The oldest connection with a free stream slot (H2-72). None: the cluster has been told why."""
        for connection in self.connections:
            if connection.has_slot():
                self.acquired += 1
                if self.acquired <= _SETTLING or self.acquired % _RETAKE == 0:
                    self.dispatch.footprint.take(self.endpoint, connection)
                if self.engine.now - connection.read_at > self.trust:
                    connection.keepalive.check()
                return connection
        if not self.connections:
            self._set_connectivity(CONNECTING)
            self.connect()
            return None
        if len(self.connections) < self.settings.max_connections:
            self.connect()
        self.dispatch.cluster.set_saturated(self.endpoint, True)
        return None

    def on_slot(self) -> None:
        """A slot may have become free."""
        if any(connection.has_slot() for connection in self.connections):
            self.dispatch.cluster.set_saturated(self.endpoint, False)

    # === connecting ===

    def connect(self) -> None:
        """Dial, unless that is under way or waits for its backoff."""
        if self.closed or self._dial is not None or self._redial.is_set:
            return
        if self.endpoint.connectivity == IDLE:
            self._set_connectivity(CONNECTING)
        self._dial = self.engine.loop.create_task(self._connect())

    async def _connect(self) -> None:
        connection = UpstreamConnection(self.engine, self)
        timeout = self.settings.connect_timeout
        error = ""
        self.dispatch.metrics.connects += 1
        try:
            async with self.engine.dial_slots:
                await self._dial_within(timeout, connection)
            if not connection.ready:
                error = connection.reason or "closed before its SETTINGS"
                bump(self.dispatch.metrics.connect_failures, "closed")
        except TimeoutError:
            error = f"no connection within {timeout:g}s"
            bump(self.dispatch.metrics.connect_failures, "timeout")
        except OSError as failure:
            error = describe(failure)
            bump(
                self.dispatch.metrics.connect_failures,
                "refused" if isinstance(failure, ConnectionRefusedError) else "error",
            )
        except Exception as failure:  # an address that makes no sense must not leave the endpoint connecting for good
            error = f"{type(failure).__name__}: {failure}"
            bump(self.dispatch.metrics.connect_failures, "error")
        finally:
            self._dial = None
            if not connection.ready:
                connection.abort()
        self.engine.begin()
        if error:
            self._on_failed(error)
        elif not self.connections and self.endpoint.connectivity == CONNECTING:
            self.connect()  # it was lost again before this turn, and its redial may have found this one under way
        self.engine.settle()

    async def _dial_within(self, timeout: float, connection: UpstreamConnection) -> None:
        """Until the peer's SETTINGS. Raises TimeoutError, OSError.

        On a late loop the timeout may ring together with the good news. So a transport that is up is not cancelled
        (uvloop would close it without a word to us), and a connection that is ready is kept.
        """
        dial = self.engine.loop.create_task(self.dispatch.dial(connection, self.endpoint.address))
        try:
            async with asyncio.timeout(timeout):
                await asyncio.wait((dial,))
                dial.result()
                await connection.settled.wait()
        except TimeoutError:
            if not connection.ready:
                raise
        finally:
            if connection.transport is None:
                dial.cancel()

    def _on_failed(self, error: str) -> None:
        delay = self._backoff.fail(self.engine.rng)
        if not self.failing:
            self.failing = True
            self.dispatch.ejector.note_unreachable(self.endpoint, error, delay)
        self._retry_later(delay)
        if not self.connections:
            self._set_connectivity(TRANSIENT_FAILURE, error)

    def _retry_later(self, delay: float) -> None:
        if not self.closed:
            self.engine.set_alarm(self._redial, self.engine.now + delay)

    def on_ready(self, connection: UpstreamConnection) -> None:
        """The peer's SETTINGS are here: it may be used."""
        if self.closed:
            connection.drain("removed")
            return
        if self.failing:
            self.failing = False
            self.dispatch.ejector.note_reachable(self.endpoint)
        self._backoff.succeed()
        self.connections.append(connection)
        self.endpoint.connections = len(self.connections)
        self.endpoint.last_error = ""
        settings = self.settings
        now = self.engine.now
        if settings.max_age:
            jitter = 1 + AGE_JITTER * (2 * self.engine.rng.random() - 1)
            self.engine.set_alarm(connection.age, now + settings.max_age * jitter)
        if settings.idle_timeout:
            self.engine.set_alarm(connection.idle, now + settings.idle_timeout)
        connection.keepalive.start()
        if self.endpoint.connectivity == READY:
            self.dispatch.cluster.set_saturated(self.endpoint, False)
        else:
            self.dispatch.on_ready(self.endpoint)
        for observer in self.dispatch.on_connection:
            observer(connection)
        if self.replacing is not None:
            old, self.replacing = self.replacing, None
            old.drain("max_age")
        for doubted in list(self.doubted):
            doubted.keepalive.on_replaced()

    # === dead or alive ===

    def reconfigure(self, settings: ConnectionSettings) -> None:
        """New settings: for connects and questions from now on."""
        self.settings = settings
        self.set_intervals()

    def set_intervals(self) -> None:
        """How long silence is trusted."""
        self.trust = (self.settings.idle_ping or math.inf) * self.patience
        self.keepalive_interval = self.settings.keepalive_interval * self.patience

    def on_too_many_pings(self) -> None:
        """The endpoint complains: ask half as often from now on (H2-82, gRFC A8)."""
        self.patience *= 2
        self.set_intervals()
        log.warning("%s: %s is asked by PING half as often from now on", self.name, self.endpoint.address)

    def on_doubted(self, connection: UpstreamConnection) -> None:
        """It owes the answer to a PING for half the time already: no new attempts, and another one is dialled."""
        if connection in self.connections:
            self.connections.remove(connection)
            self.doubted.add(connection)
            self.endpoint.connections = len(self.connections)
            if not self.connections:
                self._set_connectivity(CONNECTING, "a PING is not answered")
                self.connect()

    def on_trusted(self, connection: UpstreamConnection) -> None:
        """It did answer."""
        if connection in self.doubted and not self.closed:
            self.doubted.remove(connection)
            self.connections.append(connection)
            self.endpoint.connections = len(self.connections)
            self.endpoint.last_error = ""
            self.engine.cancel_alarm(self._redial)
            self._set_connectivity(READY)
            self.dispatch.cluster.set_saturated(self.endpoint, False)

    # === losing and closing ===

    def replace(self, connection: UpstreamConnection, reason: str) -> None:
        """Connect anew, then drain `connection`."""
        if not self.closed and connection in self.connections:
            self.replacing = connection
            self.connect()
            if self.settings.max_age:
                # Should the connect fail, the old one stays in use and asks again later.
                self.engine.set_alarm(connection.age, self.engine.now + max(1.0, self.settings.max_age * AGE_JITTER))

    def may_close_idle(self, connection: UpstreamConnection) -> bool:
        """An eager pool keeps its last connection, so that no RPC pays for a connect."""
        return not self.settings.eager or len(self.connections) > 1

    def on_draining(self, connection: UpstreamConnection) -> None:
        """It takes no new attempts."""
        self.draining.add(connection)
        self.doubted.discard(connection)
        self._forget(connection)

    def on_lost(self, connection: UpstreamConnection, detail: str) -> None:
        """Its socket is gone. A connect that never got ready reports through `_connect`."""
        connection.settled.set()
        self.draining.discard(connection)
        self.doubted.discard(connection)
        if connection.ready:
            label = connection.reason if connection.draining else connection.cause or "lost"
            bump(self.dispatch.metrics.disconnects, label)
            if not connection.draining:
                self.endpoint.last_error = detail
            self._forget(connection)
        elif not connection.reason:
            connection.reason = detail

    def _forget(self, connection: UpstreamConnection) -> None:
        """Take it out of the picks; replace it if the endpoint is still wanted (H2-81)."""
        if connection not in self.connections:
            return
        self.connections.remove(connection)
        self.endpoint.connections = len(self.connections)
        if self.replacing is connection:
            self.replacing = None
        if self.connections or self.closed:
            return
        if connection.reason == "idle":
            self._set_connectivity(IDLE)
            return
        self._set_connectivity(CONNECTING)
        if self.engine.now - connection.ready_at < SHORT_LIFE:
            self._retry_later(self._backoff.fail(self.engine.rng))
        else:
            self.connect()

    def _set_connectivity(self, connectivity: int, error: str = "") -> None:
        if connectivity == CONNECTING and self.endpoint.connectivity == TRANSIENT_FAILURE:
            return  # gRPC: failing stays failing until it is ready
        self.dispatch.cluster.set_connectivity(self.endpoint, connectivity, error)

    def close(self, reason: str) -> None:
        """The endpoint left: no new attempts, the old ones finish; after `drain_grace` they are cut (B12)."""
        if self.closed:
            return
        self.closed = True
        self.engine.cancel_alarm(self._redial)
        if self._dial is not None:
            self._dial.cancel()
        for connection in [*self.connections, *self.doubted]:
            connection.drain(reason)
        if self.draining and self.settings.drain_grace:
            self.engine.set_alarm(self._grace, self.engine.now + self.settings.drain_grace)

    def _cut(self) -> None:
        for connection in list(self.draining):
            connection.reason = "removed from the registry, and its drain grace is over"
            connection.abort()

    def __repr__(self) -> str:
        return (
            f"<EndpointPool {self.endpoint.address} connections={len(self.connections)} draining={len(self.draining)}>"
        )


def describe(failure: OSError) -> str:
    """A socket error in words."""
    if isinstance(failure, ConnectionRefusedError):
        return "connection refused"
    return failure.strerror or str(failure) or type(failure).__name__
