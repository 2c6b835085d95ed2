"""An RPC that is over, as the access log tells it. Called only for RPCs that somebody reads about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.telemetry.record import RpcRecord

if TYPE_CHECKING:
    from sidecar.proxy.exchange import Exchange


def account_of(exchange: Exchange, status: int, text: str, seconds: float) -> RpcRecord:
    """What became of it, with every attempt."""
    attempts = list(exchange.history or ())
    if exchange.last is not None and exchange.last not in attempts:
        attempts.append(exchange.last)
    return RpcRecord(
        upstream=exchange.dispatch.name,
        path=exchange.head.path,
        status=status,
        message=text,
        seconds=seconds,
        bytes_up=exchange.request.received,
        bytes_down=exchange.response.received if exchange.response is not None else 0,
        attempts=tuple(attempt.record() for attempt in attempts),
    )
