"""HTTP/2 frames by hand, on hyperframe and hpack: what a scripted peer writes and what it reads.

Independent of our codecs on purpose, and able to write what no honest peer would. Knows nothing of sinks or sockets.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from hpack import Decoder, Encoder
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

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
END_STREAM, END_HEADERS, PADDED, PRIORITY, ACK = 0x1, 0x4, 0x8, 0x20, 0x1

Fields = Iterable[tuple[bytes, bytes]]


def raw(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Any frame at all."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream_id) + payload


def split(wire: bytes) -> list[tuple[int, int, int, bytes]]:
    """Whole frames as (type, flags, stream, payload), nothing decoded."""
    found = []
    while wire:
        end = 9 + int.from_bytes(wire[:3], "big")
        found.append((wire[3], wire[4], int.from_bytes(wire[5:9], "big"), wire[9:end]))
        wire = wire[end:]
    return found


def settings(*entries: tuple[int, int], ack: bool = False) -> bytes:
    """SETTINGS with its entries in this order, repeats included."""
    return raw(0x4, ACK if ack else 0, 0, b"".join(struct.pack(">HI", *entry) for entry in entries))


def data(stream_id: int, payload: bytes = b"", end_stream: bool = False, padding: int | None = None) -> bytes:
    """DATA; `padding` counts the octets after the pad length."""
    flags = END_STREAM if end_stream else 0
    if padding is not None:
        flags |= PADDED
        payload = bytes((padding,)) + payload + bytes(padding)
    return raw(0x0, flags, stream_id, payload)


def priority(stream_id: int, depends_on: int = 0, weight: int = 15) -> bytes:
    """PRIORITY."""
    return raw(0x2, 0, stream_id, struct.pack(">IB", depends_on, weight))


def rst_stream(stream_id: int, error_code: int) -> bytes:
    """RST_STREAM."""
    return raw(0x3, 0, stream_id, struct.pack(">I", error_code))


def ping(payload: bytes = b"12345678", ack: bool = False) -> bytes:
    """PING."""
    return raw(0x6, ACK if ack else 0, 0, payload)


def goaway(last_stream_id: int, error_code: int = 0, debug: bytes = b"") -> bytes:
    """GOAWAY."""
    return raw(0x7, 0, 0, struct.pack(">II", last_stream_id, error_code) + debug)


def window_update(stream_id: int, increment: int) -> bytes:
    """WINDOW_UPDATE."""
    return raw(0x8, 0, stream_id, struct.pack(">I", increment))


@dataclass
class Seen:
    """One frame that a codec wrote; CONTINUATION is joined to its HEADERS. Fields that do not apply stay empty."""

    kind: str
    stream_id: int = 0
    end_stream: bool = False
    ack: bool = False
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    never_indexed: set[bytes] = field(default_factory=set)
    data: bytes = b""
    error_code: int = 0
    increment: int = 0
    last_stream_id: int = 0
    settings: dict[int, int] = field(default_factory=dict)
    frames: int = 1  # how many frames a field block took


class Peer:
    """The compression state of a scripted peer, both ways."""

    def __init__(self) -> None:
        self.encoder = Encoder()
        self.decoder = Decoder()
        self._unread = b""
        self._block: tuple[Seen, bytes] | None = None

    def block(self, fields: Fields) -> bytes:
        """An encoded field block."""
        return self.encoder.encode(list(fields))

    def headers(
        self,
        stream_id: int,
        fields: Fields,
        end_stream: bool = False,
        pieces: int = 1,
        padding: int | None = None,
        depends_on: int | None = None,
    ) -> bytes:
        """HEADERS, and CONTINUATION if it is to come in several pieces."""
        encoded = self.block(fields)
        size = -(-len(encoded) // pieces)
        parts = [encoded[i * size : (i + 1) * size] for i in range(pieces)]
        flags = END_STREAM if end_stream else 0
        first = parts[0]
        if depends_on is not None:
            flags |= PRIORITY
            first = struct.pack(">IB", depends_on, 15) + first
        if padding is not None:
            flags |= PADDED
            first = bytes((padding,)) + first + bytes(padding)
        if pieces == 1:
            return raw(0x1, flags | END_HEADERS, stream_id, first)
        wire = raw(0x1, flags, stream_id, first)
        for part in parts[1:-1]:
            wire += raw(0x9, 0, stream_id, part)
        return wire + raw(0x9, END_HEADERS, stream_id, parts[-1])

    def read(self, wire: bytes) -> list[Seen]:
        """What these octets say. Incomplete frames wait for the next call."""
        self._unread += wire
        if self._unread.startswith(PREFACE):
            self._unread = self._unread[len(PREFACE) :]
        seen = []
        while len(self._unread) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self._unread)[:9])
            if len(self._unread) < 9 + length:
                break
            frame.parse_body(memoryview(self._unread)[9 : 9 + length])
            self._unread = self._unread[9 + length :]
            one = self._understand(frame)
            if one is not None:
                seen.append(one)
        return seen

    def _understand(self, frame: Frame) -> Seen | None:
        kind = type(frame).__name__.removesuffix("Frame")
        assert self._block is None or isinstance(frame, ContinuationFrame), f"{kind} inside a field block"
        one = Seen(kind, frame.stream_id, "END_STREAM" in frame.flags, "ACK" in frame.flags)
        if isinstance(frame, HeadersFrame):
            return self._block_part(one, frame.data, "END_HEADERS" in frame.flags)
        if isinstance(frame, ContinuationFrame):
            assert self._block is not None, "CONTINUATION outside a field block"
            one, sofar = self._block
            one.frames += 1
            return self._block_part(one, sofar + frame.data, "END_HEADERS" in frame.flags)
        if isinstance(frame, DataFrame | PingFrame):
            one.data = frame.data if isinstance(frame, DataFrame) else frame.opaque_data
        elif isinstance(frame, RstStreamFrame):
            one.error_code = frame.error_code
        elif isinstance(frame, GoAwayFrame):
            one.error_code, one.last_stream_id, one.data = frame.error_code, frame.last_stream_id, frame.additional_data
        elif isinstance(frame, WindowUpdateFrame):
            one.increment = frame.window_increment
        elif isinstance(frame, SettingsFrame):
            one.settings = dict(frame.settings)
        return one

    def _block_part(self, one: Seen, encoded: bytes, complete: bool) -> Seen | None:
        if not complete:
            self._block = (one, encoded)
            return None
        self._block = None
        for field_ in self.decoder.decode(encoded, raw=True):
            one.fields.append((bytes(field_[0]), bytes(field_[1])))
            if not field_.indexable:
                one.never_indexed.add(bytes(field_[0]))
        return one
