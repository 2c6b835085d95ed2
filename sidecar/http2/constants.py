"""The numbers of RFC 9113 and RFC 7541 that both codecs and their callers share. Nothing here decides."""

from __future__ import annotations

from typing import Final

# Roles (RFC 9113 section 2). Which one we are on a connection, never which way a proxy faces.
CLIENT: Final = 0
SERVER: Final = 1

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 section 3.4

FRAME_HEADER_LENGTH: Final = 9
DEFAULT_WINDOW: Final = 65_535  # section 6.9.2
DEFAULT_MAX_FRAME_SIZE: Final = 16_384  # section 6.5.2
LARGEST_MAX_FRAME_SIZE: Final = 16_777_215
LARGEST_WINDOW: Final = 2**31 - 1  # section 6.9.1
LARGEST_STREAM_ID: Final = 2**31 - 1  # section 5.1.1
DEFAULT_HEADER_TABLE_SIZE: Final = 4_096

# How many streams may be opened before the peer's SETTINGS arrive (H2-02; grpc-go and x/net 100).
INITIAL_MAX_CONCURRENT_STREAMS: Final = 100
# What a peer that states no limit is taken to allow. RFC: unlimited.
UNLIMITED_STREAMS: Final = 2**31 - 1

# Frame types (section 6).
DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

# Frame flags.
FLAG_ACK: Final = 0x1
FLAG_END_STREAM: Final = 0x1
FLAG_END_HEADERS: Final = 0x4
FLAG_PADDED: Final = 0x8
FLAG_PRIORITY: Final = 0x20

# SETTINGS identifiers (section 6.5.2).
SETTINGS_HEADER_TABLE_SIZE: Final = 0x1
SETTINGS_ENABLE_PUSH: Final = 0x2
SETTINGS_MAX_CONCURRENT_STREAMS: Final = 0x3
SETTINGS_INITIAL_WINDOW_SIZE: Final = 0x4
SETTINGS_MAX_FRAME_SIZE: Final = 0x5
SETTINGS_MAX_HEADER_LIST_SIZE: Final = 0x6

# Error codes (section 7). Unknown ones are treated as INTERNAL_ERROR (H2-16).
NO_ERROR: Final = 0x0
PROTOCOL_ERROR: Final = 0x1
INTERNAL_ERROR: Final = 0x2
FLOW_CONTROL_ERROR: Final = 0x3
SETTINGS_TIMEOUT: Final = 0x4
STREAM_CLOSED: Final = 0x5
FRAME_SIZE_ERROR: Final = 0x6
REFUSED_STREAM: Final = 0x7
CANCEL: Final = 0x8
COMPRESSION_ERROR: Final = 0x9
CONNECT_ERROR: Final = 0xA
ENHANCE_YOUR_CALM: Final = 0xB
INADEQUATE_SECURITY: Final = 0xC
HTTP_1_1_REQUIRED: Final = 0xD

ERROR_NAMES: Final[dict[int, str]] = {
    NO_ERROR: "NO_ERROR",
    PROTOCOL_ERROR: "PROTOCOL_ERROR",
    INTERNAL_ERROR: "INTERNAL_ERROR",
    FLOW_CONTROL_ERROR: "FLOW_CONTROL_ERROR",
    SETTINGS_TIMEOUT: "SETTINGS_TIMEOUT",
    STREAM_CLOSED: "STREAM_CLOSED",
    FRAME_SIZE_ERROR: "FRAME_SIZE_ERROR",
    REFUSED_STREAM: "REFUSED_STREAM",
    CANCEL: "CANCEL",
    COMPRESSION_ERROR: "COMPRESSION_ERROR",
    CONNECT_ERROR: "CONNECT_ERROR",
    ENHANCE_YOUR_CALM: "ENHANCE_YOUR_CALM",
    INADEQUATE_SECURITY: "INADEQUATE_SECURITY",
    HTTP_1_1_REQUIRED: "HTTP_1_1_REQUIRED",
}


def error_name(code: int) -> str:
    """The RFC's word for an error code; an unknown one shows as `UNKNOWN(0x..)`."""
    return ERROR_NAMES.get(code) or f"UNKNOWN(0x{code:x})"
