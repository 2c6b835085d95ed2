"""Which RPCs a rule is for: by method and by metadata. The one noun that routes, mirrors and faults share.

A match costs what its rule looks at and no more: no regular expressions, so that no header value of a caller can make
it slow.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Final

from msgspec import Meta, Struct

from sidecar.http2.interface import Field

HEADER: Final = r"^:?[a-z0-9][a-z0-9_.-]*$"


class HeaderMatch(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One header that an RPC must have, or must not; the values of a repeated one are joined by commas."""

    name: Annotated[
        str, Meta(pattern=HEADER, description="The header, in lower case; never a binary one.", examples=["x-canary"])
    ]
    exact: Annotated[str | None, Meta(description="Its whole value.")] = None
    prefix: Annotated[str | None, Meta(description="What its value begins with.")] = None
    absent: Annotated[bool, Meta(description="The RPC must not have the header at all.")] = False


class MatchSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which RPCs are meant: those that fit everything that is given here; without any of it, all."""

    method: Annotated[
        str,
        Meta(
            pattern=r"^(/[^/*]+/([^/*]+|\*))?$",
            description="`/pkg.Service/Method`, or `/pkg.Service/*` for all methods of a service; empty: any.",
        ),
    ] = ""
    metadata: Annotated[tuple[HeaderMatch, ...], Meta(description="Headers that it must have, all of them.")] = ()


class Match:
    """A MatchSettings, ready to be asked."""

    __slots__ = ("_exact", "_headers", "_prefix")

    def __init__(self, settings: MatchSettings) -> None:
        method = settings.method.encode()
        self._exact = b"" if method.endswith(b"/*") else method
        self._prefix = method[:-1] if method.endswith(b"/*") else b""
        self._headers = [(header.name.encode("ascii"), _test_of(header)) for header in settings.metadata]

    def fits(self, path: bytes, fields: Sequence[Field]) -> bool:
        """Whether the RPC with this `:path` and these request fields is meant."""
        if self._exact and path != self._exact:
            return False
        if self._prefix and not path.startswith(self._prefix):
            return False
        return all(test(value_of(name, fields)) for name, test in self._headers)


def value_of(name: bytes, fields: Sequence[Field]) -> bytes | None:
    """The values of a header joined by commas, or None."""
    values = [value for key, value in fields if key == name]
    return b",".join(values) if values else None


def _test_of(header: HeaderMatch) -> Callable[[bytes | None], bool]:
    if header.absent:
        return lambda value: value is None
    if header.exact is not None:
        exact = header.exact.encode()
        return lambda value: value == exact
    if header.prefix is not None:
        prefix = header.prefix.encode()
        return lambda value: value is not None and value.startswith(prefix)
    return lambda value: value is not None
