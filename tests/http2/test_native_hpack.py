"""The native HPACK against the hpack package: what one writes the other reads, and what is broken stays broken."""

from __future__ import annotations

from typing import Any

import pytest
from hpack import Decoder, Encoder, HeaderTuple, HPACKError, NeverIndexedHeaderTuple
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.http2.interface import HeaderBlock, extend_block
from tests.conftest import CODEC_NAMES
from tests.http2.script import REQUEST, RESPONSE, TRAILERS

if "native" not in CODEC_NAMES:
    pytest.skip("the native codec is not built here", allow_module_level=True)

from sidecar.http2.hpack_decoder import HpackDecoder
from sidecar.http2.hpack_encoder import HpackEncoder
from sidecar.http2.huffman import decode_text, encode_text

WHOLE, OVERSIZED, ABUSIVE, BROKEN = range(4)

NAMES = st.sampled_from(
    b":path :authority content-type te user-agent grpc-timeout authorization cookie x-y".split()
) | st.binary(min_size=1, max_size=40)
VALUES = st.sampled_from([b"", b"trailers", b"/a.B/C", b"application/grpc", b"1S"]) | st.binary(max_size=300)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=12)
CONNECTION = st.lists(FIELDS | st.just(list(REQUEST)) | st.just(list(RESPONSE)), min_size=1, max_size=25)
TABLE_SIZES = st.none() | st.sampled_from([0, 33, 100, 1000, 4096])


def decoder(max_fields: int = 128, max_list_size: int = 1 << 20) -> Any:
    return HpackDecoder(max_fields, max_list_size)


# -- decoding -------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(blocks=CONNECTION, data=st.data())
def test_what_hpack_encodes_is_decoded(blocks: list[list[tuple[bytes, bytes]]], data: st.DataObject) -> None:
    encoder, ours, theirs = Encoder(), decoder(), Decoder(max_header_list_size=1 << 20)
    for fields in blocks:
        size = data.draw(TABLE_SIZES)
        if size is not None:
            encoder.header_table_size = size
        secret = data.draw(st.booleans())
        kind = NeverIndexedHeaderTuple if secret else HeaderTuple
        octets = encoder.encode([kind(*field) for field in fields], data.draw(st.booleans()))
        outcome, block = ours.decode_block(octets)
        secrets = {bytes(one[0]) for one in theirs.decode(octets, raw=True) if isinstance(one, NeverIndexedHeaderTuple)}
        assert outcome == WHOLE
        assert list(block.fields) == fields
        assert block.never_indexed == secrets
        assert block.size == sum(len(name) + len(value) + 32 for name, value in fields)


@settings(max_examples=150, deadline=None)
@given(blocks=CONNECTION, repeats=st.lists(st.integers(0, 24), max_size=30))
def test_remembered_blocks_mean_what_the_table_says_now(
    blocks: list[list[tuple[bytes, bytes]]], repeats: list[int]
) -> None:
    """Blocks that insert nothing come again and again, between blocks that shift every index."""
    inserting, ours = Encoder(), decoder()
    reader = Decoder(max_header_list_size=1 << 20)
    octets = [inserting.encode(fields) for fields in blocks]
    for again in repeats:
        octets.append(octets[again % len(octets)])
    for encoded in octets:
        expected: list[tuple[bytes, bytes]] | None
        try:
            expected = [(bytes(name), bytes(value)) for name, value in reader.decode(encoded, raw=True)]
        except (HPACKError, IndexError):
            expected = None
        outcome, block = ours.decode_block(encoded)
        if expected is None:
            assert outcome == BROKEN
            return
        assert outcome == WHOLE
        assert list(block.fields) == expected


def test_a_block_that_changed_nothing_is_the_same_object_from_the_third_time_on() -> None:
    encoder, ours = Encoder(), decoder()
    ours.decode_block(encoder.encode(REQUEST))
    octets = encoder.encode(REQUEST)
    ours.decode_block(octets)
    remembered = ours.decode_block(octets)[1]
    assert ours.decode_block(octets)[1] is remembered
    ours.decode_block(encoder.encode([(b"new", b"entry")]))
    assert ours.decode_block(octets)[1] is not remembered, "every index means something else now"


def test_a_block_that_repeats_is_the_same_object_on_every_connection() -> None:
    """What is known of it, such as how it leaves on the app's connection, is then known for all of them."""
    seen = set()
    for _ in range(3):
        encoder, ours = Encoder(), decoder()
        ours.decode_block(encoder.encode(REQUEST))
        octets = encoder.encode(REQUEST)
        ours.decode_block(octets)
        seen.add(id(ours.decode_block(octets)[1]))
    assert len(seen) == 1


def test_a_block_with_a_secret_stays_with_its_connection() -> None:
    plain, secret = HeaderTuple(b"x-token", b"abc"), NeverIndexedHeaderTuple(b"x-token", b"abc")
    blocks = []
    for field in (plain, secret, secret):
        encoder, ours = Encoder(), decoder()
        blocks.append([ours.decode_block(encoder.encode([field]))[1] for _ in range(4)][-1])
    assert [block.never_indexed for block in blocks] == [
        frozenset(),
        frozenset((b"x-token",)),
        frozenset((b"x-token",)),
    ]
    assert len({id(block) for block in blocks}) == 3


