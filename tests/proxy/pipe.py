"""The fake wire: a transport in memory, and a scripted peer behind it that speaks through a real codec.

The sidecar's end is a `Pipe`, which does what asyncio's transports promise (flow control towards the protocol,
`connection_lost` exactly once and never from within a call). The other end is a `Peer`: one of our codecs in the
opposite role, which judges every frame it gets. Nothing moves but by `Peer.exchange`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Protocol

from sidecar.http2.constants import CLIENT
from sidecar.http2.interface import Codec, CodecSettings, Field, HeaderBlock, Sink, Stream, StreamSink

REQUEST = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/greeter.Greeter/SayHello"),
    (b":authority", b"greeter"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
)
RESPONSE = ((b":status", b"200"), (b"content-type", b"application/grpc"))


class Protocolish(Protocol):
    """What a transport calls; `sidecar.proxy.connection.Connection` has it."""

    def connection_made(self, transport: Any, /) -> None: ...
    def data_received(self, data: bytes, /) -> None: ...
    def eof_received(self) -> bool: ...
    def connection_lost(self, exc: Exception | None, /) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class Pipe(asyncio.Transport):
    """The sidecar's end of a connection. What it writes waits in `outbox` until the peer reads it."""

    def __init__(self, protocol: Protocolish, peername: object = ("127.0.0.1", 1)) -> None:
        super().__init__({"peername": peername})
        self.protocol = protocol
        self.outbox = bytearray()
        self.writes = 0
        self.closing = False
        self.closed = False
        self.ended = False  # FIN is to follow what is in `outbox`
        self._high, self._low = 65_536, 16_384
        self._paused = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None and low is not None
        self._high, self._low = high, low

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self.ended:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self.closed or not data:
            return
        self.writes += 1
        self.outbox += data
        if len(self.outbox) > self._high and not self._paused:
            self._paused = True
            self.protocol.pause_writing()

    def read(self) -> bytes:
        """What the peer takes off the wire: all there is."""
        data = bytes(self.outbox)
        self.outbox.clear()
        if self._paused:
            self._paused = False
            self.protocol.resume_writing()
        if self.closing:
            self.lose(None)
        return data

    def write_eof(self) -> None:
        self.ended = True

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True
        if not self.outbox:
            self.lose(None)

    def abort(self) -> None:
        self.closing = True
        self.lose(None)

    def lose(self, exc: Exception | None) -> None:
        """The connection is gone; the protocol hears of it in the loop's next turn, as with real transports."""
        if not self.closed:
            self.closed = self.closing = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, exc)


class Ear(StreamSink):
    """One stream of a peer: writes down what it hears, and checks that nothing follows the end."""

    def __init__(self, peer: Peer, head: tuple[Field, ...] = ()) -> None:
        self.peer = peer
        self.stream: Stream | None = None
        self.request: dict[bytes, bytes] = dict(head)
        self.informational: list[dict[bytes, bytes]] = []
        self.head: dict[bytes, bytes] | None = None
        self.data = b""
        self.trailers: dict[bytes, bytes] | None = None
        self.trailers_only = False
        self.ended = False  # END_STREAM came
        self.reset: int | None = None
        self.crediting = True
        self.responded = False  # for the test's own use
        self.owed = 0  # octets not given back
        self.unsent: list[bytes] = []  # what this peer wants to send and may not yet
        self.sent = b""  # what this peer's codec took
        self.finish: tuple[Field, ...] | bool | None = False  # trailers, None: END_STREAM on DATA, False: not yet

    # -- heard ----------------------------------------------------------------------------------------

    def on_informational(self, block: HeaderBlock) -> None:
        assert self.head is None
        self.informational.append(dict(block.fields))

    def on_headers(self, block: HeaderBlock, end_stream: bool) -> None:
        assert self.head is None and not self.over
        self.head = dict(block.fields)
        self.ended = self.trailers_only = end_stream

    def on_data(self, data: bytes, end_stream: bool) -> None:
        assert not self.over
        self.data += data
        self.ended = end_stream
        self.owed += len(data)
        if self.crediting:
            self.give_back()

    def on_trailers(self, block: HeaderBlock) -> None:
        assert not self.over
        self.trailers = dict(block.fields)
        self.ended = True

    def on_reset(self, error_code: int, remote: bool) -> None:
        assert self.reset is None
        assert remote, f"the sidecar broke the rules of stream {self.stream}: {error_code}"
        self.reset = error_code

    def on_window(self) -> None:
        self.pump()

    # -- done -----------------------------------------------------------------------------------------

    def give_back(self, size: int | None = None) -> None:
        """Credit what was received, or part of it."""
        assert self.stream is not None
        size = self.owed if size is None else min(size, self.owed)
        self.owed -= size
        self.peer.codec.acknowledge_received_data(self.stream, size)

    def send(self, data: bytes) -> None:
        """Send DATA, as far as it fits; the rest follows by itself."""
        if data and not self.closed:
            self.unsent.append(data)
            self.pump()

    def end(self, trailers: Iterable[Field] | None = None) -> None:
        """End this side after what was sent, with trailers or without."""
        if not self.closed and self.finish is False:
            self.finish = tuple(trailers) if trailers is not None else None
            self.pump()

    def cancel(self, error_code: int = 8) -> None:
        """Reset the stream."""
        assert self.stream is not None
        self.unsent.clear()
        self.peer.codec.reset_stream(self.stream, error_code)

    def pump(self) -> None:
        """Send what fits."""
        stream = self.stream
        assert stream is not None
        codec = self.peer.codec
        while self.unsent and not self.closed:
            data = self.unsent[0]
            last = self.finish is None and len(self.unsent) == 1
            taken = codec.send_data(stream, data, last)
            self.sent += data[:taken]
            if taken < len(data):
                self.unsent[0] = data[taken:]
                return
            self.unsent.pop(0)
        if not self.unsent and not stream.local_closed and self.finish is not False:
            if isinstance(self.finish, tuple):
                codec.send_trailers(stream, HeaderBlock(self.finish))
            else:
                codec.send_data(stream, b"", True)

    # -- what came of it ------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether this peer can send no more on it."""
        return self.stream is None or self.stream.local_closed or self.peer.lost

    @property
    def over(self) -> bool:
        """Whether the other side can send no more on it."""
        return self.ended or self.reset is not None

    def field(self, name: bytes) -> bytes | None:
        """From the trailers, or the head."""
        for fields in (self.trailers, self.head):
            if fields is not None and name in fields:
                return fields[name]
        return None

    @property
    def status(self) -> int | None:
        """The grpc-status that came."""
        value = self.field(b"grpc-status")
        return None if value is None else int(value)

    @property
    def message(self) -> str:
        """The grpc-message that came."""
        return (self.field(b"grpc-message") or b"").decode()

    def __repr__(self) -> str:
        return (
            f"<Ear {self.stream} head={self.head} data={len(self.data)} trailers={self.trailers}"
            f" ended={self.ended} reset={self.reset}>"
        )


