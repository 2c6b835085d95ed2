"""HPACK (RFC 7541) for the reference codec: hpack's tables, integers and Huffman code, under our own rules.

The decoder stops collecting at the limits while it decodes, and keeps its table right nevertheless. The encoder
keeps never-indexed fields out of every table, also where one would match. Nothing here knows of frames or streams.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from hpack import Encoder, HeaderTuple, HPACKError, NeverIndexedHeaderTuple
from hpack.hpack import decode_integer, encode_integer
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from sidecar.http2.constants import COMPRESSION_ERROR, DEFAULT_HEADER_TABLE_SIZE, ENHANCE_YOUR_CALM
from sidecar.http2.errors import RemoteProtocolError
from sidecar.http2.interface import Field, HeaderBlock

MAX_SIZE_UPDATES: Final = 2  # per block; RFC 7541 section 4.2 needs no more (SE-14)
ABUSE_FACTOR: Final = 4  # over the limits: a stream error; over this many times the limits: the connection (SE-01)
FIELD_OVERHEAD: Final = 32  # RFC 9113 section 6.5.2

# Names that never enter a table whatever the sender thought of it (H2-24). Short cookies can be guessed one by one.
_SECRET_NAMES: Final = frozenset((b"authorization", b"proxy-authorization", b"x-consul-token"))
_SHORT_COOKIE: Final = 20  # nghttp2 20


class DecodedBlock(NamedTuple):
    """What a block came to. `oversized` blocks hold only the fields that fitted."""

    block: HeaderBlock
    oversized: bool


class FieldDecoder:
    """The decoding context of one connection."""

    def __init__(self, max_fields: int, max_list_size: int) -> None:
        self._table = HeaderTable()
        self._max_fields = max_fields
        self._max_list_size = max_list_size

    def decode(self, encoded: bytes) -> DecodedBlock:
        """Decode a whole block. Raises `RemoteProtocolError`: COMPRESSION_ERROR, or ENHANCE_YOUR_CALM on abuse."""
        try:
            return self._decode(encoded)
        except (HPACKError, IndexError) as error:
            raise RemoteProtocolError("the field block cannot be decoded", COMPRESSION_ERROR) from error

    def _decode(self, encoded: bytes) -> DecodedBlock:
        fields: list[Field] = []
        never_indexed: set[bytes] = set()
        count = size = size_updates = position = 0
        while position < len(encoded):
            first = encoded[position]
            if first & 0xE0 == 0x20:
                size_updates += 1
                if count or size_updates > MAX_SIZE_UPDATES:
                    raise RemoteProtocolError("a misplaced table size update", COMPRESSION_ERROR)
                position = self._update_size(encoded, position)
                continue
            name, value, position = self._decode_field(encoded, position, first)
            count += 1
            size += len(name) + len(value) + FIELD_OVERHEAD
            if count > ABUSE_FACTOR * self._max_fields or size > ABUSE_FACTOR * self._max_list_size:
                raise RemoteProtocolError("the field list is far over the limit", ENHANCE_YOUR_CALM)
            if count <= self._max_fields and size <= self._max_list_size:
                fields.append((name, value))
                if first & 0xF0 == 0x10:
                    never_indexed.add(name)
        oversized = count > self._max_fields or size > self._max_list_size
        return DecodedBlock(HeaderBlock(fields, frozenset(never_indexed)), oversized)

    def _update_size(self, encoded: bytes, position: int) -> int:
        """Section 6.3. We never announce another table than the default one."""
        new_size, consumed = decode_integer(encoded[position : position + 8], 5)
        if new_size > DEFAULT_HEADER_TABLE_SIZE:
            raise RemoteProtocolError("a table size update above what was offered", COMPRESSION_ERROR)
        self._table.maxsize = new_size
        return position + consumed

    def _decode_field(self, encoded: bytes, position: int, first: int) -> tuple[bytes, bytes, int]:
        """Sections 6.1 and 6.2: an indexed field, or a literal with, without or never with indexing."""
        indexing = bool(first & 0x40)
        prefix_bits = 7 if first & 0x80 else 6 if indexing else 4
        index, consumed = decode_integer(encoded[position : position + 8], prefix_bits)
        position += consumed
        if first & 0x80:
            name, value = self._table.get_by_index(index)
            return name, value, position
        if index:
            name = self._table.get_by_index(index)[0]
        else:
            name, position = _decode_string(encoded, position)
        value, position = _decode_string(encoded, position)
        if indexing:
            self._table.add(name, value)
        return name, value, position


class FieldEncoder(Encoder):
    """hpack's encoder, but a never-indexed field always leaves as a never-indexed literal (section 6.2.3)."""

    def add(self, to_add: tuple[bytes, bytes], sensitive: bool, huffman: bool = False) -> bytes:
        """One field in its wire form."""
        if not sensitive:
            return super().add(to_add, sensitive, huffman)
        return b"\x10" + b"".join(self._encode_string(text) for text in to_add)

    def resize(self, table_size: int) -> None:
        """The peer's HEADER_TABLE_SIZE, never above the default; the next block says so (section 4.2, H2-23)."""
        table_size = min(table_size, DEFAULT_HEADER_TABLE_SIZE)  # rust h2 0.4.17 caps at 4096 too
        if table_size == self.header_table_size:
            return
        self.header_table_size = table_size
        smallest = min(self.table_size_changes)
        self.table_size_changes = [table_size] if smallest == table_size else [smallest, table_size]

    def _encode_string(self, text: bytes) -> bytes:
        coded = self.huffman_coder.encode(text)
        length = encode_integer(len(coded), 7)
        length[0] |= 0x80
        return bytes(length) + coded


def header_tuples(block: HeaderBlock) -> Iterable[HeaderTuple]:
    """The fields of a block, each marked with whether a table may hold it."""
    for name, value in block.fields:
        secret = (
            name in block.never_indexed or name in _SECRET_NAMES or (name == b"cookie" and len(value) < _SHORT_COOKIE)
        )
        yield NeverIndexedHeaderTuple(name, value) if secret else HeaderTuple(name, value)


def _decode_string(encoded: bytes, position: int) -> tuple[bytes, int]:
    """Section 5.2: a length, and that many octets, Huffman coded or not."""
    huffman = encoded[position] & 0x80
    length, consumed = decode_integer(encoded[position : position + 8], 7)
    start = position + consumed
    text = encoded[start : start + length]
    if len(text) != length:
        raise RemoteProtocolError("a string longer than its block", COMPRESSION_ERROR)
    return (decode_huffman(text) if huffman else text), start + length
