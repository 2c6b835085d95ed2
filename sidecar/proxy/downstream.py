"""A connection from the app: it opens exchanges. It also meets whoever dials the port by mistake.

Its end in order is the two-step GOAWAY (H2-83): announce, wait for a round trip, name the last id, let the
exchanges finish, close. `_TABLE` holds the steps.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, cast

from sidecar.http2.constants import LARGEST_STREAM_ID, NO_ERROR, PREFACE, SERVER, error_name
from sidecar.http2.errors import RemoteProtocolError
from sidecar.http2.interface import HeaderBlock, Stream
from sidecar.proxy.connection import Connection
from sidecar.proxy.exchange import Exchange
from sidecar.proxy.upstream import Timeout
from sidecar.telemetry.metrics import bump

if TYPE_CHECKING:
    from sidecar.proxy.listener import Listener

log = logging.getLogger("sidecar.proxy")

OPEN: Final = "open"
ANNOUNCED: Final = "announced"  # GOAWAY(2^31-1) and a PING are out
LAST: Final = "last"  # the real GOAWAY is out: what is open finishes, nothing new
_TABLE: Final = {(OPEN, "drain"): ANNOUNCED, (ANNOUNCED, "acknowledged"): LAST, (ANNOUNCED, "late"): LAST}

DRAIN_PING: Final = b"draining"
DRAIN_PING_TIMEOUT: Final = 5.0  # Envoy's drain_timeout 5 s
HTTP1_METHODS: Final = (b"GET ", b"POST", b"HEAD", b"PUT ", b"DELE", b"OPTI", b"PATC", b"TRAC", b"CONN")


class DownstreamConnection(Connection):
    """One connection of the app to one listener."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener.engine, SERVER)
        self.listener = listener
        self.dispatch = listener.dispatch
        self.state = OPEN
        self.idle_since: float = 0.0
        self.ends_idle = False  # it ends, or begins to, as soon as no RPC is left
        self._greeting = b""  # octets of a preface that has not come whole
        self._greeted = False
        self._timeout = Timeout(self._on_timeout)

    # === the preface ===

    def on_open(self) -> None:
        self.listener.on_open(self)
        self.ends_idle = self.listener.one_shot
        self.engine.set_alarm(self._timeout, self.engine.now + self.engine.http2.preface_timeout)

    def feed(self, data: bytes) -> None:
        """Octets for the codec; before the preface, look whether this is HTTP/2 at all.

        Our SETTINGS wait for it too, so that whoever speaks HTTP/1 gets an answer that it can read.
        """
        if not self._greeted:
            data = self._greeting + data
            expected = PREFACE[: len(data)]
            if data[: len(expected)] != expected and not may_become_http1(data):
                self._turn_away(data)
                return
            if len(data) < len(PREFACE):
                self._greeting = bytes(bytearray(data))  # a copy: what a read was given is to be filled again
                return
            self._greeted = True
            self._greeting = b""
            self.greet()
            self.idle_since = self.engine.now
            self._rearm()
        Connection.feed(self, data)

    def _turn_away(self, data: bytes) -> None:
        """Not HTTP/2. HTTP/1 gets one plain sentence (H2-01); anything else only the end of the connection."""
        name = self.dispatch.name
        if data[:4] in HTTP1_METHODS:
            sentence = (
                f"This port carries gRPC to {name!r} over HTTP/2 with prior knowledge; HTTP/1 is not served here.\n"
            )
            body = sentence.encode()
            answer = (
                b"HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-type: text/plain; charset=utf-8\r\n"
                b"content-length: %d\r\nconnection: close\r\n\r\n%s" % (len(body), body)
            )
            bump(self.listener.metrics.refused, "http1")
        else:
            answer = b""
            bump(self.listener.metrics.refused, "not_http2")
        log.warning("%s: %s sent %r, which is not HTTP/2; closing the connection", name, self.peer, data[:16])
        self.closing = True
        if self.transport is not None:
            self.transport.write(answer)
            self.close_transport(self.transport)

    # === heard from the codec ===

    def on_request(self, stream: Stream, block: HeaderBlock, end_stream: bool) -> None:
        exchange = Exchange.__new__(Exchange)
        exchange.begin(self, stream, block)
        stream.sink = exchange
        self.mount(exchange)
        try:
            exchange.start(end_stream)
        except Exception as error:
            exchange.crash(error)

    def on_ping_ack(self, payload: bytes) -> None:
        if payload == DRAIN_PING and self.state == ANNOUNCED:
            self._say_last("acknowledged")

    def on_protocol_error(self, error: RemoteProtocolError) -> None:
        bump(self.listener.metrics.protocol_errors, error_name(error.error_code))
        log.warning("%s: %s broke HTTP/2: %s; closing the connection", self.dispatch.name, self.peer, error)

    def on_closed(self, reason: str) -> None:
        self.engine.cancel_alarm(self._timeout)
        self._timeout.retire()
        self.listener.on_closed(self)
        for exchange in self.exchanges:
            exchange.abandon(f"the app's connection is gone: {reason}")

    def remove(self, exchange: Exchange) -> None:
        """An exchange is over."""
        self.dismount(exchange)
        if not self.riders:
            self.idle_since = self.engine.now
            if self.ends_idle:
                self._end_idle()

    @property
    def exchanges(self) -> list[Exchange]:
        """That run on it, the oldest first."""
        return cast("list[Exchange]", self.list_riders())

    @property
    def unused(self) -> bool:
        """Whether it can be closed without anybody noticing."""
        return not self.riders and self.state == OPEN

    # === its end ===

    def drain(self) -> None:
        """Ask the app to open its next RPCs elsewhere, without cutting any."""
        if self.state != OPEN or self.closing:
            return
        if not self._greeted:
            self.shut("drained")
            return
        self.state = _TABLE[self.state, "drain"]
        self.codec.send_goaway(LARGEST_STREAM_ID, NO_ERROR, b"drain")
        self.codec.send_ping(DRAIN_PING)
        self.touch()
        self.engine.set_alarm(self._timeout, self.engine.now + DRAIN_PING_TIMEOUT)

    def _end_idle(self) -> None:
        if self.state == LAST:
            self.shut("drained")
        else:
            self.drain()

    def _say_last(self, event: str) -> None:
        """A round trip has passed: what the app sent before it knew has arrived."""
        self.state = _TABLE[self.state, event]
        self.ends_idle = True
        self.engine.cancel_alarm(self._timeout)
        self.codec.send_goaway(self.codec.highest_remote_stream_id, NO_ERROR, b"drain")
        self.touch()
        if not self.riders:
            self.shut("drained")

    def _on_timeout(self) -> None:
        """The preface, the round trip of the drain, or the next RPC has not come."""
        if not self._greeted:
            bump(self.listener.metrics.refused, "no_preface")
            self.abort()
        elif self.state == ANNOUNCED:
            self._say_last("late")
        elif self._idle_too_long():
            self.drain()
        else:
            self._rearm()

    def _idle_too_long(self) -> bool:
        timeout = self.engine.http2.idle_timeout
        return timeout > 0 and not self.riders and self.idle_since + timeout <= self.engine.now

    def _rearm(self) -> None:
        timeout = self.engine.http2.idle_timeout
        if timeout:
            since = self.engine.now if self.riders else self.idle_since
            self.engine.set_alarm(self._timeout, since + timeout)
        else:
            self.engine.cancel_alarm(self._timeout)

    def __repr__(self) -> str:
        return f"<DownstreamConnection {self.dispatch.name} {self.peer} {self.state} exchanges={self.riders}>"


def may_become_http1(data: bytes) -> bool:
    """Whether these first octets are too few to tell, but could be an HTTP/1 method."""
    return len(data) < len(HTTP1_METHODS[0]) and any(method.startswith(data) for method in HTTP1_METHODS)
