"""The moment after which the app no longer wants its answer (GR-43). Only RPCs that have one pay for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.proxy import exchange_state
from sidecar.proxy.wheel import Alarm
from sidecar.rpc.outcome import TIMEOUT
from sidecar.rpc.status import DEADLINE_EXCEEDED

if TYPE_CHECKING:
    from sidecar.proxy.exchange import Exchange


class Deadline(Alarm):
    """Set when the exchange opens, cancelled when it ends."""

    __slots__ = ("exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self.tick = 0  # all that Alarm's own __init__ does: calling it costs an RPC more than setting its alarm
        self.exchange = exchange

    def ring(self, now: float) -> None:
        try:
            Deadline.expire(self.exchange)
        except Exception as error:
            self.exchange.crash(error)

    @staticmethod
    def expire(exchange: Exchange) -> None:
        """Out of time. A complete answer that only waits to be read is left alone (GR-44)."""
        attempt = exchange.attempt
        if exchange.state == exchange_state.DONE or (exchange.state == exchange_state.RESPONDING and attempt is None):
            return
        after = f"after {exchange.engine.now - exchange.started_at:.3f}s"
        where = "between two attempts" if exchange.history and not exchange.queued else "waiting for an endpoint"
        if attempt is not None:
            where = f"waiting for {attempt.endpoint.address}"
            exchange.close_attempt(attempt, TIMEOUT, DEADLINE_EXCEEDED, f"deadline {after}")
        if exchange.response is not None:
            exchange.response.drop_held()
        exchange.fail(DEADLINE_EXCEEDED, f"{exchange.dispatch.name}: deadline exceeded {after} {where}")
