"""One direction of one RPC: DATA and trailers in from one connection, out to the other, credit back.

The rule of back-pressure (H2-44): the sender's stream is credited only for octets that the other hop's codec
took, so what is held here is bounded by the sender's stream window. Without a target (no connection yet, or
between two attempts) everything is held. Trailers leave after the last octet.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from sidecar.http2.errors import HeaderListTooLarge
from sidecar.http2.interface import HeaderBlock, Stream
from sidecar.proxy import failure
from sidecar.proxy.replay import CRUMB

if TYPE_CHECKING:
    from sidecar.proxy.connection import Connection
    from sidecar.proxy.exchange import Exchange
    from sidecar.proxy.replay import Replay


class Relay:
    """From `source` to `target`. It is `finished` once END_STREAM was given to the target's codec."""

    __slots__ = (
        "credited",
        "ended",
        "engine",
        "exchange",
        "finished",
        "held",
        "offset",
        "pending",
        "received",
        "replay",
        "sent",
        "source",
        "source_stream",
        "target",
        "target_stream",
        "trailers",
    )

    def __init__(self, exchange: Exchange, replay: Replay | None) -> None:
        self.begin(exchange, replay)

    def begin(self, exchange: Exchange, replay: Replay | None) -> None:
        """Everything at its start: see `Exchange.begin`."""
        self.exchange: Exchange | None = exchange  # until `discard`
        self.engine = exchange.engine
        self.replay = replay
        self.source: Connection | None = None
        self.source_stream: Stream | None = None
        self.target: Connection | None = None
        self.target_stream: Stream | None = None
        self.pending: deque[bytes] | None = None  # received and not taken by the target
        self.offset: int = 0  # into pending[0]
        self.held: int = 0  # octets in `pending`, as counted in the engine's budget
        self.received: int = 0  # octets from the source
        self.sent: int = 0  # octets given to the present target
        self.credited: int = 0  # octets given back to the source
        self.ended: bool = False  # the source has ended
        self.finished: bool = False
        self.trailers: HeaderBlock | None = None

    # === from the source ===

    def receive(self, data: bytes, end_stream: bool) -> None:
        """A DATA frame's payload."""
        if end_stream:
            self.ended = True
        self.received += len(data)
        if self.replay is not None:
            self.replay.keep(data)
        target = self.target
        taken = 0
        if target is not None and self.pending is None and self.target_stream is not None:
            taken = target.codec.send_data(self.target_stream, data, end_stream)
            target.touch()
            self._credit(taken)
            if taken == len(data):
                self.finished = end_stream
                return
        if self.exchange is None:
            self._credit(len(data))  # discarded: nobody wants it
        else:
            self._hold(data, taken)

    def receive_part(self, whole: bytes, offset: int, size: int, end_stream: bool) -> bool:
        """Payload in place: taken if all of it can leave from there, with nothing before it."""
        target, stream, replay = self.target, self.target_stream, self.replay
        if target is None or stream is None or self.pending is not None:
            return False
        if not target.codec.send_part(stream, whole, offset, size, end_stream):
            return False
        target.touch()
        self.received += size
        self.ended = self.finished = end_stream
        if replay is not None and replay.wants_more():
            replay.keep(whole[offset : offset + size])
        self._credit(size)
        return True

    def finish(self, trailers: HeaderBlock | None) -> None:
        """The source ended without DATA: with trailers, or plainly."""
        self.ended = True
        self.trailers = trailers
        if self.pending is None:
            self._end()

    # === to the target ===

    def attach(self, target: Connection, stream: Stream) -> None:
        """Send to `stream` from now on, first what is held."""
        self.target = target
        self.target_stream = stream
        self.pump()

    def rewind(self) -> None:
        """Hold everything from the first octet on, for another attempt.

        Not when the attempt starts: until then more may come and overflow the replay, which would drop the beginning.
        """
        assert self.replay is not None and self.replay.live
        self.finished = False
        self.sent = 0
        self._clear_pending()
        for chunk in self.replay.chunks:
            self._hold(chunk, 0)

    def detach(self) -> None:
        """The target is gone. What arrives is held until `attach`, or dropped by `discard`."""
        if self.target is not None:
            self.target.unblock(self)
        self.target = None
        self.target_stream = None

    def pump(self) -> None:
        """Send as much as the target takes."""
        while self.send_chunk():
            pass
        if self.pending is None and self.ended and not self.finished:
            self._end()

    def send_chunk(self) -> bool:
        """Send one held chunk, as far as it fits. Whether any of it did."""
        target, stream, pending = self.target, self.target_stream, self.pending
        if target is None or stream is None or pending is None:
            return False
        data = pending[0]
        left = len(data) - self.offset
        last = self.ended and self.trailers is None and len(pending) == 1
        taken = target.codec.send_data(stream, data, last, self.offset)
        target.touch()
        self.offset += taken
        self._unhold(taken)
        self._credit(taken)
        if taken < left:
            target.block(self)
            return taken > 0
        pending.popleft()
        self.offset = 0
        if not pending:
            self.pending = None
            target.unblock(self)
            self.finished = last
            if self.ended and not last:
                self._end()
            exchange = self.exchange  # held while it runs: its end lets go of us, and we of it
            if self.finished and exchange is not None:
                exchange.on_relay_finished(self)
        return True

    def drop_held(self) -> None:
        """Nobody wants what is held: drop it, and give its credit back."""
        if self.target is not None:
            self.target.unblock(self)
        self._clear_pending()
        self.sent = self.received
        self._credit(0)

    def discard(self) -> None:
        """The RPC is over. It lets go of the exchange: they hold each other, and nothing else would part them."""
        self.drop_held()
        self.target = None
        self.target_stream = None
        self.exchange = None
        if self.replay is not None:
            self.replay.drop()

    # === inside ===

    def _end(self) -> None:
        target, stream = self.target, self.target_stream
        if target is None or stream is None or self.finished:
            return
        self.finished = True
        target.touch()
        if self.trailers is None:
            target.codec.send_data(stream, b"", True)
            return
        try:
            target.codec.send_trailers(stream, self.trailers)
        except HeaderListTooLarge as error:
            exchange = self.exchange  # held while it runs, as above
            assert exchange is not None
            failure.refuse_trailers(exchange, self, str(error))

    def _hold(self, data: bytes, taken: int) -> None:
        pending = self.pending
        if pending is None:
            self.pending = deque((data,))
            self.offset = taken
        else:
            newest = len(pending) - 1  # no index from the end: what is compiled knows none
            if len(pending[newest]) + len(data) <= CRUMB:
                pending[newest] = pending[newest] + data
            else:
                pending.append(data)
        size = len(data) - taken
        self.held += size
        self.engine.hold(size)
        if self.target is not None:
            self.target.block(self)

    def _unhold(self, size: int) -> None:
        self.held -= size
        self.engine.release(size)

    def _clear_pending(self) -> None:
        if self.pending is not None:
            self._unhold(self.held)
            self.pending = None
            self.offset = 0

    def _credit(self, taken: int) -> None:
        """Octets that went to the present target are credited once, however often they are replayed (RT-05)."""
        self.sent += taken
        owed = self.sent - self.credited
        if owed > 0 and self.source is not None and self.source_stream is not None:
            self.credited = self.sent
            codec = self.source.codec
            codec.acknowledge_received_data(self.source_stream, owed)
            if codec.has_data_to_send():  # rarely: credit is gathered up to half a window
                self.source.touch()