def test_an_indexed_field_is_a_reference() -> None:
    encoder, ours = Encoder(), decoder()
    first = ours.decode_block(encoder.encode(REQUEST))[1]
    second = ours.decode_block(encoder.encode(REQUEST))[1]
    assert all(one is other for one, other in zip(first.fields, second.fields, strict=True))


BROKEN_BLOCKS = {
    "index 0": b"\x80",
    "index past both tables": b"\xbe",
    "index far past both tables": b"\xff\xff\xff\xff\x0f",
    "name index past both tables": b"\x7e\x01a",
    "integer that does not end": b"\xff\x80",
    "integer of many octets": b"\xff" + b"\x80" * 20 + b"\x01",
    "string longer than the block": b"\x40\x05abc",
    "string without a length": b"\x40",
    "value missing": b"\x40\x01a",
    "huffman padding of zeros": b"\x00\x81\x18\x00",
    "huffman padding of eight bits": b"\x00\x82\x1f\xff\x00",
    "huffman EOS": b"\x00\x84\xff\xff\xff\xff\x00",
    "size update above the offer": b"\x3f\xe2\x1f",
    "size update behind a field": b"\x82\x20",
    "three size updates": b"\x20\x20\x20\x82",
}


@pytest.mark.parametrize("octets", BROKEN_BLOCKS.values(), ids=BROKEN_BLOCKS.keys())
def test_broken_blocks_are_refused(octets: bytes) -> None:
    assert decoder().decode_block(octets) == (BROKEN, None)


@settings(max_examples=500, deadline=None)
@given(octets=st.lists(st.binary(max_size=60), max_size=6))
def test_any_octets_are_decoded_as_hpack_decodes_them(octets: list[bytes]) -> None:
    ours, reader = decoder(), Decoder(max_header_list_size=1 << 20)
    for one in octets:
        outcome, block = ours.decode_block(one)
        try:
            expected = [(bytes(name), bytes(value)) for name, value in reader.decode(one, raw=True)]
        except (HPACKError, IndexError):
            assert outcome == BROKEN
            return
        if outcome == BROKEN:  # ours knows two rules more: at most two size updates, integers of sane length
            return
        assert list(block.fields) == expected


def test_a_list_over_a_limit_is_not_kept_and_the_table_stays_right() -> None:
    encoder, ours = Encoder(), decoder(max_fields=4)
    assert ours.decode_block(encoder.encode([(b"n%d" % n, b"v") for n in range(5)])) == (OVERSIZED, None)
    outcome, block = ours.decode_block(encoder.encode([(b"n4", b"v")]))
    assert (outcome, block.fields) == (WHOLE, ((b"n4", b"v"),))


def test_a_list_far_over_a_limit_is_abuse() -> None:
    assert decoder(max_fields=4).decode_block(b"\x82" * 16)[0] == OVERSIZED
    assert decoder(max_fields=4).decode_block(b"\x82" * 17)[0] == ABUSIVE
    assert decoder(max_list_size=100).decode_block(b"\x82" * 9)[0] == OVERSIZED
    assert decoder(max_list_size=100).decode_block(b"\x82" * 10)[0] == ABUSIVE


# -- encoding -------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(blocks=CONNECTION, data=st.data())
def test_hpack_decodes_what_is_encoded(blocks: list[list[tuple[bytes, bytes]]], data: st.DataObject) -> None:
    ours, reader = HpackEncoder(), Decoder(max_header_list_size=1 << 20)
    made = [HeaderBlock(fields) for fields in blocks]
    for turn in data.draw(st.lists(st.integers(0, len(made) - 1), min_size=1, max_size=40)):
        size = data.draw(TABLE_SIZES)
        if size is not None:
            ours.resize(size)
            reader.max_allowed_table_size = size
        decoded = reader.decode(ours.encode_block(made[turn]), raw=True)
        assert tuple((bytes(name), bytes(value)) for name, value in decoded) == made[turn].fields


@settings(max_examples=150, deadline=None)
@given(blocks=CONNECTION, added=st.lists(st.tuples(st.integers(0, 24), NAMES, VALUES), min_size=1), data=st.data())
def test_an_extended_block_is_read_as_its_base_and_one_more(
    blocks: list[list[tuple[bytes, bytes]]], added: list[tuple[int, bytes, bytes]], data: st.DataObject
) -> None:
    """The same bases again and again, each time with another field, while the table moves and changes its size."""
    encoder, theirs = HpackEncoder(), Decoder(max_header_list_size=1 << 20)
    bases = [HeaderBlock(fields) for fields in blocks]
    for index, name, value in added:
        size = data.draw(TABLE_SIZES)
        if size is not None:
            encoder.resize(size)
            theirs.max_allowed_table_size = size
        base = bases[index % len(bases)]
        block = extend_block(base, name, value)
        if data.draw(st.booleans()):
            block = extend_block(block, b"grpc-previous-rpc-attempts", b"1")
        for sent in (block, base):
            read = theirs.decode(encoder.encode_block(sent), raw=True)
            assert [(bytes(one[0]), bytes(one[1])) for one in read] == list(sent.fields)


