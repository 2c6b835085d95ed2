"""gRPC status codes, and what becomes of an HTTP/2 error code or an HTTP status when no grpc-status came.

The tables are those of the gRPC HTTP/2 protocol text and of http-grpc-status-mapping; nothing here looks at a stream.
"""

from __future__ import annotations

from typing import Final

from sidecar.http2 import constants as h2

OK: Final = 0
CANCELLED: Final = 1
UNKNOWN: Final = 2
INVALID_ARGUMENT: Final = 3
DEADLINE_EXCEEDED: Final = 4
NOT_FOUND: Final = 5
ALREADY_EXISTS: Final = 6
PERMISSION_DENIED: Final = 7
RESOURCE_EXHAUSTED: Final = 8
FAILED_PRECONDITION: Final = 9
ABORTED: Final = 10
OUT_OF_RANGE: Final = 11
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
UNAVAILABLE: Final = 14
DATA_LOSS: Final = 15
UNAUTHENTICATED: Final = 16

STATUS_NAMES: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)

# RST_STREAM code -> grpc-status. What is not listed, and every unknown code, is INTERNAL (RFC 9113 section 7).
RESET_STATUS: Final[dict[int, int]] = {
    h2.REFUSED_STREAM: UNAVAILABLE,
    h2.CANCEL: CANCELLED,
    h2.ENHANCE_YOUR_CALM: RESOURCE_EXHAUSTED,
    h2.INADEQUATE_SECURITY: PERMISSION_DENIED,
}

HTTP_OK: Final = 200  # the only :status of a gRPC answer

# HTTP :status -> grpc-status, used only where grpc-status is absent. What is not listed is UNKNOWN.
HTTP_STATUS: Final[dict[int, int]] = {
    400: INTERNAL,
    401: UNAUTHENTICATED,
    403: PERMISSION_DENIED,
    404: UNIMPLEMENTED,
    429: UNAVAILABLE,
    431: INTERNAL,
    502: UNAVAILABLE,
    503: UNAVAILABLE,
    504: UNAVAILABLE,
}

# grpc-status -> HTTP :status for answers that the sidecar makes to requests that are not gRPC (GR-01).
PLAIN_STATUS: Final[dict[int, int]] = {
    CANCELLED: 499,
    DEADLINE_EXCEEDED: 504,
    PERMISSION_DENIED: 403,
    RESOURCE_EXHAUSTED: 503,
    UNIMPLEMENTED: 404,
    INTERNAL: 502,
    UNAVAILABLE: 503,
}


def status_of_reset(error_code: int, deadline_passed: bool) -> int:
    """The grpc-status of a stream that the peer reset. A CANCEL after the deadline is DEADLINE_EXCEEDED."""
    if error_code == h2.CANCEL and deadline_passed:
        return DEADLINE_EXCEEDED
    return RESET_STATUS.get(error_code, INTERNAL)


def status_of_http(status: int) -> int:
    """The grpc-status of a response that carries none."""
    return HTTP_STATUS.get(status, UNKNOWN)


def status_name(status: int) -> str:
    """The protocol's word; a number outside 0..16 shows as itself."""
    return STATUS_NAMES[status] if 0 <= status < len(STATUS_NAMES) else str(status)


def parse_status(value: bytes) -> int:
    """The number in a grpc-status field; UNKNOWN when it is no status (as grpc-go takes it)."""
    if value.isdigit() and len(value) <= 2:
        status = int(value)
        if status < len(STATUS_NAMES):
            return status
    return UNKNOWN


def encode_message(text: str) -> bytes:
    """grpc-message: UTF-8, then %XX for all but 0x20-0x24 and 0x26-0x7e (GR-21)."""
    out = bytearray()
    for byte in text.encode("utf-8", "replace"):
        if 0x20 <= byte <= 0x7E and byte != 0x25:
            out.append(byte)
        else:
            out += b"%%%02X" % byte
    return bytes(out)
