"""The receiving half of the reference codec.

One method per frame type. Each counts, judges, changes state, queues what must be answered, and calls a sink last.
What ends one stream goes through `_stream_error`; what ends the connection is raised. The commands are in `reference`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from hyperframe.frame import Frame, PingFrame, RstStreamFrame, SettingsFrame

from sidecar.http2 import constants as c
from sidecar.http2.errors import RemoteProtocolError
from sidecar.http2.field_compression import DecodedBlock, FieldDecoder
from sidecar.http2.field_validation import (
    Fields,
    content_length,
    is_informational,
    malformed_request,
    malformed_response,
    malformed_trailers,
    status_of,
)
from sidecar.http2.frame_reader import FrameReader, ReceivedFrame, without_padding
from sidecar.http2.interface import CodecSettings, HeaderBlock, Sink, StreamSink
from sidecar.http2.reference_state import ReferenceState, ReferenceStream

_PRIORITY_LENGTH: Final = 5
_PING_LENGTH: Final = 8
_GOAWAY_LENGTH: Final = 8  # at least
_NO_PAYLOAD_STATUSES: Final = (204, 304)  # content-length says nothing about DATA here (H2-35)
_UNHEARD: Final = StreamSink()


class PendingBlock(NamedTuple):
    """A field block that CONTINUATION frames may still add to."""

    stream_id: int
    end_stream: bool
    depends_on_itself: bool
    fragments: list[bytes]


class ReceivingHalf(ReferenceState):
    """Takes frames one by one."""

    __slots__ = ("_block", "_decoder", "_reader")

    def __init__(self, role: int, settings: CodecSettings, sink: Sink) -> None:
        super().__init__(role, settings, sink)
        self._reader = FrameReader(role, settings.max_frame_size)
        self._decoder = FieldDecoder(settings.max_header_fields, settings.max_header_list_size)
        self._block: PendingBlock | None = None

    # -- frames -----------------------------------------------------------------------------------------

    def _receive_frame(self, frame: ReceivedFrame) -> None:
        if self._block is not None and (frame.type != c.CONTINUATION or frame.stream_id != self._block.stream_id):
            raise RemoteProtocolError("a field block is interrupted by another frame")
        if not self._settings_received and (frame.type != c.SETTINGS or frame.has(c.FLAG_ACK)):
            raise RemoteProtocolError("the first frame is not SETTINGS")
        receive = _BY_TYPE.get(frame.type)
        if receive is not None:
            receive(self, frame)

    def _receive_data(self, frame: ReceivedFrame) -> None:
        data = without_padding(frame)
        self._require_not_idle(frame)
        end_stream = frame.has(c.FLAG_END_STREAM)
        self._guard.data_received(empty=not data and not end_stream)
        size = len(frame.payload)
        if not self._connection_credit.charge(size):
            raise RemoteProtocolError("DATA beyond the connection window", c.FLOW_CONTROL_ERROR)
        stream = self._streams.get(frame.stream_id)
        error_code = self._wrong_data(frame.stream_id, stream, size, len(data), end_stream)
        if stream is None or error_code is not None:
            self._credit_connection(size)
            if stream is not None and error_code is not None:
                self._stream_error(stream, error_code)
            return
        self._engine.data_received(stream.id, end_stream)
        stream.unacknowledged += len(data)
        self._held += len(data) if self._hold else 0
        self._credit_connection(size - len(data) if self._hold else size)
        if end_stream:
            self._close_remote(stream)
        else:
            self._credit_stream(stream, size - len(data))
        if data or end_stream:
            stream.sink.on_data(data, end_stream)

    def _wrong_data(
        self, stream_id: int, stream: ReferenceStream | None, size: int, length: int, end_stream: bool
    ) -> int | None:
        """The stream error that a DATA frame is, if it is one; the connection's is raised."""
        if stream is None:
            self._require_not_known_closed(stream_id)
            return None
        if stream.remote_closed:
            return c.STREAM_CLOSED
        if not stream.credit.charge(size):
            return c.FLOW_CONTROL_ERROR
        if not stream.received_head:
            return c.PROTOCOL_ERROR
        if stream.octets_left is not None:
            stream.octets_left -= length
            if stream.octets_left < 0 or (end_stream and stream.octets_left > 0):
                return c.PROTOCOL_ERROR
        return None

    def _receive_headers(self, frame: ReceivedFrame) -> None:
        fragment = without_padding(frame)
        depends_on_itself = False
        if frame.has(c.FLAG_PRIORITY):
            if len(fragment) < _PRIORITY_LENGTH:
                short = c.PROTOCOL_ERROR if frame.has(c.FLAG_PADDED) else c.FRAME_SIZE_ERROR
                raise RemoteProtocolError("HEADERS too short for its priority", short)
            depends_on_itself = _dependency(fragment) == frame.stream_id
            fragment = fragment[_PRIORITY_LENGTH:]
        if frame.stream_id % 2 == 0:
            raise RemoteProtocolError("HEADERS on a stream that the client cannot open")
        self._block = PendingBlock(frame.stream_id, frame.has(c.FLAG_END_STREAM), depends_on_itself, [fragment])
        self._block_grew(frame)

    def _receive_continuation(self, frame: ReceivedFrame) -> None:
        if self._block is None:
            raise RemoteProtocolError("CONTINUATION without an open field block")
        self._block.fragments.append(frame.payload)
        self._block_grew(frame)

    def _block_grew(self, frame: ReceivedFrame) -> None:
        block = self._block
        assert block is not None
        self._guard.block_grew(len(block.fragments), sum(map(len, block.fragments)))
        if frame.has(c.FLAG_END_HEADERS):
            self._block = None
            self._receive_block(block, self._decoder.decode(b"".join(block.fragments)))

    def _receive_priority(self, frame: ReceivedFrame) -> None:
        """Parsed for its length, otherwise without effect (H2-28). A wrong length is answered on a closed stream, too:
        its sender cannot count frames, and an answer is all that it may learn that from.
        """
        self._guard.priority_received()
        if frame.stream_id == 0:
            raise RemoteProtocolError("PRIORITY on stream 0")
        if len(frame.payload) != _PRIORITY_LENGTH:
            error_code = c.FRAME_SIZE_ERROR
        elif _dependency(frame.payload) == frame.stream_id:
            error_code = c.PROTOCOL_ERROR
        else:
            return
        if self._is_idle(frame.stream_id):
            raise RemoteProtocolError("a wrong PRIORITY on an idle stream", error_code)
        stream = self._streams.get(frame.stream_id)
        if stream is not None:
            self._stream_error(stream, error_code)
        elif error_code == c.FRAME_SIZE_ERROR:
            self._reply(self._out, RstStreamFrame(frame.stream_id, error_code))

    def _receive_rst_stream(self, frame: ReceivedFrame) -> None:
        _require_length(frame, 4)
        self._require_not_idle(frame)
        stream = self._streams.get(frame.stream_id)
        if stream is None:
            return
        if self.role == c.SERVER and not stream.sent_head:
            self._guard.reset_caused()
        self._engine.reset_received(stream.id)
        self._abandon(stream, peer_knows=True)
        stream.sink.on_reset(_known(int.from_bytes(frame.payload)), True)

    def _receive_settings(self, frame: ReceivedFrame) -> None:
        if frame.stream_id != 0:
            raise RemoteProtocolError("SETTINGS on a stream")
        if frame.has(c.FLAG_ACK):
            _require_length(frame, 0)
            self._receive_settings_ack()
            return
        if len(frame.payload) % 6:
            raise RemoteProtocolError("SETTINGS is not a multiple of 6 octets", c.FRAME_SIZE_ERROR)
        self._guard.settings_received(len(frame.payload) // 6)
        self._settings_received = True
        before = self._engine.initial_window
        for identifier, value in struct.iter_unpack(">HL", frame.payload):
            self._engine.setting_received(identifier, value)
        acknowledgement = SettingsFrame(0)
        acknowledgement.flags.add("ACK")
        self._reply(self._out, acknowledgement)
        self.sink.on_settings()
        if self._engine.initial_window > before:
            self._maybe_say_window_opened()

    def _receive_settings_ack(self) -> None:
        """Only now a window below the default one binds the peer (H2-03)."""
        if self._settings_acknowledged:
            return
        self._settings_acknowledged = True
        assumed_more = max(0, c.DEFAULT_WINDOW - self.settings.stream_window)
        for stream in self._streams.values():
            stream.credit.shrink(assumed_more)

    def _receive_push_promise(self, frame: ReceivedFrame) -> None:
        """A client cannot push, and a server was told not to before it could (H2-07)."""
        raise RemoteProtocolError("PUSH_PROMISE where push is not allowed")

    def _receive_ping(self, frame: ReceivedFrame) -> None:
        _require_length(frame, _PING_LENGTH)
        if frame.stream_id != 0:
            raise RemoteProtocolError("PING on a stream")
        if not frame.has(c.FLAG_ACK):
            answer = PingFrame(0, frame.payload)
            answer.flags.add("ACK")
            self._reply(self._urgent, answer)
        elif frame.payload in self._pings:
            self._pings.remove(frame.payload)
            self.sink.on_ping_ack(frame.payload)

    def _receive_goaway(self, frame: ReceivedFrame) -> None:
        if frame.stream_id != 0:
            raise RemoteProtocolError("GOAWAY on a stream")
        if len(frame.payload) < _GOAWAY_LENGTH:
            raise RemoteProtocolError("GOAWAY is too short", c.FRAME_SIZE_ERROR)
        last_stream_id, error_code = struct.unpack_from(">LL", frame.payload)
        last_stream_id &= c.LARGEST_STREAM_ID
        if self.role == c.CLIENT:
            self._require_legal_goaway(last_stream_id)
        self._goaway_received = last_stream_id
        unprocessed = [s for s in self._streams.values() if self.role == c.CLIENT and s.id > last_stream_id]
        for stream in unprocessed:
            self._engine.reset_received(stream.id)
            self._abandon(stream, peer_knows=False)
        for stream in unprocessed:
            stream.sink.on_reset(c.REFUSED_STREAM, True)
        self.sink.on_goaway(last_stream_id, _known(error_code), frame.payload[_GOAWAY_LENGTH:])

    def _require_legal_goaway(self, last_stream_id: int) -> None:
        if last_stream_id and last_stream_id % 2 == 0:
            raise RemoteProtocolError("GOAWAY names a stream that we cannot have opened")
        if self._goaway_received is not None and last_stream_id > self._goaway_received:
            raise RemoteProtocolError("a second GOAWAY raises the last stream id")

    def _receive_window_update(self, frame: ReceivedFrame) -> None:
        _require_length(frame, 4)
        if frame.stream_id != 0:
            self._require_not_idle(frame)
        self._guard.window_update_received()
        increment = int.from_bytes(frame.payload) & c.LARGEST_WINDOW
        stream = self._streams.get(frame.stream_id)
        if frame.stream_id == 0:
            if increment == 0:
                raise RemoteProtocolError("WINDOW_UPDATE by 0 on the connection")
            self._engine.window_received(0, increment)
            self._maybe_say_window_opened()
        elif stream is None:
            return
        elif increment == 0:
            self._stream_error(stream, c.PROTOCOL_ERROR)
        elif not self._engine.window_received(stream.id, increment):
            self._stream_error(stream, c.FLOW_CONTROL_ERROR)
        elif stream.cut_short and not stream.local_closed and self._engine.send_window(stream.id) > 0:
            stream.cut_short = False
            stream.sink.on_window()

    def _maybe_say_window_opened(self) -> None:
        if self._cut_short and self._engine.connection_window > 0:
            self._cut_short = False
            self.sink.on_window()

    # -- field blocks -----------------------------------------------------------------------------------

    def _receive_block(self, pending: PendingBlock, decoded: DecodedBlock) -> None:
        """A complete block. It was decoded whatever becomes of it (H2-21)."""
        stream = self._streams.get(pending.stream_id)
        if stream is None:
            if self.role == c.SERVER and pending.stream_id > self._highest_received_id:
                self._receive_request(pending, decoded)
            else:
                self._receive_block_on_no_stream(pending.stream_id)
            return
        error_code = self._wrong_block(stream, pending, decoded)
        if error_code is not None:
            self._stream_error(stream, error_code)
        elif stream.received_head:
            self._engine.headers_received(stream.id, None, True)
            self._close_remote(stream)
            stream.sink.on_trailers(decoded.block)
        else:
            self._receive_response(stream, decoded.block, pending.end_stream)

    def _wrong_block(self, stream: ReferenceStream, pending: PendingBlock, decoded: DecodedBlock) -> int | None:
        """The stream error that trailers or a response head are, if they are one."""
        if stream.remote_closed:
            return c.STREAM_CLOSED
        if decoded.oversized:
            return c.ENHANCE_YOUR_CALM
        if pending.depends_on_itself:
            return c.PROTOCOL_ERROR
        fields = decoded.block.fields
        if stream.received_head:
            wrong = not pending.end_stream or malformed_trailers(fields) is not None or bool(stream.octets_left)
        else:
            wrong = malformed_response(fields) is not None or self._wrong_response(stream, fields, pending.end_stream)
        return c.PROTOCOL_ERROR if wrong else None

    def _wrong_response(self, stream: ReferenceStream, fields: Fields, end_stream: bool) -> bool:
        """What depends on the request, and on what came before (H2-35, H2-37)."""
        if is_informational(fields):
            stream.informational += 1
            return end_stream or stream.informational > self.settings.max_informational
        if not stream.head_only and status_of(fields) not in _NO_PAYLOAD_STATUSES:
            stream.octets_left = content_length(fields)
        return end_stream and bool(stream.octets_left)

    def _receive_response(self, stream: ReferenceStream, block: HeaderBlock, end_stream: bool) -> None:
        self._engine.headers_received(stream.id, block.get(b":status"), end_stream)
        if is_informational(block.fields):
            stream.sink.on_informational(block)
            return
        stream.received_head = True
        if end_stream:
            self._close_remote(stream)
        stream.sink.on_headers(block, end_stream)

    def _receive_request(self, pending: PendingBlock, decoded: DecodedBlock) -> None:
        self._highest_received_id = pending.stream_id
        if pending.stream_id > self._goaway_sent:
            return
        self._highest_served_id = pending.stream_id
        error_code = self._refusal(pending, decoded)
        if error_code is not None:
            self._remember_closed(pending.stream_id, peer_knows=False)
            if error_code != c.REFUSED_STREAM or self._settings_acknowledged:
                self._guard.reset_caused()
            self._reply(self._out, RstStreamFrame(pending.stream_id, error_code))
            return
        stream = self._new_stream(pending.stream_id, _UNHEARD)
        stream.received_head = True
        stream.octets_left = content_length(decoded.block.fields)
        self._engine.headers_received(stream.id, None, pending.end_stream)
        self._streams[stream.id] = stream
        self._guard.stream_opened()
        stream.remote_closed = pending.end_stream
        self.sink.on_request(stream, decoded.block, pending.end_stream)

    def _refusal(self, pending: PendingBlock, decoded: DecodedBlock) -> int | None:
        """Why a new stream is reset before anyone hears of it."""
        if not self._guard.may_open_in_this_read() or len(self._streams) >= self.settings.max_concurrent_streams:
            return c.REFUSED_STREAM
        if decoded.oversized:
            return c.ENHANCE_YOUR_CALM
        fields = decoded.block.fields
        if pending.depends_on_itself or malformed_request(fields) is not None:
            return c.PROTOCOL_ERROR
        if pending.end_stream and content_length(fields):
            return c.PROTOCOL_ERROR
        return None

    def _receive_block_on_no_stream(self, stream_id: int) -> None:
        """Trailers or a response head for a stream that is gone or never was (H2-12, H2-13)."""
        if self._is_idle(stream_id):
            raise RemoteProtocolError("a response on a stream that was never opened")
        self._require_not_known_closed(stream_id)
        ignored = stream_id > self._goaway_sent
        if self.role == c.SERVER and not ignored and stream_id not in self._closed:
            raise RemoteProtocolError("a stream id is used again or out of order")

    # -- errors and answers -----------------------------------------------------------------------------

    def _is_idle(self, stream_id: int) -> bool:
        if self.role == c.CLIENT:
            return stream_id % 2 == 0 or stream_id >= self._engine.next_stream_id
        return stream_id % 2 == 0 or stream_id > self._highest_received_id

    def _require_not_idle(self, frame: ReceivedFrame) -> None:
        if self._is_idle(frame.stream_id):  # stream 0 is even, too
            raise RemoteProtocolError(f"a frame of type {frame.type} on stream 0 or an idle stream")

    def _require_not_known_closed(self, stream_id: int) -> None:
        if self._closed.get(stream_id):
            raise RemoteProtocolError("a frame on a stream that the peer closed", c.STREAM_CLOSED)

    def _stream_error(self, stream: ReferenceStream, error_code: int) -> None:
        """The peer's fault ends one stream: counted, answered once, told last (SE-12)."""
        self._guard.reset_caused()
        self._guard.reply_queued()
        self._out += self._engine.reset_stream(stream.id, error_code)
        self._forget(stream, peer_knows=False)
        stream.local_closed = stream.remote_closed = True
        stream.sink.on_reset(error_code, False)

    def _reply(self, queue: bytearray, frame: Frame) -> None:
        self._guard.reply_queued()
        queue += frame.serialize()


# Frame type -> method. A type that is absent is unknown and ignored (H2-11).
_BY_TYPE: Final[dict[int, Callable[[ReceivingHalf, ReceivedFrame], None]]] = {
    c.DATA: ReceivingHalf._receive_data,
    c.HEADERS: ReceivingHalf._receive_headers,
    c.PRIORITY: ReceivingHalf._receive_priority,
    c.RST_STREAM: ReceivingHalf._receive_rst_stream,
    c.SETTINGS: ReceivingHalf._receive_settings,
    c.PUSH_PROMISE: ReceivingHalf._receive_push_promise,
    c.PING: ReceivingHalf._receive_ping,
    c.GOAWAY: ReceivingHalf._receive_goaway,
    c.WINDOW_UPDATE: ReceivingHalf._receive_window_update,
    c.CONTINUATION: ReceivingHalf._receive_continuation,
}


def _require_length(frame: ReceivedFrame, length: int) -> None:
    if len(frame.payload) != length:
        raise RemoteProtocolError(f"a frame of type {frame.type} with a wrong length", c.FRAME_SIZE_ERROR)


def _dependency(priority: bytes) -> int:
    return int.from_bytes(priority[:4]) & c.LARGEST_STREAM_ID


def _known(error_code: int) -> int:
    return error_code if error_code in c.ERROR_NAMES else c.INTERNAL_ERROR