@settings(max_examples=100, deadline=None)
@given(blocks=CONNECTION, turns=st.lists(st.integers(0, 24), min_size=1, max_size=40))
def test_blocks_from_the_wire_leave_as_they_came_however_often(
    blocks: list[list[tuple[bytes, bytes]]], turns: list[int]
) -> None:
    """Those that came more than once may leave by heart, even with a field that most RPCs have of their own."""
    incoming, ours, outgoing = Encoder(), decoder(), HpackEncoder()
    reader = Decoder(max_header_list_size=1 << 20)
    for turn in turns:
        fields = [*blocks[turn % len(blocks)], (b"content-length", b"71")]
        block = ours.decode_block(incoming.encode(fields))[1]
        for _ in range(3):
            read = reader.decode(outgoing.encode_block(block), raw=True)
            assert [(bytes(name), bytes(value)) for name, value in read] == fields


def test_a_field_enters_the_table_on_its_second_way_out() -> None:
    ours = HpackEncoder()
    block = HeaderBlock([(b"x-tenant", b"alpha")])
    lengths = [len(ours.encode_block(block)) for _ in range(3)]
    assert lengths[2] == 1 < lengths[1] <= lengths[0]


def test_what_differs_in_every_rpc_never_enters_the_table() -> None:
    ours = HpackEncoder()
    for name in (b"grpc-timeout", b"traceparent", b"tracestate", b"x-request-id", b"content-length"):
        block = HeaderBlock([(name, b"12")])
        assert [ours.encode_block(block) for _ in range(4)] == [ours.encode_block(block)] * 4
    assert ours.generation == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"authorization", b"Bearer x"),
        (b"proxy-authorization", b"Basic x"),
        (b"x-consul-token", b"t"),
        (b"cookie", b"id=1"),
        (b"x-key", b"arrived as never indexed"),
        (b":method", b"POST"),
    ],
)
def test_secrets_leave_as_never_indexed_literals(name: bytes, value: bytes) -> None:
    ours, reader = HpackEncoder(), Decoder()
    block = HeaderBlock([(name, value)], frozenset((b"x-key", b":method")))
    for _ in range(3):
        (field,) = reader.decode(ours.encode_block(block), raw=True)
        assert isinstance(field, NeverIndexedHeaderTuple)
        assert (bytes(field[0]), bytes(field[1])) == (name, value)


def test_a_field_is_secret_only_where_its_block_says_so() -> None:
    ours, reader = HpackEncoder(), Decoder()
    field = (b"x-key", b"k")
    plain, secret = HeaderBlock((field,)), HeaderBlock((field,), frozenset((b"x-key",)))
    for _ in range(3):
        ours.encode_block(plain)
    assert ours.encode_block(plain) == b"\xbe"
    assert ours.encode_block(secret)[0] == 0x10
    assert len(reader.decode(HpackEncoder().encode_block(plain))) == 1


def test_a_lowered_and_raised_table_is_announced_as_minimum_and_final_size() -> None:
    ours = HpackEncoder()
    block = HeaderBlock(TRAILERS)
    ours.encode_block(block)
    ours.resize(100)
    ours.resize(0)
    ours.resize(2000)
    assert ours.encode_block(block).startswith(b"\x20\x3f\xb1\x0f")
    ours.resize(2000)
    assert ours.encode_block(block)[0] & 0xE0 != 0x20, "nothing changed, nothing is announced"


def test_the_table_is_never_larger_than_4096_octets() -> None:
    ours = HpackEncoder()
    ours.resize(1 << 20)
    assert ours.encode_block(HeaderBlock(TRAILERS))[0] & 0xE0 != 0x20


def test_a_recipe_lives_no_longer_than_its_table() -> None:
    ours, reader = HpackEncoder(), Decoder()
    block = HeaderBlock(REQUEST)
    for turn in range(200):
        for _ in range(4):
            decoded = reader.decode(ours.encode_block(block), raw=True)
            assert tuple((bytes(name), bytes(value)) for name, value in decoded) == REQUEST
        filler = HeaderBlock([(b"x-filler", b"%d" % turn * 50)])
        for _ in range(2):
            reader.decode(ours.encode_block(filler), raw=True)


# -- Huffman --------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(text=st.binary(max_size=3000))
def test_huffman_reads_back_what_it_wrote(text: bytes) -> None:
    assert decode_text(encode_text(text)) == text


def test_every_octet_has_the_code_of_the_rfc() -> None:
    theirs = Encoder().huffman_coder
    for octet in range(256):
        assert encode_text(bytes((octet,)) * 3) == theirs.encode(bytes((octet,)) * 3)
