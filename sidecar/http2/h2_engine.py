"""The h2 package behind a narrow door: stream states, the peer's settings, send windows, and the frames we send.

Of what is received h2 sees only the shape of frames that were already judged legal: it has the last word on states.
What it would answer by itself is dropped, the codec answers. Payload, field blocks and receive windows never come here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import H2Error
from h2.exceptions import ProtocolError as H2ProtocolError
from h2.settings import SettingCodes, Settings
from hpack import Decoder, HeaderTuple
from hyperframe.frame import DataFrame, Frame, HeadersFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from sidecar.http2.constants import (
    CLIENT,
    DEFAULT_MAX_FRAME_SIZE,
    DEFAULT_WINDOW,
    FLOW_CONTROL_ERROR,
    LARGEST_WINDOW,
    PREFACE,
    SETTINGS_ENABLE_PUSH,
    SETTINGS_HEADER_TABLE_SIZE,
    SETTINGS_INITIAL_WINDOW_SIZE,
    SETTINGS_MAX_CONCURRENT_STREAMS,
    SETTINGS_MAX_HEADER_LIST_SIZE,
    UNLIMITED_STREAMS,
)
from sidecar.http2.errors import LocalProtocolError, RemoteProtocolError
from sidecar.http2.field_compression import FieldEncoder
from sidecar.http2.interface import CodecSettings


class _KnownFields(Decoder):
    """Stands where h2 has its HPACK decoder: the block was decoded before, h2 only asks for its status."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: list[HeaderTuple] = []

    def decode(self, data: bytes, raw: bool = False) -> list[HeaderTuple]:
        """What was put in place for the block at hand."""
        return self.fields


class _H2Connection(H2Connection):
    """h2 need not remember which streams were closed and how: frames on those never come here."""

    MAX_CLOSED_STREAMS = 1  # h2 65536, some 6 MiB on a connection that lives long


class H2Engine:
    """One `H2Connection`."""

    def __init__(self, role: int, settings: CodecSettings) -> None:
        client = role == CLIENT
        self._h2 = _H2Connection(
            H2Configuration(
                client_side=client,
                header_encoding=None,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        # The codec refuses before h2 would: h2 makes a connection error of one stream too many.
        limit = {SettingCodes.MAX_CONCURRENT_STREAMS: UNLIMITED_STREAMS}
        self._h2.local_settings = Settings(client=client, initial_values=limit)
        self._h2.initiate_connection()
        if not client:
            self._h2.receive_data(PREFACE)
        self._h2.clear_outbound_data_buffer()
        self._h2.encoder = self._encoder = FieldEncoder()
        self._known = _KnownFields()
        self._h2.decoder = self._known
        if client and settings.first_stream_id > 1:
            self._h2.highest_outbound_stream_id = settings.first_stream_id - 2
        self._remote: dict[int, int] = {}

    # -- what the peer did ------------------------------------------------------------------------------

    def headers_received(self, stream_id: int, status: bytes | None, end_stream: bool) -> None:
        """A request head or trailers (no status), or a response head."""
        self._known.fields = [] if status is None else [HeaderTuple(b":status", status)]
        frame = HeadersFrame(stream_id)
        frame.flags.add("END_HEADERS")
        self._judge(frame, end_stream)

    def data_received(self, stream_id: int, end_stream: bool) -> None:
        """DATA of any size."""
        self._judge(DataFrame(stream_id), end_stream)

    def reset_received(self, stream_id: int) -> None:
        """RST_STREAM."""
        self._judge(RstStreamFrame(stream_id))

    def setting_received(self, identifier: int, value: int) -> None:
        """One entry of a SETTINGS frame. Unknown ones are ignored, illegal values raise."""
        if identifier == SETTINGS_HEADER_TABLE_SIZE:
            self._encoder.resize(value)
        elif SETTINGS_ENABLE_PUSH <= identifier <= SETTINGS_MAX_HEADER_LIST_SIZE:
            _ = (
                self._h2.open_outbound_streams
            )  # as it counts h2 lets closed streams go: no window of theirs may overflow
            self._judge(SettingsFrame(0, settings={identifier: value}))
            self._remote[identifier] = value

    def window_received(self, stream_id: int, increment: int) -> bool:
        """WINDOW_UPDATE with a legal increment. False if that stream's window would overflow; on stream 0 it raises."""
        if self._window(stream_id) + increment > LARGEST_WINDOW:
            if stream_id == 0:
                raise RemoteProtocolError("the connection window overflows", FLOW_CONTROL_ERROR)
            return False
        self._judge(WindowUpdateFrame(stream_id, window_increment=increment))
        return True

    # -- what we do -------------------------------------------------------------------------------------

    def send_headers(self, stream_id: int, fields: Iterable[HeaderTuple], end_stream: bool) -> bytes:
        """HEADERS and CONTINUATION of any head or of trailers."""
        return self._command(self._h2.send_headers, stream_id, list(fields), end_stream)

    def send_data(self, stream_id: int, data: bytes | memoryview, end_stream: bool) -> bytes:
        """One DATA frame."""
        return self._command(self._h2.send_data, stream_id, data, end_stream)

    def reset_stream(self, stream_id: int, error_code: int) -> bytes:
        """RST_STREAM."""
        return self._command(self._h2.reset_stream, stream_id, error_code)

    # -- what it knows ----------------------------------------------------------------------------------

    def send_window(self, stream_id: int) -> int:
        """What both windows let us send on a stream; negative after SETTINGS that lowered it."""
        return self._h2.local_flow_control_window(stream_id)

    @property
    def connection_window(self) -> int:
        """The connection's share of `send_window`."""
        return self._h2.outbound_flow_control_window

    @property
    def initial_window(self) -> int:
        """The peer's INITIAL_WINDOW_SIZE."""
        return self._remote.get(SETTINGS_INITIAL_WINDOW_SIZE, DEFAULT_WINDOW)

    @property
    def data_frame_size(self) -> int:
        """The largest DATA frame we send."""
        return min(self._h2.max_outbound_frame_size, DEFAULT_MAX_FRAME_SIZE)

    @property
    def next_stream_id(self) -> int:
        """CLIENT: the next id, which may be past the last one that exists."""
        return self._h2.highest_outbound_stream_id + 2 if self._h2.highest_outbound_stream_id else 1

    @property
    def max_concurrent_streams(self) -> int:
        """What the peer's SETTINGS allow us to open."""
        return min(self._remote.get(SETTINGS_MAX_CONCURRENT_STREAMS, UNLIMITED_STREAMS), UNLIMITED_STREAMS)

    @property
    def max_header_list_size(self) -> int | None:
        """What the peer wants at most, if it said so."""
        return self._remote.get(SETTINGS_MAX_HEADER_LIST_SIZE)

    # ---------------------------------------------------------------------------------------------------

    def _window(self, stream_id: int) -> int:
        if stream_id == 0:
            return self._h2.outbound_flow_control_window
        return self._h2.streams[stream_id].outbound_flow_control_window

    def _judge(self, frame: Frame, end_stream: bool = False) -> None:
        if end_stream:
            frame.flags.add("END_STREAM")
        try:
            self._h2.receive_data(frame.serialize())
        except H2ProtocolError as error:
            raise RemoteProtocolError(str(error), int(error.error_code)) from error
        finally:
            self._h2.clear_outbound_data_buffer()

    def _command(self, call: Callable[..., None], *arguments: object) -> bytes:
        try:
            call(*arguments)
        except H2Error as error:
            raise LocalProtocolError(str(error)) from error
        return self._h2.data_to_send()
