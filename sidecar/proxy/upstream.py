"""A connection to an endpoint: it carries attempts, and tells its pool what becomes of it.

It is usable from the peer's SETTINGS until a GOAWAY, the end of its ids, its age or its loss; then it drains:
no new attempts, the old ones finish, then it closes. Whether it is dead although it is open is found out by
`keepalive`, and by the kernel for what was sent and is not acknowledged.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from sidecar.http2.constants import CLIENT, ENHANCE_YOUR_CALM, LARGEST_STREAM_ID, NO_ERROR, error_name
from sidecar.http2.errors import RemoteProtocolError
from sidecar.policy.endpoint import Endpoint
from sidecar.proxy.connection import Connection
from sidecar.proxy.keepalive import Keepalive
from sidecar.proxy.wheel import Alarm

if TYPE_CHECKING:
    from sidecar.http2.interface import Stream
    from sidecar.proxy.attempt import Attempt
    from sidecar.proxy.engine import Engine
    from sidecar.proxy.own_rpc import OwnStream
    from sidecar.proxy.pool import EndpointPool

log = logging.getLogger("sidecar.proxy")

# Ids are given up at three quarters, so that a replacement is up before the last one (H2-74; grpc-go the same).
STREAM_ID_LIMIT: Final = LARGEST_STREAM_ID // 4 * 3
_STREAM_ID_LIMIT: Final = STREAM_ID_LIMIT  # for the compiled form, where it is a number in C and not seen from outside
TOO_MANY_PINGS: Final = b"too_many_pings"  # the debug data of a gRPC server that is asked too often (gRFC A8)


class Timeout(Alarm):
    """Calls something once. For the rare timers of connections; an RPC's deadline has its own class."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], None]) -> None:
        super().__init__()
        self.action = action

    def ring(self, now: float) -> None:
        self.action()

    def retire(self) -> None:
        """It will not be set again. It lets go of its owner, who would else live until the collector comes by."""
        self.action = nothing


def nothing() -> None:
    """What a retired timeout does."""


