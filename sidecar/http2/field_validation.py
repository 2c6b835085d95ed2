"""Which field blocks are malformed: RFC 9113 section 8, with the choices that a careful intermediary makes.

Pure functions on a list of fields. Each answers with the reason, a plain phrase without any field value in it, or
with None if the block may be forwarded. Nothing here knows of streams, frames or limits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

Fields = Sequence[tuple[bytes, bytes]]
Rule = Callable[[bytes], str | None]

# Section 8.2.1. A colon is legal only as the first octet of a pseudo field.
_ILLEGAL_IN_NAME: Final = re.compile(rb"[\x00-\x20A-Z:\x7f-\xff]")
_ILLEGAL_IN_VALUE: Final = re.compile(rb"[\x00\r\n]")
_SURROUNDING: Final = b" \t"

# Section 8.2.2: they speak of one HTTP/1 connection. Rejected, never stripped.
_CONNECTION_SPECIFIC: Final = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)
_NEVER_IN_TRAILERS: Final = frozenset((b"content-length", b"host", b"te"))

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")  # RFC 9110 section 5.6.2
_SCHEME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*\Z")  # RFC 3986 section 3.1
_ILLEGAL_IN_PATH: Final = re.compile(rb"[\x00-\x20#\x7f]")
_ILLEGAL_IN_AUTHORITY: Final = re.compile(rb"[\x00-\x20/?#@\\\x7f]")  # '@': no userinfo (section 8.3.1)
_STATUS: Final = re.compile(rb"[1-9][0-9][0-9]\Z")
_FIRST_FINAL_STATUS: Final = 200
_CONTENT_LENGTH: Final = re.compile(rb"[0-9]{1,19}\Z")  # 19 digits pass 2^63 octets


def malformed_request(fields: Fields) -> str | None:
    """Why a request head must not be forwarded, or None."""
    reason, pseudo = _pseudo_fields(fields, _REQUEST_PSEUDO)
    return (
        reason or _malformed_control_data(pseudo) or _malformed_host(fields, pseudo) or _malformed_fields(fields, True)
    )


def malformed_response(fields: Fields) -> str | None:
    """Why a response head, final or informational, must not be forwarded, or None."""
    reason, pseudo = _pseudo_fields(fields, _RESPONSE_PSEUDO)
    if reason is None and b":status" not in pseudo:
        reason = ":status is missing"
    return reason or _malformed_fields(fields, False)


def malformed_trailers(fields: Fields) -> str | None:
    """Why a trailing block must not be forwarded, or None."""
    for name, _ in fields:
        if name.startswith(b":"):
            return "a pseudo field in trailers"
        if name in _NEVER_IN_TRAILERS:
            return "a field in trailers that frames or routes the message"
    return _malformed_fields(fields, False)


def content_length(fields: Fields) -> int | None:
    """The announced payload of a block that was found well-formed, or None if it announces none."""
    for name, value in fields:
        if name == b"content-length":
            return int(value)
    return None


def status_of(fields: Fields) -> int:
    """The status code of a response head that was found well-formed."""
    return int(dict(fields)[b":status"])


def is_informational(fields: Fields) -> bool:
    """Whether a well-formed response head is a 1xx."""
    return status_of(fields) < _FIRST_FINAL_STATUS


def _method(value: bytes) -> str | None:
    return None if _TOKEN.match(value) else ":method is not a token"


def _scheme(value: bytes) -> str | None:
    return None if _SCHEME.match(value) else ":scheme is not a scheme"


def _path(value: bytes) -> str | None:
    return ":path has an octet that no path may have" if _ILLEGAL_IN_PATH.search(value) else None


def _authority(value: bytes) -> str | None:
    return ":authority is not host and port" if _ILLEGAL_IN_AUTHORITY.search(value) else None


def _status(value: bytes) -> str | None:
    if not _STATUS.match(value):
        return ":status is not three digits"
    return "status 101 does not exist in HTTP/2" if value == b"101" else None  # section 8.6


_REQUEST_PSEUDO: Final[dict[bytes, Rule]] = {
    b":method": _method,
    b":scheme": _scheme,
    b":path": _path,
    b":authority": _authority,
}
_RESPONSE_PSEUDO: Final[dict[bytes, Rule]] = {b":status": _status}


def _pseudo_fields(fields: Fields, defined: dict[bytes, Rule]) -> tuple[str | None, dict[bytes, bytes]]:
    """Section 8.3: only the defined ones, none twice, none empty, all of them first."""
    pseudo: dict[bytes, bytes] = {}
    regular_seen = False
    for name, value in fields:
        if not name.startswith(b":"):
            regular_seen = True
            continue
        rule = defined.get(name)
        if rule is None:
            return "an undefined pseudo field", pseudo
        if regular_seen:
            return "a pseudo field after a regular one", pseudo
        if name in pseudo:
            return "a pseudo field twice", pseudo
        reason = rule(value) if value else "an empty pseudo field"
        if reason is not None:
            return reason, pseudo
        pseudo[name] = value
    return None, pseudo


def _malformed_control_data(pseudo: dict[bytes, bytes]) -> str | None:
    """Section 8.3.1, and 8.5 for CONNECT. The path starts with '/' so that no rule on paths can be passed by."""
    method = pseudo.get(b":method")
    if method is None:
        return ":method is missing"
    if method == b"CONNECT":
        if b":scheme" in pseudo or b":path" in pseudo:
            return "CONNECT with :scheme or :path"
        return None if b":authority" in pseudo else "CONNECT without :authority"
    if b":scheme" not in pseudo:
        return ":scheme is missing"
    path = pseudo.get(b":path")
    if path is None:
        return ":path is missing"
    if path.startswith(b"/") or (path == b"*" and method == b"OPTIONS"):
        return None
    return ":path does not start with '/'"


def _malformed_host(fields: Fields, pseudo: dict[bytes, bytes]) -> str | None:
    """Section 8.3.1: one host at most, and it says what :authority says (gRFC A41)."""
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) > 1:
        return "host twice"
    authority = pseudo.get(b":authority")
    if not hosts:
        return None if authority is not None else "neither :authority nor host"
    if authority is None:
        return None if hosts[0] and _authority(hosts[0]) is None else "host is not host and port"
    return None if hosts[0] == authority else "host differs from :authority"


def _malformed_fields(fields: Fields, request: bool) -> str | None:
    """Sections 8.2.1, 8.2.2 and 8.1.1: what holds for every block."""
    lengths = 0
    for name, value in fields:
        if not name or _ILLEGAL_IN_NAME.search(name, 1 if name.startswith(b":") else 0):
            return "a field name with an illegal octet, or none"
        if _ILLEGAL_IN_VALUE.search(value):
            return "a field value with NUL, CR or LF"
        if value and (value[0] in _SURROUNDING or value[-1] in _SURROUNDING):
            return "a field value that starts or ends with white space"
        if name in _CONNECTION_SPECIFIC:
            return "a field that is specific to an HTTP/1 connection"
        if name == b"te" and not (request and value == b"trailers"):
            return "te says something else than 'trailers'"
        if name == b"content-length":
            lengths += 1
            if lengths > 1:
                return "content-length twice"
            if not _CONTENT_LENGTH.match(value):
                return "content-length is not a number"
    return None
