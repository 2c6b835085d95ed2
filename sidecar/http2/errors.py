"""What can go wrong on an HTTP/2 connection, and whose fault it was.

`RemoteProtocolError`: the peer broke the rules; the codec has already queued the GOAWAY, the caller writes
what `data_to_send` returns and closes. `LocalProtocolError`: our own code asked for something illegal; it is
a bug and costs that connection only.
"""

from __future__ import annotations

from sidecar.http2.constants import INTERNAL_ERROR, PROTOCOL_ERROR, error_name


class ProtocolError(Exception):
    """Base of both. `error_code` is the RFC 9113 section 7 code that goes into the GOAWAY."""

    error_code: int = PROTOCOL_ERROR

    def __init__(self, message: str, error_code: int | None = None) -> None:
        super().__init__(message)
        if error_code is not None:
            self.error_code = error_code

    def __str__(self) -> str:
        return f"{super().__str__()} ({error_name(self.error_code)})"


class RemoteProtocolError(ProtocolError):
    """The peer broke the rules of the connection."""


class LocalProtocolError(ProtocolError):
    """We asked the codec for something illegal."""

    error_code = INTERNAL_ERROR


class StreamsExhausted(LocalProtocolError):
    """No stream id is left, or the peer's limit is reached: use another connection (H2-71, H2-74)."""


class HeaderListTooLarge(LocalProtocolError):
    """The block exceeds the peer's MAX_HEADER_LIST_SIZE; nothing was sent and the stream is untouched (H2-26)."""