class Peer(Sink):
    """The far end of one connection of the sidecar."""

    def __init__(self, codec_class: type[Codec], role: int, protocol: Protocolish, settings: CodecSettings) -> None:
        self.codec = codec_class(role, settings, self)
        self.role = role
        self.pipe = Pipe(protocol)
        self.streams: list[Ear] = []
        self.goaways: list[tuple[int, int]] = []
        self.reading = True
        self.lost = False
        self.raw = b""  # what came, for peers that are no HTTP/2 (see `speaking`)
        self.speaking = True
        self.crediting = True
        self.closes = True  # answers a FIN by closing, as every gRPC library does

    def start(self) -> None:
        """The connection is up."""
        self.pipe.protocol.connection_made(self.pipe)
        if self.speaking:
            self.codec.initiate_connection()

    # -- heard ----------------------------------------------------------------------------------------

    def on_request(self, stream: Stream, block: HeaderBlock, end_stream: bool) -> None:
        ear = Ear(self, block.fields)
        ear.stream = stream
        ear.ended = end_stream
        ear.crediting = self.crediting
        stream.sink = ear
        self.streams.append(ear)

    def on_goaway(self, last_stream_id: int, error_code: int, debug: bytes) -> None:
        self.goaways.append((last_stream_id, error_code))

    def on_window(self) -> None:
        for ear in self.streams:
            if not ear.closed:
                ear.pump()

    # -- done -----------------------------------------------------------------------------------------

    def call(self, *extra: Field, head: Iterable[Field] = REQUEST, end: bool = False) -> Ear:
        """CLIENT: open a stream."""
        assert self.role == CLIENT
        ear = Ear(self)
        ear.crediting = self.crediting
        ear.stream = self.codec.open_stream(ear)
        self.codec.send_headers(ear.stream, HeaderBlock([*head, *extra]), end)
        self.streams.append(ear)
        return ear

    def respond(self, ear: Ear, *extra: Field, head: Iterable[Field] = RESPONSE, end: bool = False) -> None:
        """SERVER: the response head."""
        if not ear.closed:
            assert ear.stream is not None
            self.codec.send_headers(ear.stream, HeaderBlock([*head, *extra]), end)

    def answer(self, ear: Ear, data: bytes = b"", status: int = 0) -> None:
        """SERVER: a whole response."""
        self.respond(ear)
        ear.send(data)
        ear.end([(b"grpc-status", b"%d" % status)])

    def hang_up(self, exc: Exception | None = None) -> None:
        """Drop the connection."""
        self.pipe.outbox.clear()
        self.pipe.lose(exc)

    def write(self, data: bytes) -> None:
        """Send raw octets."""
        if not self.pipe.closing:
            self.pipe.protocol.data_received(data)

    def exchange(self) -> bool:
        """Move what each side has for the other. Whether anything moved."""
        moved = False
        if self.reading and (self.pipe.outbox or self.pipe.closing or self.pipe.ended):
            data = self.pipe.read()
            moved = bool(data)
            if self.speaking:
                self.codec.receive_data(data)
            else:
                self.raw += data
            if self.pipe.ended and self.closes:
                self.pipe.lose(None)
        if self.pipe.closed and not self.lost:
            self.lost = moved = True
        data = self.codec.data_to_send() if self.speaking else b""
        if data and not self.pipe.closed:
            self.pipe.protocol.data_received(data)
            moved = True
        return moved
