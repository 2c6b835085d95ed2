"""What compiled code must survive and Python survives for nothing: wrong types, None, calls from inside a callback."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import Any

import pytest

from sidecar.http2.constants import CANCEL, CLIENT, SERVER
from sidecar.http2.errors import LocalProtocolError
from sidecar.http2.interface import CodecSettings, HeaderBlock, Sink, Stream, StreamSink
from tests import frames
from tests.conftest import CODEC_NAMES
from tests.http2.script import REQUEST, RESPONSE, TRAILERS, RecordingSink, Script, whole

if "native" not in CODEC_NAMES:
    pytest.skip("the native codec is not built here", allow_module_level=True)

from sidecar.http2.native import NativeCodec


def script(role: int) -> Script:
    return Script(NativeCodec, role, CodecSettings(), whole)


@pytest.mark.parametrize("wrong", [None, "text", 7, [b"a"]], ids=["None", "str", "int", "list"])
def test_wrong_types_are_refused_at_the_door(wrong: Any) -> None:
    client = script(CLIENT)
    stream = client.open()
    codec = client.codec
    calls = [
        lambda: codec.receive_data(wrong),
        lambda: codec.send_headers(codec.open_stream(StreamSink()), wrong, False),
        lambda: codec.send_trailers(stream, wrong),
        lambda: codec.send_data(stream, None if wrong == 7 else wrong, False),
        lambda: codec.send_data(wrong, b"x", False),
        lambda: codec.reset_stream(wrong, CANCEL),
        lambda: codec.acknowledge_received_data(wrong, 1),
        lambda: codec.send_ping(wrong),
        lambda: codec.send_goaway(0, 0, wrong),
        lambda: NativeCodec(CLIENT, CodecSettings(), wrong),
        lambda: NativeCodec(CLIENT, wrong, Sink()),
    ]
    for call in calls:
        with pytest.raises((TypeError, AttributeError, LocalProtocolError)):
            call()
    client.respond(end_stream=True)
    assert client.heard("headers") == [("headers", 1, RESPONSE, True)], "nothing of it cost the connection"


@pytest.mark.parametrize(
    "fields", [[(b"a",)], [(b"a", b"b", b"c")], [("a", "b")], [[b"a", b"b"]], [(bytearray(b"a"), b"b")]]
)
def test_a_block_of_something_else_than_pairs_of_bytes_is_refused(fields: Any) -> None:
    client = script(CLIENT)
    stream = client.codec.open_stream(StreamSink())
    with pytest.raises((TypeError, ValueError)):
        client.codec.send_headers(stream, HeaderBlock(fields), False)


def test_a_stream_of_another_connection_is_refused() -> None:
    one, other = script(CLIENT), script(CLIENT)
    stream = other.open()
    one.open()
    for call in (
        lambda: one.codec.send_data(stream, b"x", False),
        lambda: one.codec.reset_stream(stream, CANCEL),
        lambda: one.codec.acknowledge_received_data(stream, 0),
        lambda: one.codec.reset_stream(Stream(1, StreamSink()), CANCEL),
    ):
        with pytest.raises(LocalProtocolError):
            call()


def test_a_stream_without_a_sink_is_deaf() -> None:
    client = script(CLIENT)
    stream: Any = client.open()
    stream.sink = None
    client.respond()
    client.receive(frames.data(1, b"x"), frames.window_update(1, 9), frames.rst_stream(1, CANCEL))
    assert stream.remote_closed


def test_receive_data_is_not_a_command() -> None:
    server = script(SERVER)
    refused: list[type[Exception]] = []

    def again(stream: Stream) -> None:
        try:
            server.codec.receive_data(frames.ping())
        except LocalProtocolError as error:
            refused.append(type(error))

    server.sink.then = again
    server.request()
    assert refused == [LocalProtocolError]


@pytest.mark.parametrize("word", ["headers", "data", "trailers", "window", "informational"])
def test_a_sink_may_end_everything_from_any_callback(word: str) -> None:
    client = script(CLIENT)
    streams = [client.open() for _ in range(40)]

    def burn(heard: str) -> None:
        if heard == word:
            for stream in streams:
                client.codec.reset_stream(stream, CANCEL)
            client.codec.send_goaway(0, 0)
            client.codec.data_to_send()
            gc.collect()

    for stream in streams:
        stream.sink.then = burn  # type: ignore[attr-defined]
    client.codec.send_data(streams[0], bytes(70_000), False)
    client.respond(fields=((b":status", b"103"),))
    client.respond()
    client.receive(frames.window_update(0, 1000), frames.window_update(1, 1000), frames.data(1, b"x"))
    client.receive(client.peer.headers(1, TRAILERS, end_stream=True))
    assert client.codec.open_streams == 0 or word == "window"


def test_a_bug_in_a_sink_costs_its_connection_and_says_so_to_the_peer() -> None:
    server = script(SERVER)

    def fail(stream: Stream) -> None:
        raise ZeroDivisionError

    server.sink.then = fail
    with pytest.raises(ZeroDivisionError):
        server.request()
    assert [(one.kind, one.error_code) for one in server.sent()] == [("GoAway", 2)]
    server.receive(server.peer.headers(3, REQUEST))
    assert server.sent() == []


def test_a_codec_with_open_streams_leaves_no_cycle_that_the_collector_cannot_see() -> None:
    class Holder(StreamSink):
        """Holds what holds it."""

        def __init__(self) -> None:
            self.codec: object = None

    holder = Holder()
    codec = NativeCodec(CLIENT, CodecSettings(), Sink())
    holder.codec = codec
    block = HeaderBlock(REQUEST)
    block.meaning = holder
    for _ in range(5):
        codec.send_headers(codec.open_stream(holder), block, False)
    gone = weakref.ref(holder)
    del holder, codec, block
    gc.collect()
    assert gone() is None


def test_ten_thousand_streams_come_and_go_in_any_order() -> None:
    sink, peer = RecordingSink(), frames.Peer()
    codec = NativeCodec(SERVER, CodecSettings(max_concurrent_streams=20_000, max_streams_per_read=20_000), sink)
    heads = b"".join(peer.headers(2 * n + 1, REQUEST) for n in range(10_000))
    codec.receive_data(frames.PREFACE + frames.settings() + heads)
    assert codec.open_streams == 10_000
    for step in range(7):
        for n in range(step, 10_000, 7):
            codec.reset_stream(sink.streams[2 * n + 1], CANCEL)
    assert codec.open_streams == 0
    assert sorted(one[2] for one in frames.split(codec.data_to_send()) if one[0] == 3) == [*range(1, 20_000, 2)]


def test_what_is_counted_is_counted_right_and_what_is_immortal_stays_so() -> None:
    eternal = (None, True, False, b"", ())
    before = [sys.getrefcount(thing) for thing in eternal]
    sink = Sink()
    counted = sys.getrefcount(sink)
    for _ in range(200):
        codec = NativeCodec(SERVER, CodecSettings(), sink)
        assert sys.getrefcount(sink) == counted + 1
        codec.initiate_connection()
        del codec
    one = Script(NativeCodec, SERVER, CodecSettings(), whole)
    for stream_id in range(1, 401, 2):
        stream = one.request(stream_id, end_stream=True)
        one.codec.send_headers(stream, HeaderBlock(RESPONSE), False)
        one.codec.send_trailers(stream, HeaderBlock(TRAILERS))
    if sys.version_info >= (3, 12):
        assert [sys.getrefcount(thing) for thing in eternal] == before
    del one, stream
    gc.collect()
    assert sys.getrefcount(sink) == counted
