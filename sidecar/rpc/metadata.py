"""What a request or response head means to a proxy, and the head that is sent on in its place.

Both readings are kept in `HeaderBlock.meaning`: a codec that interns blocks has them read once. The proxy owns
four fields and touches no other: grpc-timeout, grpc-previous-rpc-attempts, te, and, in its own answers,
grpc-status with grpc-message (GR-04, H2-33).
"""

from __future__ import annotations

from typing import Any, Final

from sidecar.http2.interface import Field, HeaderBlock, extend_block
from sidecar.rpc import status as codes
from sidecar.rpc.deadline import encode_timeout, parse_timeout

_TE: Final = (b"te", b"trailers")
_ATTEMPTS: Final = b"grpc-previous-rpc-attempts"
NO_STATUS: Final = -1
PUSHBACK: Final = b"grpc-retry-pushback-ms"
_SERVER_ERRORS: Final = 500  # HTTP statuses
NEVER: Final = -1  # as a pushback
_MOST_MILLISECONDS: Final = 2**31 - 1
_STATUS_DIGITS: Final = 3  # RFC 9110 section 15


class RequestHead:
    """One request head, read. `forward` is the block to send in its place, None when that is the block itself.

    (None, because a block keeps its reading: with a reference back, each would keep the other alive.)
    """

    __slots__ = (
        "authority",
        "content_type",
        "forward",
        "is_grpc",
        "malformed_timeout",
        "method",
        "methods",
        "path",
        "policy",
        "previous_attempts",
        "timeout",
    )

    def __init__(self, block: HeaderBlock) -> None:
        self.method: bytes = b""
        self.path: bytes = b""
        self.authority: bytes = b""
        self.content_type: bytes = b""
        self.timeout: float | None = None
        self.malformed_timeout = False
        self.previous_attempts: int = 0
        self.methods: object = None  # the table of methods that was last asked for it, and what that said
        self.policy: Any = None
        te = False
        timed = False
        host = b""
        for name, value in block.fields:
            if name == b":path":
                self.path = value
            elif name == b":method":
                self.method = value
            elif name == b":authority":
                self.authority = value
            elif name == b"content-type":
                self.content_type = value
            elif name == b"te":
                te = True
            elif name == b"host":
                host = value
            elif name == b"grpc-timeout":
                self.timeout = parse_timeout(value)
                timed = self.timeout is not None
                self.malformed_timeout = not timed
            elif name == _ATTEMPTS and value.isdigit() and len(value) < 6:
                self.previous_attempts = int(value)
        self.is_grpc: bool = is_grpc(self.content_type)
        needs_te = self.is_grpc and not te
        needs_authority = not self.authority and host != b""
        self.forward: HeaderBlock | None = None
        if needs_te or timed or needs_authority:
            self.forward = _rewritten(block, needs_te, timed, host if needs_authority else b"")


class ResponseHead:
    """One response head or trailing block, read.

    `grpc_status` is NO_STATUS where the field is absent, `http_status` 0 where it is absent or no number.
    """

    __slots__ = ("grpc_status", "http_status", "is_grpc", "message", "pushback")

    def __init__(self, block: HeaderBlock) -> None:
        self.http_status: int = 0
        self.grpc_status: int = NO_STATUS
        self.is_grpc: bool = False
        self.message: bytes = b""
        self.pushback: int | None = None  # milliseconds; negative: do not try again; None: not said (RT-09)
        for name, value in block.fields:
            if name == b":status":
                self.http_status = int(value) if len(value) == _STATUS_DIGITS and value.isdigit() else 0
            elif name == b"grpc-status":
                self.grpc_status = codes.parse_status(value)
            elif name == b"grpc-message":
                self.message = value
            elif name == b"content-type":
                self.is_grpc = is_grpc(value)
            elif name == PUSHBACK:
                self.pushback = parse_pushback(value)


# === reading ===


def is_grpc(content_type: bytes) -> bool:
    """Whether a content-type is gRPC's: the bare word, or followed by `+` or `;` (GR-01)."""
    return content_type.startswith(b"application/grpc") and content_type[16:17] in (b"", b"+", b";")


def parse_pushback(value: bytes) -> int:
    """Milliseconds to wait; NEVER for what is negative or no number as gRFC A6 writes it (RT-09)."""
    if value.isdigit() and len(value) <= 10 and (value == b"0" or value[:1] != b"0"):
        milliseconds = int(value)
        if milliseconds <= _MOST_MILLISECONDS:
            return milliseconds
    return NEVER


