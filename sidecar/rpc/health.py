"""The two messages of grpc.health.v1, by hand: each has one field, and nothing else of protobuf is needed for them.

A request is `{string service = 1}`, a response `{ServingStatus status = 1}`. Fields that are not known are skipped.
"""

from __future__ import annotations

from typing import Final

CHECK: Final = b"/grpc.health.v1.Health/Check"
WATCH: Final = b"/grpc.health.v1.Health/Watch"

SERVING: Final = 1
SERVING_STATUS_NAMES: Final = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")

_SERVICE_TAG: Final = b"\x0a"  # field 1, length-delimited
_STATUS_TAG: Final = 0x08  # field 1, varint
_VARINT, _FIXED_64, _DELIMITED, _FIXED_32 = 0, 1, 2, 5  # wire types
_LONGEST_VARINT: Final = 10  # octets


def build_health_request(service: str) -> bytes:
    """A HealthCheckRequest. The empty name, which asks for the whole server, is the empty message."""
    name = service.encode()
    return _SERVICE_TAG + _build_varint(len(name)) + name if name else b""


def parse_health_response(message: bytes) -> int:
    """The ServingStatus of a HealthCheckResponse; UNKNOWN (0) when it states none. Raises ValueError."""
    status = 0
    at = 0
    while at < len(message):
        tag, at = _parse_varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _parse_varint(message, at)
            if tag == _STATUS_TAG:
                status = value
        elif kind == _DELIMITED:
            length, at = _parse_varint(message, at)
            at += length
        elif kind in (_FIXED_64, _FIXED_32):
            at += 8 if kind == _FIXED_64 else 4
        else:
            raise ValueError(f"wire type {kind} does not exist")
    if at > len(message):
        raise ValueError("the message ends in the middle of a field")
    return status


def serving_status_name(status: int) -> str:
    """The protocol's word; a number that it does not know shows as itself."""
    return SERVING_STATUS_NAMES[status] if status < len(SERVING_STATUS_NAMES) else str(status)


def _build_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _parse_varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift, octet in enumerate(message[at : at + _LONGEST_VARINT]):
        value |= (octet & 0x7F) << 7 * shift
        if octet < 0x80:
            return value, at + shift + 1
    raise ValueError("a number has no end")
