"""Just enough HTTP/2 to call and to answer: frame heads, header blocks that are written once, and one probe.

The load generator and the backend must never be the bottleneck, so they build their header blocks ahead and never
decode one: an RPC is complete when its stream ends, and good when all octets of its body came before the trailers.
(That its grpc-status is 0 is what the verification with a real gRPC client shows, before numbers count.)
"""

from __future__ import annotations

import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# The 24-bit length is read as 16 + 8 bits, so that one unpack call takes the whole head (RFC 9113 section 4.1).
HEAD = struct.Struct(">HBBBI")
HEAD_SIZE = 9
MAX_FRAME = 16_384  # RFC 9113's default; no peer is asked for more, so that all of them move the same frames
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
SETTING_TABLE_SIZE, SETTING_MAX_STREAMS, SETTING_WINDOW = 1, 3, 4
DEFAULT_WINDOW = 65_535
DEFAULT_TABLE_SIZE = 4_096
LARGE_WINDOW = 2**30 - 1  # what h2load announces, too

PATH = b"/helloworld.Greeter/SayHello"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One whole frame."""
    size = len(payload)
    return HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", key, value) for key, value in values.items()))


def parse_settings(payload: bytes) -> dict[int, int]:
    """The values of a SETTINGS payload."""
    return {key: value for key, value in struct.iter_unpack(">HI", payload)}


def window_update(stream: int, credit: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream, credit.to_bytes(4, "big"))


def grpc_message(size: int, fill: bytes = b"\0") -> bytes:
    """One length-prefixed gRPC message of `size` octets in all, the five of its prefix included."""
    return b"\0" + (size - 5).to_bytes(4, "big") + fill * (size - 5)


def literal(name: bytes | int, value: bytes) -> bytes:
    """A header field that enters the dynamic table (RFC 7541 section 6.2.1); `name` is text or a static index."""
    if isinstance(name, int):
        return bytes([0x40 | name]) + text(value)
    return b"\x40" + text(name) + text(value)


def text(value: bytes) -> bytes:
    """A string literal without Huffman coding (RFC 7541 section 5.2), shorter than 127 octets."""
    return bytes([len(value)]) + value


class RequestBlocks:
    """The header block of the same RPC again and again: the first fills the dynamic table, the others refer to it."""

    def __init__(self, authority: bytes, path: bytes = PATH) -> None:
        fixed = b"\x83\x86"  # :method POST, :scheme http
        self.first = (
            fixed
            + literal(4, path)
            + literal(1, authority)
            + literal(b"te", b"trailers")
            + literal(31, b"application/grpc")
            + literal(58, b"grpc-bench/1.0")
        )
        self.others = fixed + b"\xc2\xc1\xc0\xbf\xbe"  # the five entries, oldest first


# What the answers say: fields that enter the dynamic table as they are first sent, and the same as plain literals.
_ANSWER = ((31, b"application/grpc"), (b"grpc-accept-encoding", b"identity, deflate, gzip"), (b"grpc-status", b"0"))
_CONTENT_TYPE, _ACCEPT_ENCODING, _GRPC_STATUS = (literal(name, value) for name, value in _ANSWER)
_PLAIN_HEAD = b"\x88\x0f\x10" + text(_ANSWER[0][1]) + b"\0" + text(b"grpc-accept-encoding") + text(_ANSWER[1][1])
_PLAIN_TRAILERS = b"\0" + text(b"grpc-status") + text(b"0")


class ReplyBlocks:
    """Response heads and trailers of one connection, as its encoder would have them after what was already sent."""

    # What was sent decides where the three entries stand in the dynamic table. A peer that wants no table (nginx)
    # is told so once (RFC 7541 section 4.2) and gets plain literals.
    NOTHING, HEADS, ALL, SHRUNK, PLAIN = range(5)
    HEAD = (
        b"\x88" + _CONTENT_TYPE + _ACCEPT_ENCODING,
        b"\x88\xbf\xbe",
        b"\x88\xc0\xbf",
        b"\x20" + _PLAIN_HEAD,
        _PLAIN_HEAD,
    )
    TRAILERS = (b"", _GRPC_STATUS, b"\xbe", b"\x20" + _PLAIN_TRAILERS, _PLAIN_TRAILERS)
    _AFTER_HEAD = (HEADS, HEADS, ALL, PLAIN, PLAIN)
    _AFTER_TRAILERS = (NOTHING, ALL, ALL, PLAIN, PLAIN)
    STEADY = (ALL, PLAIN)

    def __init__(self) -> None:
        self.sent = self.NOTHING

    def forget(self) -> None:
        """The peer keeps no dynamic table from now on."""
        self.sent = self.SHRUNK

    def head(self, stream: int) -> bytes:
        """The HEADERS frame that opens an answer."""
        payload = self.HEAD[self.sent]
        self.sent = self._AFTER_HEAD[self.sent]
        return frame(HEADERS, END_HEADERS, stream, payload)

    def trailers(self, stream: int) -> bytes:
        """The HEADERS frame that ends an answer with grpc-status 0; a head came before it."""
        payload = self.TRAILERS[self.sent]
        self.sent = self._AFTER_TRAILERS[self.sent]
        return frame(HEADERS, END_HEADERS | END_STREAM, stream, payload)


class Unexpected(Exception):
    """The subject answered with something other than a whole, good reply."""


def probe(address: tuple[str, int], *, message: bytes = grpc_message(12), timeout: float = 5.0) -> int:
    """Make one unary RPC on a connection of its own and return how many octets of body came back.

    Raises OSError if nothing listens, Unexpected if the answer is not a head, a body and trailers.
    """
    blocks = RequestBlocks(b"bench.local")
    with socket.create_connection(address, timeout=timeout) as connection:
        connection.sendall(
            PREFACE
            + settings({SETTING_WINDOW: LARGE_WINDOW})
            + window_update(0, LARGE_WINDOW - DEFAULT_WINDOW)
            + frame(HEADERS, END_HEADERS, 1, blocks.first)
            + frame(DATA, END_STREAM, 1, message)
        )
        return _read_reply(connection)


def _read_reply(connection: socket.socket) -> int:
    buffer = b""
    heads = body = 0
    while True:
        chunk = connection.recv(262_144)
        if not chunk:
            raise Unexpected(f"the connection was closed after {heads} header frames and {body} octets of body")
        buffer += chunk
        position = 0
        while len(buffer) - position >= HEAD_SIZE:
            high, low, kind, flags, stream = HEAD.unpack_from(buffer, position)
            end = position + HEAD_SIZE + (high << 8 | low)
            if end > len(buffer):
                break
            payload = buffer[position + HEAD_SIZE : end]
            position = end
            if kind == SETTINGS and not flags & ACK:
                connection.sendall(frame(SETTINGS, ACK, 0))
            elif kind in (RST_STREAM, GOAWAY):
                raise Unexpected(f"frame of type {kind} with {payload!r}")
            elif kind == HEADERS and stream:
                heads += 1
            elif kind == DATA:
                body += len(payload)
            if stream and flags & END_STREAM and kind in (DATA, HEADERS):
                if heads < 2 or kind == DATA:
                    raise Unexpected(f"the reply ended after {heads} header frames and {body} octets of body")
                return body
        buffer = buffer[position:]