def read_request(block: HeaderBlock) -> RequestHead:
    """The meaning of a request head, read once per interned block."""
    meaning = block.meaning
    if isinstance(meaning, RequestHead):
        return meaning
    head = RequestHead(block)
    block.meaning = head
    return head


def read_response(block: HeaderBlock) -> ResponseHead:
    """The meaning of a response head or trailing block, read once per interned block."""
    meaning = block.meaning
    if isinstance(meaning, ResponseHead):
        return meaning
    head = ResponseHead(block)
    block.meaning = head
    return head


def status_of_answer(response: ResponseHead | None, http_status: int, grpc: bool) -> int:
    """The grpc-status of an answer that ends with `response`, None for plain END_STREAM (GR-32, GR-34).

    For a request that is not gRPC, only the HTTP statuses that speak against the endpoint are failures.
    """
    if response is not None and response.grpc_status >= 0:  # not NO_STATUS; compared so, it is no object
        return response.grpc_status
    if grpc or http_status >= _SERVER_ERRORS:
        return codes.status_of_http(http_status)
    return codes.OK


# === building ===


def _rewritten(block: HeaderBlock, needs_te: bool, timed: bool, host: bytes) -> HeaderBlock:
    """The head without grpc-timeout, with `te: trailers` and `:authority` where they were missing (H2-33, H2-34)."""
    fields: list[Field] = []
    if host:
        fields.append((b":authority", host))
    for field in block.fields:
        if timed and field[0] == b"grpc-timeout":
            continue
        fields.append(field)
    if needs_te:
        fields.append(_TE)
    return HeaderBlock(fields, block.never_indexed)


def build_request(head: RequestHead, block: HeaderBlock, remaining: float | None, attempts: int) -> HeaderBlock:
    """The head of one attempt for the request `block`, read as `head`.

    `remaining` is the time left in seconds, None without a deadline; `attempts` how many were made before this one.
    """
    made = head.forward if head.forward is not None else block
    if attempts and made.get(_ATTEMPTS) is not None:
        made = HeaderBlock([field for field in made.fields if field[0] != _ATTEMPTS], made.never_indexed)
    # A malformed timeout passes untouched, and a second one beside it would say more than the app did (GR-41).
    if remaining is not None and not head.malformed_timeout:
        made = extend_block(made, b"grpc-timeout", encode_timeout(remaining))
    if attempts:
        made = extend_block(made, _ATTEMPTS, b"%d" % (head.previous_attempts + attempts))
    return made


def build_trailers_only(head: RequestHead, status: int, message: str, pushback: float = 0.0) -> HeaderBlock:
    """An answer that the sidecar makes itself, to be sent with END_STREAM (GR-20). Plain HTTP for a plain request.

    `pushback` seconds is when the caller may try again (gRFC A6); 0.0: nothing is said of it. NEVER: the sidecar has
    retried already, or must not, so whoever hears this answer should not try again (F7).
    """
    if not head.is_grpc:
        return HeaderBlock(
            [
                (b":status", b"%d" % codes.PLAIN_STATUS.get(status, 502)),
                (b"x-sidecar-error", codes.encode_message(message)),
            ]
        )
    fields: list[Field] = [
        (b":status", b"200"),
        (b"content-type", head.content_type),
        (b"grpc-status", b"%d" % status),
        (b"grpc-message", codes.encode_message(message)),
        (b"x-sidecar-error", b"true"),
    ]
    if pushback:
        milliseconds = NEVER if pushback < 0 else max(1, round(pushback * 1e3))
        fields.append((PUSHBACK, b"%d" % milliseconds))
    return HeaderBlock(fields)


def forbid_retry(block: HeaderBlock) -> HeaderBlock:
    """The end of an answer, which now says that the RPC should not be tried again."""
    fields = [field for field in block.fields if field[0] != PUSHBACK]
    return HeaderBlock([*fields, (PUSHBACK, b"%d" % NEVER)], block.never_indexed)


def build_trailers(status: int, message: str) -> HeaderBlock:
    """Trailers that the sidecar makes itself after a head was forwarded (GR-33)."""
    return HeaderBlock(
        [
            (b"grpc-status", b"%d" % status),
            (b"grpc-message", codes.encode_message(message)),
            (b"x-sidecar-error", b"true"),
        ]
    )
