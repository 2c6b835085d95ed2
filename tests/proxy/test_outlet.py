"""What a codec has queued, on its way into a real socket: from where it lies, whole, in order."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from sidecar.http2 import constants as c
from sidecar.http2.interface import Codec, HeaderBlock, Stream, StreamSink
from sidecar.proxy.outlet import open_outlet
from tests import frames
from tests.http2.script import REQUEST
from tests.proxy.wired import COMPILED, LOOPS, MUCH, Ear, Play, build_engine, join, received, tcp_pair


def opened(codec: Codec) -> Stream:
    """A stream of a client whose peer takes all it can say."""
    codec.initiate_connection()
    wide = 2**31 - 1
    codec.receive_data(
        frames.settings((c.SETTINGS_INITIAL_WINDOW_SIZE, wide)) + frames.window_update(0, wide - c.DEFAULT_WINDOW)
    )
    stream = codec.open_stream(StreamSink())
    codec.send_headers(stream, HeaderBlock(REQUEST), False)
    return stream


def say(codec: Codec, stream: Stream, part: int) -> bytes:
    """Something large, in place if the codec can do that, and something small behind it."""
    size = 4096 + 61 * part
    if not codec.send_part(stream, MUCH, part, size):
        codec.send_data(stream, MUCH[part : part + size], False)
    codec.send_data(stream, b"small", False)
    return MUCH[part : part + size] + b"small"


@pytest.mark.parametrize("count", [1, 40, 600], ids=["one", "a turn's", "more than a socket takes"])
def test_what_a_codec_has_queued_leaves_whole_and_in_order(play: Play, count: int) -> None:
    async def body(transport: asyncio.Transport, ear: Ear, peer: socket.socket) -> None:
        outlet = open_outlet(transport)
        stream = opened(ear.codec)
        said = []
        written = 0
        for part in range(count):
            said.append(say(ear.codec, stream, part))
            if part % 40 == 39:
                written += outlet.write_queued(ear.codec)
                assert not ear.codec.has_data_to_send()
        written += outlet.write_queued(ear.codec)
        assert outlet.write_queued(ear.codec) == 0
        assert (transport.get_write_buffer_size() > 0) == (count == 600)
        heard = await asyncio.to_thread(received, peer, written)
        assert payload(heard) == b"".join(said)

    play(body)


def payload(wire: bytes) -> bytes:
    """All that the DATA frames carry behind a client's preface."""
    found = bytearray()
    at = len(c.PREFACE)
    while at < len(wire):
        size = int.from_bytes(wire[at : at + 3], "big")
        if wire[at + 3] == c.DATA:
            found += wire[at + 9 : at + 9 + size]
        at += 9 + size
    return bytes(found)


@pytest.mark.skipif(not COMPILED, reason="other transports say themselves what they make of it")
@pytest.mark.parametrize("end", ["ours", "theirs"])
def test_what_a_codec_has_queued_for_a_socket_that_is_gone_is_dropped(end: str) -> None:
    async def scene() -> None:
        ours, theirs = tcp_pair()
        transport, ear = await join(build_engine(), ours)
        outlet = open_outlet(transport)
        stream = opened(ear.codec)
        if end == "ours":
            transport.abort()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        for part in range(3):
            say(ear.codec, stream, part)
            outlet.write_queued(ear.codec)
            assert not ear.codec.has_data_to_send()
            await asyncio.sleep(0)
        assert isinstance(await ear.lost, OSError if end == "theirs" else type(None))

    with asyncio.Runner(loop_factory=LOOPS["native"]) as runner:
        runner.run(scene())
