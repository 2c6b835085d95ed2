"""The wire form of protocol buffers, as far as it takes to read a small message by hand: numbers, kinds and values.

What a number means is the reader's affair; unknown ones are passed over, as protobuf asks. No message types, no groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import unpack
from typing import Final

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5
_SIZES: Final = {FIXED64: 8, FIXED32: 4}
_VARINT_OCTETS: Final = 10  # of a number of 64 bits


class Malformed(ValueError):
    """Not a message; the sentence says why."""


def read_fields(message: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Each field as (number, kind, value); the value is a number for VARINT, else octets. Raises Malformed."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if not number:
            raise Malformed("a field has the number 0")
        if kind == VARINT:
            value, at = _varint(message, at)
            yield number, kind, value
            continue
        if kind == BYTES:
            size, at = _varint(message, at)
        elif kind in _SIZES:
            size = _SIZES[kind]
        else:
            raise Malformed(f"field {number} is of the unknown kind {kind}")
        if size > len(message) - at:
            raise Malformed(f"field {number} ends after the message")
        yield number, kind, message[at : at + size]
        at += size


def read_double(octets: bytes) -> float:
    """The value of a FIXED64 field that is a double."""
    return float(unpack("<d", octets)[0])


def read_text(octets: bytes) -> str:
    """The value of a BYTES field that is a string. Raises Malformed."""
    try:
        return octets.decode()
    except UnicodeDecodeError:
        raise Malformed("a string is not UTF-8") from None


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends."""
    value = 0
    for place in range(_VARINT_OCTETS):
        if at >= len(message):
            raise Malformed("the message ends within a number")
        octet = message[at]
        at += 1
        value |= (octet & 0x7F) << (7 * place)
        if octet < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise Malformed("a number has more than 64 bits")
