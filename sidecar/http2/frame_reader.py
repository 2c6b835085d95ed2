"""Cuts received octets into frames for the reference codec (RFC 9113 section 4.1). Knows lengths, not meanings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sidecar.http2.constants import (
    FLAG_PADDED,
    FRAME_HEADER_LENGTH,
    FRAME_SIZE_ERROR,
    PREFACE,
    SERVER,
)
from sidecar.http2.errors import RemoteProtocolError


class ReceivedFrame(NamedTuple):
    """One frame as it came; the reserved bit of the stream id is gone."""

    type: int
    flags: int
    stream_id: int
    payload: bytes

    def has(self, flag: int) -> bool:
        """Whether a flag is set."""
        return bool(self.flags & flag)


class FrameReader:
    """Holds what of a preface or a frame has arrived so far: one frame at most."""

    def __init__(self, role: int, max_frame_size: int) -> None:
        self._preface = PREFACE if role == SERVER else b""
        self._max_frame_size = max_frame_size
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[ReceivedFrame]:
        """The frames that `data` completes. Raises `RemoteProtocolError`."""
        self._buffer += data
        if self._preface and not self._take_preface():
            return
        position = 0
        try:
            while len(self._buffer) - position >= FRAME_HEADER_LENGTH:
                end = position + FRAME_HEADER_LENGTH + self._payload_length(position)
                if len(self._buffer) < end:
                    break
                start, position = position, end
                yield ReceivedFrame(
                    self._buffer[start + 3],
                    self._buffer[start + 4],
                    int.from_bytes(self._buffer[start + 5 : start + 9]) & 0x7FFF_FFFF,
                    bytes(self._buffer[start + FRAME_HEADER_LENGTH : end]),
                )
        finally:
            del self._buffer[:position]

    def _take_preface(self) -> bool:
        """Section 3.4. The first wrong octet is the last one looked at."""
        arrived = bytes(self._buffer[: len(self._preface)])
        if not self._preface.startswith(arrived):
            raise RemoteProtocolError("the connection does not start with the HTTP/2 preface")
        del self._buffer[: len(arrived)]
        self._preface = self._preface[len(arrived) :]
        return not self._preface

    def _payload_length(self, position: int) -> int:
        """Section 4.2, checked before the payload is waited for."""
        length = int.from_bytes(self._buffer[position : position + 3])
        if length > self._max_frame_size:
            raise RemoteProtocolError(
                f"a frame of {length} octets where {self._max_frame_size} are allowed", FRAME_SIZE_ERROR
            )
        return length


def without_padding(frame: ReceivedFrame) -> bytes:
    """The payload of a DATA or HEADERS frame less its padding (sections 6.1, 6.2; H2-27)."""
    if not frame.has(FLAG_PADDED):
        return frame.payload
    if not frame.payload:
        raise RemoteProtocolError("a padded frame without a pad length", FRAME_SIZE_ERROR)
    padding = frame.payload[0]
    if padding >= len(frame.payload):
        raise RemoteProtocolError("padding longer than its frame")
    return frame.payload[1 : len(frame.payload) - padding]
