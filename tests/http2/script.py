"""One codec against a scripted peer: octets in, what the sinks heard and the frames it answered out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sidecar.http2.constants import CLIENT, SERVER
from sidecar.http2.errors import RemoteProtocolError
from sidecar.http2.interface import Codec, CodecSettings, HeaderBlock, Sink, Stream, StreamSink
from tests import frames
from tests.frames import Peer, Seen

REQUEST = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/greeter.Greeter/SayHello"),
    (b":authority", b"greeter"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
)
RESPONSE = ((b":status", b"200"), (b"content-type", b"application/grpc"))
TRAILERS = ((b"grpc-status", b"0"),)

Heard = tuple[Any, ...]
Split = Callable[[bytes], list[bytes]]


def whole(octets: bytes) -> list[bytes]:
    """All at once."""
    return [octets]


def byte_by_byte(octets: bytes) -> list[bytes]:
    """The worst that a network can do; bulk comes in pieces that no frame begins or ends with."""
    size = 1 if len(octets) < 20_000 else 97
    return [octets[i : i + size] for i in range(0, len(octets), size)]


class RecordingStream(StreamSink):
    """Writes down what it hears; may do something about it."""

    def __init__(self, heard: list[Heard], stream_id: int = 0) -> None:
        self.heard = heard
        self.stream_id = stream_id
        self.then: Callable[[str], None] | None = None

    def _note(self, word: str, *rest: object) -> None:
        self.heard.append((word, self.stream_id, *rest))
        if self.then is not None:
            self.then(word)

    def on_informational(self, block: HeaderBlock) -> None:
        self._note("informational", block.fields)

    def on_headers(self, block: HeaderBlock, end_stream: bool) -> None:
        self._note("headers", block.fields, end_stream)

    def on_data(self, data: bytes, end_stream: bool) -> None:
        self._note("data", bytes(data), end_stream)

    def on_trailers(self, block: HeaderBlock) -> None:
        self._note("trailers", block.fields)

    def on_reset(self, error_code: int, remote: bool) -> None:
        self._note("reset", error_code, remote)

    def on_window(self) -> None:
        self._note("window")


class RecordingSink(Sink):
    """The same for the connection. Keeps the streams by id and the blocks as they came."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.streams: dict[int, Stream] = {}
        self.blocks: list[HeaderBlock] = []
        self.then: Callable[[Stream], None] | None = None

    def on_request(self, stream: Stream, block: HeaderBlock, end_stream: bool) -> None:
        stream.sink = RecordingStream(self.heard, stream.id)
        self.streams[stream.id] = stream
        self.blocks.append(block)
        self.heard.append(("request", stream.id, block.fields, end_stream))
        if self.then is not None:
            self.then(stream)

    def on_settings(self) -> None:
        self.heard.append(("settings",))

    def on_goaway(self, last_stream_id: int, error_code: int, debug: bytes) -> None:
        self.heard.append(("goaway", last_stream_id, error_code, bytes(debug)))

    def on_ping_ack(self, payload: bytes) -> None:
        self.heard.append(("ping_ack", bytes(payload)))

    def on_window(self) -> None:
        self.heard.append(("window", 0))


class Script:
    """A codec in one role, and the peer's side of its connection."""

    def __init__(
        self, codec: type[Codec], role: int, settings: CodecSettings, split: Split, started: bool = True
    ) -> None:
        self.sink = RecordingSink()
        self.codec = codec(role, settings, self.sink)
        self.peer = Peer()
        self.split = split
        self.codec.initiate_connection()
        if started:
            self.receive(frames.PREFACE if role == SERVER else b"", frames.settings(), frames.settings(ack=True))
            self.sent()
            self.heard()

    # -- what the peer does ---------------------------------------------------------------------------

    def receive(self, *octets: bytes) -> None:
        """These octets arrive."""
        for piece in self.split(b"".join(octets)):
            self.codec.receive_data(piece)

    def breaks(self, *octets: bytes) -> int:
        """These octets cost the connection: the error code, which the GOAWAY must say too."""
        try:
            self.receive(*octets)
        except RemoteProtocolError as error:
            last = self.sent()[-1]
            assert (last.kind, last.error_code) == ("GoAway", error.error_code)
            return error.error_code
        raise AssertionError(f"the connection survived; heard {self.sink.heard}, sent {self.sent()}")

    def request(self, stream_id: int = 1, end_stream: bool = False, fields: frames.Fields = REQUEST) -> Stream:
        """A request head arrives and is accepted."""
        self.receive(self.peer.headers(stream_id, fields, end_stream))
        return self.sink.streams[stream_id]

    def respond(self, stream_id: int = 1, end_stream: bool = False, fields: frames.Fields = RESPONSE) -> None:
        """A response head arrives."""
        self.receive(self.peer.headers(stream_id, fields, end_stream))

    # -- what the codec does --------------------------------------------------------------------------

    def open(self, end_stream: bool = False, fields: frames.Fields = REQUEST) -> Stream:
        """CLIENT: send a request head."""
        sink = RecordingStream(self.sink.heard)
        stream = self.codec.open_stream(sink)
        sink.stream_id = stream.id
        self.sink.streams[stream.id] = stream
        self.codec.send_headers(stream, HeaderBlock(list(fields)), end_stream)
        return stream

    def answer(self, stream: Stream, end_stream: bool = False) -> None:
        """SERVER: send a response head."""
        self.codec.send_headers(stream, HeaderBlock(RESPONSE), end_stream)

    # -- what came of it ------------------------------------------------------------------------------

    def heard(self, word: str | None = None) -> list[Heard]:
        """What the sinks heard since the last call, or the part of it that starts with `word`."""
        heard, self.sink.heard[:] = list(self.sink.heard), []
        return [one for one in heard if word is None or one[0] == word]

    def sent(self, kind: str | None = None) -> list[Seen]:
        """What the codec wrote since the last call, or the frames of one kind in it."""
        had_data = self.codec.has_data_to_send()
        wire = self.codec.data_to_send()
        assert had_data == bool(wire)
        return [one for one in self.peer.read(wire) if kind is None or one.kind == kind]

    def resets(self) -> list[tuple[int, int]]:
        """(stream, error code) of each RST_STREAM written since the last call."""
        return [(one.stream_id, one.error_code) for one in self.sent("RstStream")]


__all__ = ["CLIENT", "REQUEST", "RESPONSE", "SERVER", "TRAILERS", "RecordingStream", "Script", "byte_by_byte", "whole"]
