"""Our HPACK rules beside hpack's own decoder: the same fields or an error from both."""

from __future__ import annotations

from hpack import Decoder, Encoder, HPACKError
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.http2.errors import RemoteProtocolError
from sidecar.http2.field_compression import FieldDecoder, FieldEncoder, header_tuples
from sidecar.http2.interface import Field, HeaderBlock

NAMES = st.sampled_from([b":path", b"grpc-timeout", b"x-a", b"x-b", b"cookie", b"authorization"]) | st.binary(
    max_size=8
)
BLOCKS = st.lists(st.lists(st.tuples(NAMES, st.binary(max_size=30)), max_size=6), min_size=1, max_size=6)
UNLIMITED = 1 << 20


@settings(max_examples=80, deadline=None)
@given(blocks=BLOCKS, sizes=st.lists(st.integers(0, 5000), max_size=6))
def test_whatever_the_table_sizes_both_ends_stay_in_step(blocks: list[list[Field]], sizes: list[int]) -> None:
    encoder, ours, theirs = FieldEncoder(), FieldDecoder(UNLIMITED, UNLIMITED), Decoder()
    for number, fields in enumerate(blocks):
        for size in sizes[number : number + 3]:
            encoder.resize(size)
        encoded = encoder.encode(list(header_tuples(HeaderBlock(fields))))
        assert list(ours.decode(encoded).block.fields) == fields
        assert [(bytes(name), bytes(value)) for name, value in theirs.decode(encoded, raw=True)] == fields


@settings(max_examples=150, deadline=None)
@given(blocks=BLOCKS, cut=st.integers(0, 60), noise=st.binary(max_size=6))
def test_damaged_blocks_are_judged_as_hpack_judges_them(blocks: list[list[Field]], cut: int, noise: bytes) -> None:
    encoder, ours, theirs = Encoder(), FieldDecoder(UNLIMITED, UNLIMITED), Decoder()
    for fields in blocks[:-1]:
        encoded = encoder.encode(fields)
        ours.decode(encoded)
        theirs.decode(encoded, raw=True)
    damaged = bytearray(encoder.encode(blocks[-1]))
    damaged[cut : cut + len(noise)] = noise
    try:
        expected = [(bytes(name), bytes(value)) for name, value in theirs.decode(bytes(damaged), raw=True)]
    except (HPACKError, IndexError):
        expected = None
    try:
        heard = list(ours.decode(bytes(damaged)).block.fields)
    except RemoteProtocolError:
        heard = None
    may_have_too_many_size_updates = damaged[:1] != b"" and damaged[0] & 0xE0 == 0x20
    assert heard == expected or (heard is None and may_have_too_many_size_updates)
