"""Field blocks: HEADERS, CONTINUATION and HPACK (H2-20 to H2-26, SE-14)."""

from __future__ import annotations

import pytest

from sidecar.http2 import constants as c
from sidecar.http2.errors import HeaderListTooLarge, LocalProtocolError
from sidecar.http2.interface import HeaderBlock, StreamSink, extend_block
from tests import frames
from tests.http2.conftest import MakeScript
from tests.http2.script import REQUEST, RESPONSE, TRAILERS, Script


def test_an_extended_block_is_its_base_and_one_more_field(client: MakeScript) -> None:
    base = HeaderBlock(REQUEST, frozenset((b"x-token",)))
    whole = HeaderBlock((*REQUEST, (b"grpc-timeout", b"1S")), base.never_indexed)
    block = extend_block(base, b"grpc-timeout", b"1S")
    assert (block.fields, block.size, block.never_indexed) == (whole.fields, whole.size, whole.never_indexed)
    script = client()
    for _ in range(4):  # until everything about its base is known by heart
        script.codec.send_headers(script.codec.open_stream(StreamSink()), block, True)
    sent = [tuple(head.fields) for head in script.sent("Headers")]
    assert sent == [whole.fields] * 4


@pytest.mark.parametrize("pieces", [2, 3, 9])
def test_a_block_in_pieces_is_one_block(server: MakeScript, pieces: int) -> None:
    script = server()
    script.receive(script.peer.headers(1, REQUEST, end_stream=True, pieces=pieces))
    assert script.heard() == [("request", 1, REQUEST, True)]


@pytest.mark.parametrize(
    "frame",
    [
        frames.data(1),
        frames.ping(),
        frames.raw(0x42, 0, 0, b"unknown"),
        frames.raw(c.CONTINUATION, frames.END_HEADERS, 3),
        frames.raw(c.HEADERS, frames.END_HEADERS, 1),
    ],
    ids=["data", "ping", "unknown", "other-stream", "headers"],
)
def test_an_open_block_takes_only_its_continuation(server: MakeScript, frame: bytes) -> None:
    script = server()
    start = frames.raw(c.HEADERS, 0, 1, script.peer.block(REQUEST))
    assert script.breaks(start, frame) == c.PROTOCOL_ERROR


def test_continuation_without_a_block_breaks_the_connection(server: MakeScript) -> None:
    script = server()
    script.request(1)
    assert script.breaks(frames.raw(c.CONTINUATION, frames.END_HEADERS, 1)) == c.PROTOCOL_ERROR


def test_blocks_of_refused_streams_still_feed_the_table(server: MakeScript) -> None:
    script = server(max_concurrent_streams=1)
    fields = (*REQUEST, (b"x-new-entry", b"kept"))
    stream = script.request(1)
    script.receive(script.peer.headers(3, fields, end_stream=True))
    assert script.resets() == [(3, c.REFUSED_STREAM)]
    script.codec.reset_stream(stream, c.CANCEL)
    script.request(5, fields=fields)
    assert script.heard("request")[-1] == ("request", 5, fields, False)


@pytest.mark.parametrize(
    "encoded",
    [
        b"\x80",  # index 0
        b"\xbe",  # index 62 of an empty dynamic table
        b"\xff\xff\xff\xff\xff\xff\x7f",  # an integer beyond measure
        b"\x3f\xe2\x1f",  # a size update to 4097
        b"\x82\x20",  # a size update after a field
        b"\x20\x20\x20\x82",  # three size updates
        b"\x00\x05abc",  # a name longer than its block
        b"\x00\x01a",  # no value at all
        b"\x00\x81\xff\x01a",  # eight bits of Huffman padding
        b"\x00\x81\x18\x01a",  # Huffman padding of zeros
        b"\x00\x84\xff\xff\xff\xff\x01a",  # a literal EOS
    ],
    ids=[
        "index-0",
        "index-unknown",
        "integer",
        "size-above",
        "size-late",
        "size-thrice",
        "name-cut",
        "value-missing",
        "huffman-long-padding",
        "huffman-zero-padding",
        "huffman-eos",
    ],
)
def test_a_block_that_cannot_be_decoded_breaks_the_connection(server: MakeScript, encoded: bytes) -> None:
    assert server().breaks(frames.raw(c.HEADERS, frames.END_HEADERS, 1, encoded)) == c.COMPRESSION_ERROR


def test_two_size_updates_at_the_start_are_fine(server: MakeScript) -> None:
    script = server()
    script.request(1)
    script.peer.encoder.header_table_size = 0
    script.peer.encoder.header_table_size = 1000
    script.request(3)
    assert script.heard("request")[-1] == ("request", 3, REQUEST, False)


def test_evicted_entries_are_gone(server: MakeScript) -> None:
    script = server()
    for number in range(30):
        script.request(2 * number + 1, fields=(*REQUEST, (b"x-%d" % number, bytes(b"v" * 400))))
    assert [one[2][-1][0] for one in script.heard("request")] == [b"x-%d" % number for number in range(30)]


# -- what we encode -------------------------------------------------------------------------------------


