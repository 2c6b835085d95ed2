"""A connection to an endpoint: it carries attempts, and tells its pool what becomes of it.

It is usable from the peer's SETTINGS until a GOAWAY, the end of its ids, its age or its loss; then it drains:
no new attempts, the old ones finish, then it closes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sidecar.http2.constants import CLIENT, ENHANCE_YOUR_CALM, LARGEST_STREAM_ID, NO_ERROR, error_name
from sidecar.http2.errors import RemoteProtocolError
from sidecar.policy.endpoint import Endpoint
from sidecar.proxy.connection import Connection
from sidecar.proxy.wheel import Alarm

if TYPE_CHECKING:
    from sidecar.proxy.attempt import Attempt
    from sidecar.proxy.engine import Engine
    from sidecar.proxy.own_rpc import OwnStream
    from sidecar.proxy.pool import EndpointPool

log = logging.getLogger("sidecar.proxy")

# Ids are given up at three quarters, so that a replacement is up before the last one (H2-74; grpc-go the same).
STREAM_ID_LIMIT: Final = LARGEST_STREAM_ID // 4 * 3


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
        self.attempts: set[Attempt] = set()
        self.own: set[OwnStream] = set()  # requests of the sidecar itself
        self.ready = False  # the peer's SETTINGS are here
        self.settled = asyncio.Event()  # ready, or lost before it was
        self.draining = False
        self.reason = ""  # why it drains or closes, for logs and metrics
        self.ready_at: float = 0.0
        self.idle_since: float = 0.0
        self.age = Timeout(self.on_max_age)
        self.idle = Timeout(self.on_idle)

    # === picks ===

    def has_slot(self) -> bool:
        """Whether another attempt may start on it (H2-71)."""
        codec = self.codec
        return not self.draining and codec.open_streams < codec.remote_max_concurrent_streams

    def remove(self, attempt: Attempt) -> None:
        """An attempt is over; its slot is free."""
        self.attempts.discard(attempt)
        if self.codec.next_stream_id > STREAM_ID_LIMIT and not self.closing:
            self.on_exhausted()
        if self.endpoint.saturated:
            self.pool.on_slot()
        if not self.attempts:
            self.idle_since = self.engine.now
            if self.draining:
                self.finish()

    def remove_own(self, stream: OwnStream) -> None:
        """A request of our own is over; its slot is free."""
        self.own.discard(stream)
        if self.endpoint.saturated:
            self.pool.on_slot()

    # === heard from the socket and the codec ===

    def on_open(self) -> None:
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
        self.drain("goaway")

    def on_protocol_error(self, error: RemoteProtocolError) -> None:
        log.warning("%s: %s broke HTTP/2: %s; closing the connection", self.pool.name, self.peer, error)
        self.reason = f"protocol error: {error}"

    def on_closed(self, reason: str) -> None:
        for timeout in (self.age, self.idle):
            self.engine.cancel_alarm(timeout)
            timeout.retire()
        detail = self.reason if self.closing and self.reason else reason
        self.pool.on_lost(self, detail)
        for attempt in list(self.attempts):
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
        if self.attempts or due_at > self.engine.now:
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
        if not self.attempts:
            self.finish()

    def finish(self) -> None:
        """Nothing runs on it any more: say goodbye and close."""
        if self.transport is not None:
            self.close()
            self.touch()

    def __repr__(self) -> str:
        state = "draining" if self.draining else "ready" if self.ready else "connecting"
        return f"<UpstreamConnection {self.endpoint.address} {state} attempts={len(self.attempts)}>"
