"""One end of an HTTP/2 connection that a test holds in its hand: blocking, frame by frame, lawful or not.

Built on hyperframe and hpack, which the sidecar's native codec does not use. It answers SETTINGS and PING and gives
flow-control credit by itself unless told otherwise, and it judges nothing: what to send and what to make of what comes
is the test's business. Every wait ends after `PATIENCE` seconds with an error.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import hpack
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

Fields = Sequence[tuple[bytes, bytes]]
FieldList = list[tuple[bytes, bytes]]
PATIENCE = 10.0  # seconds
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WINDOW = 2**31 - 1
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM = 5, 7, 8, 11

REQUEST: Fields = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/probe.Probe/Echo"),
    (b":authority", b"probe"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
)
HEAD: Fields = ((b":status", b"200"), (b"content-type", b"application/grpc"))
OK: Fields = ((b"grpc-status", b"0"),)


def message(body: bytes) -> bytes:
    """A gRPC message: not compressed, its length, its octets."""
    return struct.pack(">BI", 0, len(body)) + body


class Closed(Exception):
    """The other end closed the connection (`reset`: with a RST)."""

    def __init__(self, reset: bool) -> None:
        super().__init__("reset" if reset else "closed")
        self.reset = reset


@dataclass
class Response:
    """What a client heard on one stream."""

    informational: list[FieldList] = field(default_factory=list)
    head: FieldList | None = None
    data: bytes = b""
    trailers: FieldList | None = None
    ended: bool = False  # by END_STREAM
    trailers_only: bool = False
    reset: int | None = None
    lost: bool = False  # the connection ended first

    def get(self, name: bytes) -> bytes | None:
        """The first value of a field, the trailers' before the head's."""
        fields: FieldList = [*(self.trailers or ()), *(self.head or ())]
        return next((value for key, value in fields if key == name), None)

    @property
    def status(self) -> int | None:
        """grpc-status, if any came."""
        value = self.get(b"grpc-status")
        return None if value is None else int(value)

    @property
    def text(self) -> str:
        """grpc-message as it came."""
        return (self.get(b"grpc-message") or b"").decode("ascii")


class Wire:
    """One end of one connection."""

    def __init__(self, sock: socket.socket, *, server: bool) -> None:
        sock.settimeout(PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.server = server
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.decoder.max_header_list_size = 2**24
        self.answering = True  # SETTINGS and PING
        self.crediting = True  # DATA
        self.stalled: set[int] = set()  # streams that get no credit of their own
        self.received: list[Frame] = []  # every frame, in order
        self.next_stream = 1
        self._octets = b""
        self._block: HeadersFrame | None = None
        self._unread: deque[Frame] = deque()
        self._acked_pings: set[bytes] = set()

    # -- the connection ------------------------------------------------------------------------------------------

    def greet(self, settings: dict[int, int] | None = None, *more: Frame) -> None:
        """The opening: the preface (sent, or awaited by a server), SETTINGS, and a wide connection window.

        `more` leaves in the same write, so that it is there before the other end can have answered the SETTINGS.
        """
        if self.server:
            while len(self._octets) < len(PREFACE):
                self._fill()
            assert self._octets.startswith(PREFACE), self._octets[:40]
            self._octets = self._octets[len(PREFACE) :]
        else:
            self.sock.sendall(PREFACE)
        self.send(SettingsFrame(0, settings=settings or {}), WindowUpdateFrame(0, WINDOW - 65_535), *more)

    def close(self, *, reset: bool = False) -> None:
        """Close the socket, with a RST if asked."""
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with suppress(OSError):  # the other end was faster, or it is closed already
            if not reset:
                self.sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that reads from it
        self.sock.close()

    def wait_closed(self) -> None:
        """Read until the other end has closed."""
        try:
            while True:
                self.receive()
        except Closed:
            return

    # -- out -----------------------------------------------------------------------------------------------------

    def send(self, *frames: Frame) -> None:
        """Frames, in one write."""
        self.send_raw(b"".join(frame.serialize() for frame in frames))

    def send_raw(self, octets: bytes) -> None:
        try:
            self.sock.sendall(octets)
        except TimeoutError:
            raise AssertionError(f"nothing was read for {PATIENCE:g} s") from None
        except OSError as error:
            raise Closed(reset=True) from error

    def headers(self, stream: int, fields: Fields, *, end: bool = False) -> Frame:
        """A HEADERS frame; encode in the order of sending."""
        flags = ["END_HEADERS", "END_STREAM"] if end else ["END_HEADERS"]
        return HeadersFrame(stream, self.encoder.encode(fields), flags=flags)

    @staticmethod
    def data(stream: int, octets: bytes, *, end: bool = False, padding: int | None = None) -> Frame:
        """A DATA frame, with `padding` octets of it if given."""
        flags = (["END_STREAM"] if end else []) + (["PADDED"] if padding is not None else [])
        return DataFrame(stream, octets, flags=flags, pad_length=padding or 0)

    @staticmethod
    def reset(stream: int, code: int) -> Frame:
        return RstStreamFrame(stream, error_code=code)

    @staticmethod
    def goaway(last: int, code: int = NO_ERROR, debug: bytes = b"") -> Frame:
        return GoAwayFrame(0, last_stream_id=last, error_code=code, additional_data=debug)

    def grant(self, stream: int, octets: int) -> None:
        """Flow-control credit for a stream. The connection's window is wide from the start."""
        self.send(WindowUpdateFrame(stream, octets))

    def request(self, fields: Fields = REQUEST, *, end: bool = False, body: bytes | None = None) -> int:
        """Open a stream with a request head; with `body` the whole unary request. Returns the stream's number."""
        stream, self.next_stream = self.next_stream, self.next_stream + 2
        if body is None:
            self.send(self.headers(stream, fields, end=end))
        else:
            self.send(self.headers(stream, fields), self.data(stream, message(body), end=True))
        return stream

    def answer(self, stream: int, body: bytes = b"", trailers: Fields = OK) -> None:
        """A whole unary response."""
        self.send(self.headers(stream, HEAD), self.data(stream, message(body)))
        self.send(self.headers(stream, trailers, end=True))

    # -- in ------------------------------------------------------------------------------------------------------

    def receive(self) -> Frame:
        """The next frame. HEADERS come whole (with their CONTINUATIONs) and carry `fields`. Raises Closed."""
        return self._unread.popleft() if self._unread else self._receive()

    def _receive(self) -> Frame:
        while True:
            frame = self._parse()
            if frame is None:
                self._fill()
                continue
            frame = self._assemble(frame)
            if frame is not None:
                self.received.append(frame)
                with suppress(Closed):  # what came before the end is still to be read
                    self._respond(frame)
                return frame

    def expect(self, kind: type[Any], stream: int | None = None) -> Any:
        """The next frame of `kind` (on `stream`); others are read past."""
        while True:
            frame = self.receive()
            if isinstance(frame, kind) and (stream is None or frame.stream_id == stream):
                return frame

    def expect_request(self) -> tuple[int, FieldList]:
        """The next request head: its stream and its fields."""
        frame = self.expect(HeadersFrame)
        return frame.stream_id, frame.fields

    def expect_response_head(self, stream: int) -> FieldList:
        """The next response head on a stream."""
        fields: FieldList = self.expect(HeadersFrame, stream).fields
        return fields

    def expect_data(self, stream: int) -> bytes:
        """The payload of the next DATA frame on a stream."""
        return bytes(self.expect(DataFrame, stream).data)

    def take_credit(self, stream: int) -> int:
        """Credit for a stream among what was read on the way to something else."""
        credit = 0
        for frame in list(self._unread):
            if isinstance(frame, WindowUpdateFrame):
                self._unread.remove(frame)
                credit += frame.window_increment if frame.stream_id == stream else 0
        return credit

    def expect_body(self, stream: int) -> bytes:
        """The DATA of a stream up to its END_STREAM."""
        body = bytearray()
        while True:
            frame = self.expect(DataFrame, stream)
            body += frame.data
            if "END_STREAM" in frame.flags:
                return bytes(body)

    def response(self, stream: int) -> Response:
        """Everything on a stream up to its end, by END_STREAM, by RST_STREAM or with the connection."""
        seen = Response()
        try:
            while not seen.ended and seen.reset is None:
                frame = self.receive()
                if frame.stream_id == stream:
                    self._note(seen, frame)
        except Closed:
            seen.lost = True
        return seen

    @staticmethod
    def _note(seen: Response, frame: Any) -> None:
        ends = "END_STREAM" in frame.flags
        if isinstance(frame, HeadersFrame):
            fields: FieldList = frame.fields  # type: ignore[attr-defined]
            status = dict(fields).get(b":status")
            if status is None:
                seen.trailers = fields
            elif status.startswith(b"1"):
                seen.informational.append(fields)
            else:
                seen.head, seen.trailers_only = fields, ends
        elif isinstance(frame, DataFrame):
            seen.data += frame.data
        elif isinstance(frame, RstStreamFrame):
            seen.reset = frame.error_code
        seen.ended = seen.ended or (ends and isinstance(frame, HeadersFrame | DataFrame))

    def round_trip(self, payload: bytes = b"roundtrip") -> None:
        """Send a PING and wait for its ACK: the other end has by then read everything sent before.

        What else arrives meanwhile is kept for `receive`.
        """
        payload = payload[:8].ljust(8, b".")
        self.send(PingFrame(0, payload))
        while payload not in self._acked_pings:
            self._unread.append(self._receive())
        self._acked_pings.discard(payload)

    def _fill(self) -> None:
        try:
            octets = self.sock.recv(65_536)
        except TimeoutError:
            raise AssertionError(f"nothing came for {PATIENCE:g} s; so far: {self.received}") from None
        except OSError as error:
            raise Closed(reset=True) from error
        if not octets:
            raise Closed(reset=False)
        self._octets += octets

    def _parse(self) -> Frame | None:
        if len(self._octets) < 9:
            return None
        frame, length = Frame.parse_frame_header(memoryview(self._octets[:9]))
        if len(self._octets) < 9 + length:
            return None
        frame.parse_body(memoryview(self._octets[9 : 9 + length]))
        self._octets = self._octets[9 + length :]
        return frame

    def _assemble(self, frame: Any) -> Frame | None:
        """Put a header block together and decode it. None while it is not whole."""
        if isinstance(frame, ContinuationFrame):
            assert self._block is not None
            self._block.data += frame.data
            if "END_HEADERS" not in frame.flags:
                return None
            frame, self._block = self._block, None
        elif isinstance(frame, HeadersFrame) and "END_HEADERS" not in frame.flags:
            self._block = frame
            return None
        if isinstance(frame, HeadersFrame):
            decoded: Iterable[Any] = self.decoder.decode(frame.data, raw=True)
            frame.fields = [(bytes(name), bytes(value)) for name, value in decoded]  # type: ignore[attr-defined]
        whole: Frame = frame
        return whole

    def _respond(self, frame: Frame) -> None:
        if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags and self.answering:
            self.send(SettingsFrame(0, flags=["ACK"]))
        elif isinstance(frame, PingFrame):
            if "ACK" in frame.flags:
                self._acked_pings.add(frame.opaque_data)
            elif self.answering:
                self.send(PingFrame(0, frame.opaque_data, flags=["ACK"]))
        elif isinstance(frame, DataFrame) and self.crediting and frame.flow_controlled_length:
            credit = [WindowUpdateFrame(0, frame.flow_controlled_length)]
            if "END_STREAM" not in frame.flags and frame.stream_id not in self.stalled:
                credit.append(WindowUpdateFrame(frame.stream_id, frame.flow_controlled_length))
            self.send(*credit)
