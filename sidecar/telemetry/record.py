"""One RPC as the access log tells it: written by the data path when somebody will read it, never otherwise."""

from __future__ import annotations

from msgspec import Struct


class AttemptRecord(Struct, frozen=True, kw_only=True):
    """One try on one endpoint."""

    endpoint: str
    status: int
    outcome: str
    reason: str  # why it was made: first, refused_stream, goaway, not_sent, ...
    detail: str  # what ended it, in words; empty when the endpoint answered
    seconds: float


class RpcRecord(Struct, frozen=True, kw_only=True):
    """One RPC as its caller saw it, with every attempt made for it."""

    upstream: str
    path: bytes
    status: int
    message: str
    seconds: float
    bytes_up: int
    bytes_down: int
    attempts: tuple[AttemptRecord, ...]
