"""What both halves of the reference codec share: its streams, its windows, its queues, and how a stream ends.

Nothing here takes a frame apart or is called from outside; `reference_receiving` and `reference` do that.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from hyperframe.frame import WindowUpdateFrame

from sidecar.http2 import constants as c
from sidecar.http2.credit import ReceiveCredit
from sidecar.http2.h2_engine import H2Engine
from sidecar.http2.interface import Codec, CodecSettings, Sink, Stream, StreamSink
from sidecar.http2.limits import FloodGuard

# Streams whose end is remembered, to tell a frame that crossed our RST_STREAM from a frame that is wrong (H2-13).
CLOSED_STREAMS_REMEMBERED: Final = 1024  # rust h2 50, python h2 65536


class ReferenceStream(Stream):
    """A stream with what the codec must know of it between frames."""

    __slots__ = (
        "credit",
        "cut_short",
        "head_only",
        "informational",
        "octets_left",
        "received_head",
        "sent_head",
        "unacknowledged",
    )

    def __init__(self, stream_id: int, sink: StreamSink, credit: ReceiveCredit) -> None:
        super().__init__(stream_id, sink)
        self.credit = credit
        self.unacknowledged = 0  # delivered to the sink, not given back yet
        self.received_head = False  # a request head, or a final response head
        self.sent_head = False  # the same, the other way
        self.informational = 0  # 1xx heads received
        self.octets_left: int | None = None  # of content-length
        self.head_only = False  # our request was HEAD
        self.cut_short = False  # the last send_data took less than it was given


class ReferenceState(Codec):
    """What the receiving half and the commands share: streams, windows, queues, and how a stream ends."""

    __slots__ = (
        "_closed",
        "_connection_credit",
        "_cut_short",
        "_dead",
        "_engine",
        "_goaway_received",
        "_goaway_sent",
        "_guard",
        "_held",
        "_highest_received_id",
        "_highest_served_id",
        "_hold",
        "_out",
        "_pings",
        "_settings_acknowledged",
        "_settings_received",
        "_streams",
        "_urgent",
    )

    def __init__(self, role: int, settings: CodecSettings, sink: Sink) -> None:
        super().__init__(role, settings, sink)
        self._engine = H2Engine(role, settings)
        self._guard = FloodGuard(settings)
        self._connection_credit = ReceiveCredit(max(settings.connection_window, c.DEFAULT_WINDOW))
        self._hold = False
        self._held = 0  # delivered while held, not credited to the connection yet
        self._streams: dict[int, ReferenceStream] = {}  # open or half-closed
        self._closed: OrderedDict[int, bool] = OrderedDict()  # id -> whether the peer knows that it is closed
        self._highest_received_id = 0  # of the peer's streams, ignored ones included
        self._highest_served_id = 0
        self._settings_received = False
        self._settings_acknowledged = False
        self._goaway_sent = c.LARGEST_STREAM_ID
        self._goaway_received: int | None = None
        self._pings: list[bytes] = []
        self._urgent = bytearray()  # leaves first: the preface, PING ACKs, WINDOW_UPDATEs (H2-50)
        self._out = bytearray()
        self._cut_short = False
        self._dead = False

    # -- ends -------------------------------------------------------------------------------------------

    def _abandon(self, stream: ReferenceStream, peer_knows: bool) -> None:
        """Both halves end at once. `peer_knows`: whatever it still sends on the stream is wrong, not late."""
        self._forget(stream, peer_knows)
        stream.local_closed = stream.remote_closed = True

    def _close_local(self, stream: ReferenceStream) -> None:
        stream.local_closed = True
        if stream.remote_closed:
            self._forget(stream, peer_knows=True)

    def _close_remote(self, stream: ReferenceStream) -> None:
        stream.remote_closed = True
        if stream.local_closed:
            self._forget(stream, peer_knows=True)

    def _forget(self, stream: ReferenceStream, peer_knows: bool) -> None:
        del self._streams[stream.id]
        self._remember_closed(stream.id, peer_knows)

    def _remember_closed(self, stream_id: int, peer_knows: bool) -> None:
        self._closed[stream_id] = peer_knows
        if len(self._closed) > CLOSED_STREAMS_REMEMBERED:
            self._closed.popitem(last=False)

    # -- answers ----------------------------------------------------------------------------------------

    def _credit_connection(self, size: int) -> None:
        increment = self._connection_credit.give_back(size)
        if increment and not self._dead:
            self._urgent += WindowUpdateFrame(0, window_increment=increment).serialize()

    def _credit_stream(self, stream: ReferenceStream, size: int) -> None:
        increment = stream.credit.give_back(size)
        if increment and not self._dead:
            self._urgent += WindowUpdateFrame(stream.id, window_increment=increment).serialize()

    def _new_stream(self, stream_id: int, sink: StreamSink) -> ReferenceStream:
        window = self.settings.stream_window
        if not self._settings_acknowledged:
            window = max(window, c.DEFAULT_WINDOW)  # what the peer may assume before it knows (H2-03)
        return ReferenceStream(stream_id, sink, ReceiveCredit(self.settings.stream_window, window))
