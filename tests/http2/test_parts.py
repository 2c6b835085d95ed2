"""Payload that is passed on from where it was received, and what both codecs answer who offers it.

Only the native codec can do it. The reference codec says no each time, and the same octets go as copies.
"""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest

from sidecar.http2 import constants as c
from sidecar.http2.codec import codec_name
from sidecar.http2.errors import LocalProtocolError
from sidecar.http2.interface import Codec, CodecSettings, HeaderBlock, Stream
from tests import frames
from tests.http2.conftest import MakeScript
from tests.http2.script import TRAILERS, RecordingStream, Script

WINDOW = c.SETTINGS_INITIAL_WINDOW_SIZE
MUCH = bytes(range(251)) * 400
LEAST, MOST_PARTS = 4096, 64  # octets that are offered in place; parts that are queued at a time


def sending(client: MakeScript, window: int = 1_000_000, more: int = 1_000_000) -> tuple[Script, Stream]:
    script = client()
    script.receive(frames.settings((WINDOW, window)), frames.window_update(0, more))
    stream = script.open()
    script.sent()
    script.heard()
    return script, stream


def give(script: Script, stream: Stream, whole: bytes, offset: int, size: int, *, end_stream: bool = False) -> None:
    """As a part where that is possible, else as a copy."""
    taken = script.codec.send_part(stream, whole, offset, size, end_stream)
    assert taken == (codec_name(type(script.codec)) == "native")
    if not taken:
        assert script.codec.send_data(stream, whole[offset : offset + size], end_stream) == size


# -- what we send ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 4096, 16_384, 16_385, 40_000])
def test_a_part_leaves_as_the_frames_that_its_copy_would_be(client: MakeScript, size: int) -> None:
    script, stream = sending(client)
    give(script, stream, MUCH, 7, size)
    sent = script.sent("Data")
    assert b"".join(one.data for one in sent) == MUCH[7 : 7 + size]
    copied, other = sending(client)
    copied.codec.send_data(other, MUCH[7 : 7 + size], False)
    assert [len(one.data) for one in sent] == [len(one.data) for one in copied.sent("Data")]


@pytest.mark.parametrize("size", [1, 16_384, 16_385])
def test_the_last_frame_of_a_part_ends_the_stream(client: MakeScript, size: int) -> None:
    script, stream = sending(client)
    give(script, stream, MUCH, 7, size, end_stream=True)
    sent = script.sent("Data")
    assert [one.end_stream for one in sent] == [False] * (len(sent) - 1) + [True]
    assert b"".join(one.data for one in sent) == MUCH[7 : 7 + size]
    assert stream.local_closed
    with pytest.raises(LocalProtocolError, match="cannot send"):
        script.codec.send_data(stream, b"more", False)


def test_what_is_queued_leaves_in_the_order_of_the_commands(client: MakeScript) -> None:
    script, first = sending(client)
    second = script.open()
    give(script, first, MUCH, 0, 5000)
    give(script, second, MUCH, 5000, 20_000)
    script.codec.send_data(first, b"copied", False)
    give(script, first, MUCH, 30_000, 5000)
    script.codec.send_trailers(first, HeaderBlock(TRAILERS))
    script.codec.send_data(second, b"", True)
    sent = script.sent()
    assert [(one.kind, one.stream_id, len(one.data)) for one in sent] == [
        ("Headers", 3, 0),
        ("Data", 1, 5000),
        ("Data", 3, 16_384),
        ("Data", 3, 3616),
        ("Data", 1, 6),
        ("Data", 1, 5000),
        ("Headers", 1, 0),
        ("Data", 3, 0),
    ]
    assert sent[5].data == MUCH[30_000:35_000]


def test_an_answer_to_the_peer_overtakes_parts(client: MakeScript) -> None:
    script, stream = sending(client)
    give(script, stream, MUCH, 0, 5000)
    script.receive(frames.ping())
    kinds = [one.kind for one in script.sent()]
    assert sorted(kinds) == ["Data", "Ping"]
    if codec_name(type(script.codec)) == "native":
        assert kinds[0] == "Ping"
    give(script, stream, MUCH, 5000, 5000)
    assert [one.data for one in script.sent()] == [MUCH[5000:10_000]]


def test_a_part_is_queued_whole_or_not_at_all(client: MakeScript) -> None:
    for narrow in ("stream", "connection", "output"):
        script, stream = sending(client, 5000 if narrow == "stream" else 1_000_000)
        if narrow == "connection":
            script.codec.send_data(script.open(), bytes(1_000_000), False)
            script.codec.send_data(script.open(), bytes(c.DEFAULT_WINDOW - 5000), False)
            script.sent()
        if narrow == "output":
            script.codec.limit_output(5000)
        assert not script.codec.send_part(stream, MUCH, 0, 5001, False)
        assert script.sent() == []
        give(script, stream, MUCH, 0, 4999)
        assert script.codec.send_data(stream, MUCH, False) == 1, f"{narrow}: a part counts as its copy does"


def test_no_more_parts_are_queued_than_one_write_can_name(client: MakeScript) -> None:
    script, stream = sending(client)
    if codec_name(type(script.codec)) == "native":
        for n in range(MOST_PARTS):
            assert script.codec.send_part(stream, MUCH, n, 10, False)
    assert not script.codec.send_part(stream, MUCH, 64, 10, False)
    script.codec.send_data(stream, MUCH, False)
    script.sent()
    give(script, stream, MUCH, 64, 10)


