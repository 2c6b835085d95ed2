"""What both kinds of HTTP/2 connection share: a transport, a codec, one write per turn, and senders held back.

A subclass hears the codec's sink calls and knows what the connection is for. This file knows only bytes:
`data_received` feeds the codec, `flush` drains it. An exception in here costs this connection only.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from sidecar.http2.constants import INTERNAL_ERROR, NO_ERROR, error_name
from sidecar.http2.errors import RemoteProtocolError
from sidecar.http2.interface import Sink
from sidecar.proxy.outlet import Outlet, open_outlet
from sidecar.proxy.wheel import Alarm

if TYPE_CHECKING:
    from sidecar.proxy.engine import Engine
    from sidecar.proxy.own_rpc import OwnStream
    from sidecar.proxy.relay import Relay
    from sidecar.proxy.rider import Rider

log = logging.getLogger("sidecar.proxy")

DEAF = Sink()  # hears for a codec whose connection is gone
LINGER = 1.0  # seconds for the last octets to be taken by the peer; Envoy's delayed_close 1 s (H2-84)


class Linger(Alarm):
    """Cuts a closing connection whose peer does not read what is left for it."""

    __slots__ = ("connection",)

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection

    def ring(self, now: float) -> None:
        self.connection.abort()


class Connection(Sink):
    """One HTTP/2 connection over one transport. It ends with `connection_lost`, which is called exactly once."""

    def __init__(self, engine: Engine, role: int) -> None:
        self.engine = engine
        self.codec = engine.codec_class(role, engine.codec_settings, self)
        self.transport: asyncio.Transport | None = None
        self.dirty = False
        self.next_dirty: Connection | None = None  # the engine's chain of those that have output
        self.flushes: int = 0  # so far: tells an attempt whether anything of it has left
        self.paused = False  # the transport's buffer is above its high-water mark
        self.closing = False  # no more is read or queued; what is queued is written, then the transport closes
        self.blocked: dict[Relay | OwnStream, None] | None = (
            None  # who has DATA for this peer that did not fit, in turn
        )
        self.peer = ""
        self.riders: int = 0
        self._newest: Rider | None = None
        self._outlet: Outlet | None = None  # while there is a transport
        self._linger: Linger | None = None  # once it closes

    # === called by the event loop ===

    def connection_made(self, transport: asyncio.Transport) -> None:
        """The socket is connected."""
        self.engine.begin()
        self.transport = transport
        self._outlet = open_outlet(transport)
        self.peer = peer_name(transport)
        high = self.engine.output_limit
        transport.set_write_buffer_limits(high=high, low=high // 4)
        self.codec.limit_output(high)
        self.engine.add_connection(self)
        self.on_open()
        self.engine.settle()

    def data_received(self, data: bytes) -> None:
        """Octets from the peer."""
        engine = self.engine
        engine.begin()
        self.take(data)
        engine.settle_read()

    def take(self, data: bytes) -> None:
        """Octets from the peer, within a turn."""
        if not self.closing:
            self.feed(data)

    def feed(self, data: bytes) -> None:
        """Give octets to the codec, and see to it that what it answers is written."""
        try:
            self.codec.refill(self.engine.now)
            self.codec.receive_data(data)
        except RemoteProtocolError as error:
            self.on_protocol_error(error)
            self.shut(f"protocol error: {error}")
        except Exception:
            log.exception("%r: internal error; closing this connection", self)
            self.abort_codec(INTERNAL_ERROR)
            self.shut("internal error of the sidecar")
        if self.codec.has_data_to_send():
            self.touch()

    def eof_received(self) -> bool:
        """The peer is done; in HTTP/2 that is the end of the connection (H2-85)."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone: every stream on it gets its terminal action (H2-84). Only the first call counts."""
        if self.closing and self.transport is None:
            return
        self.engine.begin()
        self.closing = True
        self.transport = None
        self._outlet = None
        if self._linger is not None:
            self.engine.cancel_alarm(self._linger)
            self._linger = None
        self.engine.connections.discard(self)
        self.blocked = None
        self.on_closed(f"connection lost: {exc}" if exc else "connection closed by the peer")
        self.engine.settle()
        self.codec.sink = DEAF  # codec and connection would keep each other until the collector comes by

    def pause_writing(self) -> None:
        """The peer reads too slowly: take no more DATA for it (SE-07)."""
        self.paused = True
        self.codec.limit_output(0)

    def resume_writing(self) -> None:
        """It caught up."""
        self.engine.begin()
        self.paused = False
        self.codec.limit_output(self.engine.output_limit)
        self.serve_blocked()
        self.touch()
        self.engine.settle()

    # === what rides on it ===

    def mount(self, rider: Rider) -> None:
        """`rider` has a stream here. It must `dismount` once, and ride nowhere else until then."""
        newest = self._newest
        rider.older = newest
        rider.newer = None
        if newest is not None:
            newest.newer = rider
        self._newest = rider
        self.riders += 1

    def dismount(self, rider: Rider) -> None:
        """Its stream is over."""
        older, newer = rider.older, rider.newer
        if older is not None:
            older.newer = newer
        if newer is not None:
            newer.older = older
        else:
            self._newest = older
        rider.older = rider.newer = None  # whoever still holds it does not hold the others
        self.riders -= 1

    def list_riders(self) -> list[Rider]:
        """All that ride now, the oldest first."""
        found = []
        rider = self._newest
        while rider is not None:
            found.append(rider)
            rider = rider.older
        found.reverse()
        return found

    # === output ===

    def greet(self) -> None:
        """Say hello: SETTINGS, and the preface where we are the client."""
        self.codec.initiate_connection()
        self.touch()

    def touch(self) -> None:
        """There is, or may be, output: flush when the turn settles."""
        if not self.dirty:
            self.dirty = True
            self.engine.mark_dirty(self)

    def flush(self) -> None:
        """Write what the codec has queued, in one write; more only when the output limit had cut it short."""
        self.dirty = False
        self.flushes += 1
        if self._outlet is None:
            return
        try:
            self._write(self._outlet)
        except Exception:
            log.exception("%r: internal error; cutting this connection", self)
            self.abort()

    def _write(self, outlet: Outlet) -> None:
        if self._linger is not None:
            return  # FIN has been said
        limit = self.engine.output_limit
        while True:
            size = outlet.write_queued(self.codec)
            if size > 0:
                self.codec.limit_output(0 if self.paused else limit)
            if not self.blocked or self.paused or size < limit or not self.serve_blocked():
                break
        if self.closing and self.transport is not None:
            self.close_transport(self.transport)

    def close_transport(self, transport: asyncio.Transport) -> None:
        """Say FIN when everything is written; the peer's own FIN, or LINGER, then closes the socket.

        Closing a socket while octets of the peer are unread (or yet to come, such as credit for the last answers)
        sends a RST, and that destroys what the peer has not read yet (RFC 9112 section 9.6).
        """
        if self._linger is None and not transport.is_closing():
            if transport.can_write_eof():
                transport.write_eof()
            else:  # TLS has its own goodbye
                transport.close()
            self._linger = Linger(self)
            self.engine.set_alarm(self._linger, self.engine.now + LINGER)

    def block(self, relay: Relay | OwnStream) -> None:
        """`relay` has DATA that did not fit; it gets its turn when there is room."""
        if self.blocked is None:
            self.blocked = {}
        self.blocked[relay] = None

    def unblock(self, relay: Relay | OwnStream) -> None:
        """`relay` has none any more. It need not have had any."""
        if self.blocked is not None:
            self.blocked.pop(relay, None)
            if not self.blocked:
                self.blocked = None

    def serve_blocked(self) -> bool:
        """Let the blocked relays send one chunk each in turn, until none can. Whether anything was sent (H2-50)."""
        progress = False
        moved = True
        while moved and self.blocked and not self.closing:
            moved = False
            for relay in list(self.blocked):
                if self.blocked and relay in self.blocked and relay.send_chunk():
                    moved = progress = True
        return progress

    def on_window(self) -> None:
        """The peer's connection window, or every stream's, opened."""
        if self.blocked and self.serve_blocked():
            self.touch()

    # === the end ===

    def shut(self, reason: str) -> None:
        """Write what is queued, then close. Streams are told by `connection_lost`."""
        if not self.closing:
            self.closing = True
            self.touch()

    def abort_codec(self, error_code: int) -> None:
        """Queue a GOAWAY that names our fault, as far as the codec still can."""
        try:
            self.codec.send_goaway(self.codec.highest_remote_stream_id, error_code)
        except Exception:
            log.exception("%r: could not say %s", self, error_name(error_code))

    def close(self) -> None:
        """End an idle connection in order."""
        if not self.closing:
            self.abort_codec(NO_ERROR)
            self.shut("closed")

    def abort(self) -> None:
        """End it now; what is queued is dropped."""
        self.closing = True
        self._outlet = None
        if self.transport is not None:
            self.transport.abort()
            # uvloop says nothing more about a transport that it has closed by itself, as for a cancelled connect.
            self.engine.loop.call_soon(self._bury)

    def _bury(self) -> None:
        """Whatever the transport does, the connection has an end."""
        if self.transport is not None:
            self.connection_lost(None)

    # === for subclasses ===

    def on_open(self) -> None:
        """The transport is up. Called once."""
        raise NotImplementedError

    def on_closed(self, reason: str) -> None:
        """The transport is gone. Called once."""
        raise NotImplementedError

    def on_protocol_error(self, error: RemoteProtocolError) -> None:
        """The peer broke HTTP/2; the connection is being closed."""
        raise NotImplementedError


def peer_name(transport: asyncio.BaseTransport) -> str:
    """`host:port` of the other end, or the path of a Unix socket."""
    peer = transport.get_extra_info("peername")
    if isinstance(peer, tuple):
        host, port = peer[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return str(peer or "unix")
