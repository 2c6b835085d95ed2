"""The reference codec: correct before quick, readable, runs anywhere, and the oracle for the native one.

Frames are taken one by one: cut (`frame_reader`), counted (`limits`), decoded (`field_compression`), judged
(`field_validation`, `h2_engine`), answered, and only then told to the sinks, so that a sink may command anything.
This file holds the commands, `reference_receiving` the other half. No clock, no I/O, nothing of proxies.
"""

from __future__ import annotations

from typing import Final

from hyperframe.frame import Frame, GoAwayFrame, PingFrame, SettingsFrame, WindowUpdateFrame

from sidecar.http2 import constants as c
from sidecar.http2.errors import HeaderListTooLarge, LocalProtocolError, RemoteProtocolError, StreamsExhausted
from sidecar.http2.field_compression import header_tuples
from sidecar.http2.interface import CodecSettings, HeaderBlock, Sink, Stream, StreamSink
from sidecar.http2.reference_receiving import ReceivingHalf
from sidecar.http2.reference_state import ReferenceStream

PING_LENGTH: Final = 8  # octets, RFC 9113 section 6.7


class ReferenceCodec(ReceivingHalf):
    """`Codec` over the h2 package."""

    __slots__ = ("_output_allowance",)

    def __init__(self, role: int, settings: CodecSettings, sink: Sink) -> None:
        super().__init__(role, settings, sink)
        self._output_allowance: int | None = None

    def __repr__(self) -> str:
        role = "CLIENT" if self.role == c.CLIENT else "SERVER"
        state = "dead" if self._dead else f"{len(self._streams)} streams, receive window {self.receive_window}"
        return f"<ReferenceCodec {role} {state}>"

    # -- bytes ------------------------------------------------------------------------------------------

    def initiate_connection(self) -> None:
        settings = self.settings
        announced = {
            c.SETTINGS_INITIAL_WINDOW_SIZE: settings.stream_window,
            c.SETTINGS_MAX_FRAME_SIZE: settings.max_frame_size,
            c.SETTINGS_MAX_HEADER_LIST_SIZE: settings.max_header_list_size,
        }
        if self.role == c.CLIENT:
            self._urgent += c.PREFACE
            announced[c.SETTINGS_ENABLE_PUSH] = 0
        else:
            announced[c.SETTINGS_MAX_CONCURRENT_STREAMS] = settings.max_concurrent_streams
        self._urgent += SettingsFrame(0, settings=announced).serialize()
        widening = settings.connection_window - c.DEFAULT_WINDOW
        if widening > 0:
            self._urgent += WindowUpdateFrame(0, window_increment=widening).serialize()

    def receive_data(self, data: bytes) -> None:
        if self._dead:
            return
        self._guard.read_started()
        try:
            for frame in self._reader.feed(data):
                self._receive_frame(frame)
        except RemoteProtocolError as error:
            last_stream_id = min(self._highest_served_id, self._goaway_sent)
            self._queue(GoAwayFrame(0, last_stream_id, error.error_code, error.args[0].encode()))
            self._dead = True
            raise

    def data_to_send(self) -> bytes:
        data = bytes(self._urgent + self._out)
        self._urgent.clear()
        self._out.clear()
        self._guard.output_drained()
        return data

    def has_data_to_send(self) -> bool:
        return bool(self._urgent or self._out)

    # -- streams ----------------------------------------------------------------------------------------

    def open_stream(self, sink: StreamSink) -> Stream:
        stream_id = self._engine.next_stream_id
        if stream_id > c.LARGEST_STREAM_ID:
            raise StreamsExhausted("no stream id is left on this connection")
        if self._goaway_received is not None:
            raise StreamsExhausted("the peer takes no new streams after its GOAWAY")
        if len(self._streams) >= self.remote_max_concurrent_streams:
            raise StreamsExhausted(f"the peer allows {self.remote_max_concurrent_streams} streams at a time")
        return self._new_stream(stream_id, sink)

    def send_informational(self, stream: Stream, block: HeaderBlock) -> None:
        if self.role == c.CLIENT or _own(stream).sent_head:
            raise LocalProtocolError(f"stream {stream.id} cannot send an informational head here")
        self._send_head(stream, block, end_stream=False)

    def send_headers(self, stream: Stream, block: HeaderBlock, end_stream: bool) -> None:
        state = _own(stream)
        if state.sent_head:
            raise LocalProtocolError(f"stream {stream.id} has sent its head already")
        self._send_head(stream, block, end_stream)
        if not self._dead:
            state.sent_head = True
            state.head_only = block.get(b":method") == b"HEAD"

    def send_data(self, stream: Stream, data: bytes, end_stream: bool, offset: int = 0) -> int:
        if self._dead:
            return 0
        state = self._sendable(stream)
        if not state.sent_head:
            raise LocalProtocolError(f"stream {stream.id} sends data before its head")
        rest = memoryview(data)[offset:]
        allowed = max(0, min(len(rest), self._engine.send_window(stream.id)))
        if self._output_allowance is not None:
            allowed = min(allowed, self._output_allowance)
            self._output_allowance -= allowed
        ends = end_stream and allowed == len(rest)
        self._send_data_frames(stream.id, rest[:allowed], ends)
        state.cut_short = allowed < len(rest)
        self._cut_short |= state.cut_short
        if ends:
            self._close_local(state)
        return allowed

    def send_trailers(self, stream: Stream, block: HeaderBlock) -> None:
        if self._dead:
            return
        state = self._sendable(stream)
        if not state.sent_head:
            raise LocalProtocolError(f"stream {stream.id} sends trailers before its head")
        self._check_list_size(block)
        if block.fields:
            self._out += self._engine.send_headers(stream.id, header_tuples(block), True)
        else:  # h2 cannot write an empty block; an empty DATA frame says the same
            self._out += self._engine.send_data(stream.id, b"", True)
        self._close_local(state)

    def reset_stream(self, stream: Stream, error_code: int) -> None:
        state = _own(stream)
        if not self._dead and stream.id in self._streams:
            self._out += self._engine.reset_stream(stream.id, error_code)
            self._forget(state, peer_knows=False)
        state.local_closed = state.remote_closed = True

    def acknowledge_received_data(self, stream: Stream, size: int) -> None:
        state = _own(stream)
        if size > state.unacknowledged:
            raise LocalProtocolError(f"stream {stream.id} gives back {size} of {state.unacknowledged} octets")
        state.unacknowledged -= size
        held = min(size, self._held)
        self._held -= held
        self._credit_connection(held)
        if not state.remote_closed:
            self._credit_stream(state, size)

    # -- connection -------------------------------------------------------------------------------------

    def hold_credit(self, hold: bool) -> None:
        self._hold = hold
        if not hold:
            held, self._held = self._held, 0
            self._credit_connection(held)

    def limit_output(self, octets: int) -> None:
        self._output_allowance = octets

    def send_ping(self, payload: bytes) -> None:
        if len(payload) != PING_LENGTH:
            raise LocalProtocolError("a PING carries 8 octets")
        self._pings.append(payload)
        self._queue(PingFrame(0, payload))

    def send_goaway(self, last_stream_id: int, error_code: int, debug: bytes = b"") -> None:
        self._goaway_sent = min(self._goaway_sent, last_stream_id)
        self._queue(GoAwayFrame(0, self._goaway_sent, error_code, debug))

    def refill(self, now: float) -> None:
        self._guard.refill(now)

    @property
    def remote_max_concurrent_streams(self) -> int:
        return self._engine.max_concurrent_streams if self._settings_received else c.INITIAL_MAX_CONCURRENT_STREAMS

    @property
    def open_streams(self) -> int:
        return len(self._streams)

    @property
    def highest_remote_stream_id(self) -> int:
        return self._highest_served_id

    @property
    def next_stream_id(self) -> int:
        return self._engine.next_stream_id

    @property
    def receive_window(self) -> int:
        return self._connection_credit.available

    # -- sending, below the commands --------------------------------------------------------------------

    def _queue(self, frame: Frame) -> None:
        if not self._dead:
            self._out += frame.serialize()

    def _send_head(self, stream: Stream, block: HeaderBlock, end_stream: bool) -> None:
        if self._dead:
            return
        opening = self.role == c.CLIENT and stream.id == self._engine.next_stream_id
        state = _own(stream) if opening else self._sendable(stream)
        self._check_list_size(block)
        self._out += self._engine.send_headers(stream.id, header_tuples(block), end_stream)
        if opening:
            self._streams[stream.id] = state
            self._guard.stream_opened()
        if end_stream:
            self._close_local(state)

    def _send_data_frames(self, stream_id: int, rest: memoryview, end_stream: bool) -> None:
        """All of `rest`; END_STREAM on the last frame, which is empty if `rest` is."""
        size = self._engine.data_frame_size
        for start in range(0, max(len(rest), 1 if end_stream else 0), size):
            piece = bytes(rest[start : start + size])
            last = end_stream and start + size >= len(rest)
            self._out += self._engine.send_data(stream_id, piece, last)
            self._guard.data_frame_sent()

    def _sendable(self, stream: Stream) -> ReferenceStream:
        state = self._streams.get(stream.id)
        if state is not stream or state.local_closed:
            raise LocalProtocolError(f"stream {stream.id} cannot send any more")
        return state

    def _check_list_size(self, block: HeaderBlock) -> None:
        limit = self._engine.max_header_list_size
        if limit is not None and block.size > limit:
            raise HeaderListTooLarge(f"a field list of {block.size} octets where the peer takes {limit}")


def _own(stream: Stream) -> ReferenceStream:
    assert isinstance(stream, ReferenceStream)
    return stream