@pytest.mark.parametrize(("offset", "size"), [(-1, 5), (0, 0), (0, -3), (0, 100_401), (100_400, 1), (sys.maxsize, 9)])
def test_octets_that_are_not_there_are_our_bug(client: MakeScript, offset: int, size: int) -> None:
    script, stream = sending(client)
    if codec_name(type(script.codec)) == "native":
        with pytest.raises(LocalProtocolError):
            script.codec.send_part(stream, MUCH, offset, size, False)
    assert script.sent() == []


def test_a_part_needs_a_stream_that_can_send(client: MakeScript) -> None:
    script, stream = sending(client)
    script.codec.send_data(stream, b"", True)
    script.sent()
    if codec_name(type(script.codec)) == "native":
        with pytest.raises(LocalProtocolError, match="cannot send"):
            script.codec.send_part(stream, MUCH, 0, 5000, False)
    alive = script.open()
    script.breaks(frames.raw(c.DATA, 0, 0, b"on no stream"))
    assert not script.codec.send_part(alive, MUCH, 0, 5000, False)
    assert script.sent() == []


def test_a_part_comes_after_the_head(server: MakeScript) -> None:
    script = server()
    stream = script.request()
    if codec_name(type(script.codec)) == "native":
        with pytest.raises(LocalProtocolError, match="before its head"):
            script.codec.send_part(stream, MUCH, 0, 5000, False)
    assert script.sent() == []


@pytest.mark.parametrize("end", ["taken", "codec gone"])
def test_octets_are_held_until_they_have_left(client: MakeScript, end: str) -> None:
    script, stream = sending(client)
    whole = bytes(50_000)
    before = sys.getrefcount(whole)
    give(script, stream, whole, 0, 50_000)
    assert (sys.getrefcount(whole) > before) == (codec_name(type(script.codec)) == "native")
    if end == "taken":
        script.sent()
    else:
        del script, stream
        gc.collect()
    assert sys.getrefcount(whole) == before


# -- what we receive ------------------------------------------------------------------------------------


class Taker(RecordingStream):
    """Takes what is offered in place, if it is told to."""

    def __init__(self, heard: list[Any], *, takes: bool) -> None:
        super().__init__(heard)
        self.takes = takes
        self.parts: list[bytes] = []
        self.got = b""
        self.ended = False

    def on_data(self, data: bytes, end_stream: bool) -> None:
        self.got += data
        self.ended = end_stream

    def on_part(self, whole: bytes, offset: int, size: int, end_stream: bool) -> bool:
        self.parts.append(whole[offset : offset + size])
        if self.takes:
            self.got += whole[offset : offset + size]
            self.ended = end_stream
        return self.takes


@pytest.mark.parametrize("takes", [True, False])
def test_every_octet_is_heard_once_wherever_the_reads_begin(server: MakeScript, takes: bool) -> None:
    script = server()
    stream = script.request()
    taker = stream.sink = Taker([], takes=takes)
    sizes = [100, 5000, 16_380, LEAST, LEAST - 1, 16_000]
    at = 0
    octets = b""
    for size in sizes:
        octets += frames.data(1, MUCH[at : at + size], padding=3)
        at += size
    script.receive(octets, frames.data(1, MUCH[at : at + 6000], end_stream=True))
    assert (taker.got, taker.ended) == (MUCH[: at + 6000], True)
    script.codec.acknowledge_received_data(stream, at + 6000)
    with pytest.raises(LocalProtocolError):
        script.codec.acknowledge_received_data(stream, 1)


def test_what_is_large_and_lies_whole_in_one_read_is_offered_in_place(codec: type[Codec]) -> None:
    script = Script(codec, c.SERVER, CodecSettings(), lambda octets: [octets])
    stream = script.request()
    taker = stream.sink = Taker([], takes=True)
    large = frames.data(1, MUCH[:5000])
    script.receive(large, frames.data(1, MUCH[: LEAST - 1]), frames.data(1, MUCH[:LEAST]))
    native = codec_name(codec) == "native"
    assert taker.parts == ([MUCH[:5000], MUCH[:LEAST]] if native else [])
    taker.parts.clear()
    script.codec.receive_data(large[:3000])
    script.codec.receive_data(large[3000:] + large)
    assert taker.parts == ([MUCH[:5000]] if native else []), "not the one in two reads"
    script.receive(frames.data(1, MUCH[:6000], end_stream=True))
    assert taker.parts == ([MUCH[:5000], MUCH[:6000]] if native else [])
    assert taker.ended


def test_a_bug_in_who_is_offered_a_part_costs_the_connection(codec: type[Codec]) -> None:
    class Broken(RecordingStream):
        def on_part(self, whole: bytes, offset: int, size: int, end_stream: bool) -> bool:
            raise RuntimeError("a bug")

        def on_data(self, data: bytes, end_stream: bool) -> None:
            raise RuntimeError("a bug")

    script = Script(codec, c.SERVER, CodecSettings(), lambda octets: [octets])
    script.request().sink = Broken([])
    with pytest.raises(RuntimeError, match="a bug"):
        script.receive(frames.data(1, MUCH[:5000]))
    if codec_name(codec) == "native":
        assert script.sent("GoAway")[-1].error_code == c.INTERNAL_ERROR
