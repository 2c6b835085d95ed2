"""XXH64, the hash that gRPC and Envoy place endpoints and RPCs by (gRFC A42), after its published specification.

Sixty lines instead of a dependency that would be compiled for this alone; the vectors are in its test.
"""

from __future__ import annotations

from typing import Final

_M: Final = 0xFFFFFFFFFFFFFFFF
_P1: Final = 0x9E3779B185EBCA87
_P2: Final = 0xC2B2AE3D27D4EB4F
_P3: Final = 0x165667B19E3779F9
_P4: Final = 0x85EBCA77C2B2AE63
_P5: Final = 0x27D4EB2F165667C5
_STRIPE: Final = 32
_LANE: Final = 8
_HALF: Final = 4


def xxh64(data: bytes, seed: int) -> int:
    """The 64-bit hash of `data`."""
    size = len(data)
    place = 0
    if size >= _STRIPE:
        a, b = (seed + _P1 + _P2) & _M, (seed + _P2) & _M
        c, d = seed & _M, (seed - _P1) & _M
        while place <= size - _STRIPE:
            a = _round(a, _lane(data, place, _LANE))
            b = _round(b, _lane(data, place + 8, _LANE))
            c = _round(c, _lane(data, place + 16, _LANE))
            d = _round(d, _lane(data, place + 24, _LANE))
            place += _STRIPE
        found = (_turned(a, 1) + _turned(b, 7) + _turned(c, 12) + _turned(d, 18)) & _M
        found = _merged(_merged(_merged(_merged(found, a), b), c), d)
    else:
        found = (seed + _P5) & _M
    found = (found + size) & _M
    while place + _LANE <= size:
        found = (_turned(found ^ _round(0, _lane(data, place, _LANE)), 27) * _P1 + _P4) & _M
        place += _LANE
    if place + _HALF <= size:
        found = (_turned(found ^ ((_lane(data, place, _HALF) * _P1) & _M), 23) * _P2 + _P3) & _M
        place += _HALF
    while place < size:
        octet = data[place]
        found = (_turned(found ^ ((octet * _P5) & _M), 11) * _P1) & _M
        place += 1
    found = ((found ^ (found >> 33)) * _P2) & _M
    found = ((found ^ (found >> 29)) * _P3) & _M
    return found ^ (found >> 32)


def _lane(data: bytes, place: int, width: int) -> int:
    """Little-endian octets from `place` on."""
    found = 0
    for at in range(width):
        octet = data[place + at]
        found |= octet << (8 * at)
    return found


def _turned(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (64 - bits))) & _M


def _round(held: int, lane: int) -> int:
    return (_turned((held + lane * _P2) & _M, 31) * _P1) & _M


def _merged(found: int, held: int) -> int:
    return ((found ^ _round(0, held)) * _P1 + _P4) & _M
