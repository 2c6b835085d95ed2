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
    if not codec.send_part(stream, MUCH, part, size, False):
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


class Taker(StreamSink):
    """Takes everything, in place where that is offered."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.parts = 0

    def on_data(self, data: bytes, end_stream: bool) -> None:
        self.got += data

    def on_part(self, whole: bytes, offset: int, size: int, end_stream: bool) -> bool:
        self.got += whole[offset : offset + size]
        self.parts += 1
        return True


def test_a_frame_in_two_reads_is_heard_whole_and_a_channel_offers_it_in_place(
    play: Play, request: pytest.FixtureRequest
) -> None:
    async def body(transport: asyncio.Transport, ear: Ear, peer: socket.socket) -> None:
        taker = Taker()
        opened(ear.codec).sink = taker
        ear.on_take = ear.codec.receive_data
        wire = frames.raw(c.HEADERS, frames.END_HEADERS, 1, b"\x88")
        for start in range(0, 10 * 16_384, 16_384):
            wire += frames.data(1, MUCH[start : start + 16_384])
        for size in (15, 3000, 16_000, 20_000, len(wire)):  # the first ends within a frame header
            reads = len(ear.nows)
            peer.sendall(wire[:size])
            wire = wire[size:]
            while len(ear.nows) == reads:
                await asyncio.sleep(0)
        while len(taker.got) < 10 * 16_384:
            await asyncio.sleep(0)
        assert bytes(taker.got) == MUCH[: 10 * 16_384]
        if "native" in request.node.name:
            assert taker.parts == 10

    play(body)