class UpstreamConnection(Connection):
    """One connection of an `EndpointPool`."""

    def __init__(self, engine: Engine, pool: EndpointPool) -> None:
        super().__init__(engine, CLIENT)
        self.pool = pool
        self.endpoint: Endpoint = pool.endpoint
        self.own: set[OwnStream] = set()  # requests of the sidecar itself
        self.newest_id: int = 0  # of a stream
        self.ready = False  # the peer's SETTINGS are here
        self.settled = asyncio.Event()  # ready, or lost before it was
        self.draining = False
        self.reason = ""  # why it drains or closes, for logs and metrics
        self.ready_at: float = 0.0
        self.idle_since: float = 0.0
        self.read_at: float = 0.0  # when octets came last
        self.withheld = False  # nothing is written until the peer has answered a PING
        self.fault = ""  # what it died of in words, if it was found dead
        self.cause = ""  # the same as a label
        self.age = Timeout(self.on_max_age)
        self.idle = Timeout(self.on_idle)
        self.keepalive = Keepalive(self)

    # === picks ===

    def has_slot(self) -> bool:
        """Whether another attempt may start on it (H2-71)."""
        return not self.draining and self.codec.has_slot()

    def add(self, attempt: Attempt, stream: Stream) -> None:
        """An attempt has started, on `stream`."""
        self.mount(attempt)
        self.newest_id = stream.id

    def remove(self, attempt: Attempt) -> None:
        """An attempt is over; its slot is free."""
        self.dismount(attempt)
        if self.newest_id > _STREAM_ID_LIMIT and not self.closing:
            self.on_exhausted()
        if self.endpoint.saturated:
            self.pool.on_slot()
        if not self.riders:
            self.idle_since = self.engine.now
            if self.draining:
                self.finish()

    def remove_own(self, stream: OwnStream) -> None:
        """A request of our own is over; its slot is free."""
        self.own.discard(stream)
        if self.endpoint.saturated:
            self.pool.on_slot()

    @property
    def attempts(self) -> list[Attempt]:
        """That run on it, the oldest first."""
        return cast("list[Attempt]", self.list_riders())

    # === octets ===

    def feed(self, data: bytes) -> None:
        self.read_at = self.engine.now
        Connection.feed(self, data)

    def flush(self) -> None:
        if self.withheld and not self.closing:
            self.dirty = False  # it leaves with the answer to the PING, or never
        else:
            Connection.flush(self)

    def write_ping(self, payload: bytes) -> None:
        """Send a PING at once, ahead of what is queued from now on."""
        if self._outlet is not None and not self.closing:
            self.codec.send_ping(payload)
            self._write(self._outlet)

    def on_ping_ack(self, payload: bytes) -> None:
        self.keepalive.on_answer()

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, OSError) and exc.errno == errno.ETIMEDOUT and not self.fault:
            self.cause = "unacknowledged"
            self.fault = "connection lost: what was sent was not acknowledged in time (connection.user_timeout)"
        Connection.connection_lost(self, exc)

    # === heard from the socket and the codec ===

    def on_open(self) -> None:
        assert self.transport is not None
        set_user_timeout(self.transport, self.pool.settings.user_timeout)
        self.greet()

    def on_settings(self) -> None:
        if not self.ready:
            self.ready = True
            self.settled.set()
            self.ready_at = self.idle_since = self.engine.now
            self.pool.on_ready(self)
        elif self.endpoint.saturated:
            self.pool.on_slot()

    def on_goaway(self, last_stream_id: int, error_code: int, debug: bytes) -> None:
        """The peer takes no more: what runs may finish, the pool replaces the connection (H2-81)."""
        if error_code != NO_ERROR:
            said = debug[:80].decode("ascii", "backslashreplace")
            level = logging.WARNING if error_code == ENHANCE_YOUR_CALM else logging.INFO
            log.log(level, "%s: %s sent GOAWAY %s %r", self.pool.name, self.peer, error_name(error_code), said)
            if error_code == ENHANCE_YOUR_CALM and debug == TOO_MANY_PINGS:
                self.pool.on_too_many_pings()
        self.drain("goaway")

    def on_protocol_error(self, error: RemoteProtocolError) -> None:
        log.warning("%s: %s broke HTTP/2: %s; closing the connection", self.pool.name, self.peer, error)
        self.reason = f"protocol error: {error}"

    def on_closed(self, reason: str) -> None:
        for timeout in (self.age, self.idle):
            self.engine.cancel_alarm(timeout)
            timeout.retire()
        self.keepalive.retire()
        detail = self.fault or (self.reason if self.closing and self.reason else reason)
        self.pool.on_lost(self, detail)
        for attempt in self.attempts:
            attempt.on_connection_lost(detail)
        for stream in list(self.own):
            stream.on_connection_lost(detail)

    # === its end ===

    def on_exhausted(self) -> None:
        """No more stream ids: another connection takes over."""
        self.drain("stream_ids")

    def on_max_age(self) -> None:
        """Old enough: let the pool connect anew first, then drain (make before break)."""
        self.pool.replace(self, "max_age")

    def on_idle(self) -> None:
        """Unused for the idle time? Then it may go; otherwise look again when it could be."""
        timeout = self.pool.settings.idle_timeout
        due_at = self.idle_since + timeout
        if self.riders or due_at > self.engine.now:
            self.engine.set_alarm(self.idle, max(due_at, self.engine.now + timeout / 10))
        elif self.pool.may_close_idle(self):
            self.drain("idle")
        else:
            self.engine.set_alarm(self.idle, self.engine.now + timeout)

    def drain(self, reason: str) -> None:
        """No new attempts; it closes when the last one has ended."""
        if self.draining:
            return
        self.draining = True
        self.reason = reason
        self.pool.on_draining(self)
        for stream in list(self.own):
            stream.on_connection_lost(f"the connection is closing: {reason}")
        if not self.riders:
            self.finish()

    def finish(self) -> None:
        """Nothing runs on it any more: say goodbye and close."""
        if self.transport is not None:
            self.close()
            self.touch()

    def __repr__(self) -> str:
        state = "draining" if self.draining else "ready" if self.ready else "connecting"
        return f"<UpstreamConnection {self.endpoint.address} {state} attempts={self.riders}>"


def set_user_timeout(transport: asyncio.BaseTransport, seconds: float) -> None:
    """Have the kernel end the connection when what was sent is not acknowledged for that long; 0: its own 15 min."""
    sock = transport.get_extra_info("socket")
    if seconds and sock is not None and sock.family != socket.AF_UNIX and hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(seconds * 1000))