def _sent_requests(script: Script, *requests: frames.Fields) -> list[frames.Fields]:
    for fields in requests:
        script.open(fields=fields, end_stream=True)
    return [tuple(one.fields) for one in script.sent("Headers")]


def test_what_we_encode_an_independent_decoder_reads(client: MakeScript) -> None:
    requests = [(*REQUEST, (b"x-n", b"%d" % (number % 3)), (b"x-octets", bytes(range(33, 256)))) for number in range(9)]
    assert _sent_requests(client(), *requests) == requests


def test_a_lowered_table_size_is_announced_first(client: MakeScript) -> None:
    script = client()
    _sent_requests(script, REQUEST)
    script.receive(frames.settings((c.SETTINGS_HEADER_TABLE_SIZE, 0)))
    script.peer.decoder.max_allowed_table_size = 0
    assert _sent_requests(script, REQUEST, REQUEST) == [REQUEST, REQUEST]


def test_lowered_and_raised_again_both_are_announced(client: MakeScript) -> None:
    script = client()
    _sent_requests(script, REQUEST)
    size = c.SETTINGS_HEADER_TABLE_SIZE
    script.receive(frames.settings((size, 100), (size, 0), (size, 50)), frames.settings((size, 3000), (size, 3000)))
    script.open(end_stream=True)
    block = next(payload for kind, _, _, payload in frames.split(script.codec.data_to_send()) if kind == c.HEADERS)
    assert block.startswith(b"\x20\x3f\x99\x17"), "0, then 3000"


def test_our_table_never_grows_beyond_the_default(client: MakeScript) -> None:
    script = client()
    script.receive(frames.settings((c.SETTINGS_HEADER_TABLE_SIZE, 1_000_000)))
    many = [(*REQUEST, (b"x-%d" % number, b"v" * 200)) for number in range(60)]
    assert _sent_requests(script, *many) == many, "hpack's decoder would refuse a size update above 4096"


def test_a_block_larger_than_the_peers_frames_is_split(client: MakeScript) -> None:
    script = client()
    large = (*REQUEST, *((b"x-%d" % number, b"\x01" * 2000) for number in range(20)))
    stream = script.open(fields=large)
    script.codec.send_data(stream, b"after", True)
    headers, data = script.sent()
    assert headers.frames > 1
    assert (tuple(headers.fields), data.data) == (large, b"after")


def test_the_peers_list_size_is_respected_and_nothing_happened(client: MakeScript) -> None:
    script = client()
    script.receive(frames.settings((c.SETTINGS_MAX_HEADER_LIST_SIZE, 400)))
    script.sent()
    stream = script.codec.open_stream(StreamSink())
    with pytest.raises(HeaderListTooLarge):
        script.codec.send_headers(stream, HeaderBlock((*REQUEST, (b"x", b"v" * 400))), True)
    assert (script.sent(), script.codec.open_streams, script.codec.next_stream_id) == ([], 0, 1)
    script.open()
    assert script.sent("Headers")[0].stream_id == 1


def test_trailers_too_large_leave_the_stream_as_it_was(server: MakeScript) -> None:
    script = server()
    script.receive(frames.settings((c.SETTINGS_MAX_HEADER_LIST_SIZE, 200)))
    stream = script.request(1, end_stream=True)
    script.answer(stream)
    script.sent()
    with pytest.raises(HeaderListTooLarge):
        script.codec.send_trailers(stream, HeaderBlock([(b"grpc-message", b"m" * 200)]))
    script.codec.send_trailers(stream, HeaderBlock(TRAILERS))
    assert [one.end_stream for one in script.sent()] == [True]


def test_no_informational_head_follows_the_final_one(server: MakeScript) -> None:
    script = server()
    stream = script.request(1)
    script.answer(stream)
    with pytest.raises(LocalProtocolError):
        script.codec.send_informational(stream, HeaderBlock([(b":status", b"103")]))
    script.codec.send_data(stream, b"still well", True)
    assert [one.kind for one in script.sent()] == ["Headers", "Data"]


def test_nothing_is_sent_before_the_head(server: MakeScript) -> None:
    script = server()
    stream = script.request(1)
    with pytest.raises(LocalProtocolError):
        script.codec.send_data(stream, b"x", False)
    with pytest.raises(LocalProtocolError):
        script.codec.send_trailers(stream, HeaderBlock(TRAILERS))
    script.answer(stream, end_stream=True)
    assert [one.kind for one in script.sent()] == ["Headers"]


def test_a_head_is_sent_once(server: MakeScript) -> None:
    script = server()
    stream = script.request(1)
    script.answer(stream)
    with pytest.raises(LocalProtocolError):
        script.codec.send_headers(stream, HeaderBlock(RESPONSE), False)
    assert len(script.sent()) == 1


def test_nothing_is_sent_after_end_stream(server: MakeScript) -> None:
    script = server()
    stream = script.request(1)
    script.answer(stream, end_stream=True)
    with pytest.raises(LocalProtocolError):
        script.codec.send_data(stream, b"x", False)
    with pytest.raises(LocalProtocolError):
        script.codec.send_trailers(stream, HeaderBlock(TRAILERS))
    script.receive(frames.ping())
    assert sorted(one.kind for one in script.sent()) == ["Headers", "Ping"]
