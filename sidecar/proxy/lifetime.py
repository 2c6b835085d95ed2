"""How long an RPC may be silent, and how long it may last: for methods that set `timeouts.idle` or `max_duration`.

It looks now and then at what was relayed, so that nothing is noted per message: a silence is noticed up to a quarter
late. It ends with its exchange; RPCs of other methods have none of this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sidecar.proxy.wheel import Alarm
from sidecar.rpc.status import DEADLINE_EXCEEDED
from sidecar.telemetry.metrics import bump

if TYPE_CHECKING:
    from sidecar.proxy.exchange import Exchange

LOOKS: Final = 4  # in one idle time
IDLE: Final = "idle"
MAX_DURATION: Final = "max_duration"


class Lifetime(Alarm):
    """Set when the exchange opens, cancelled when it ends."""

    __slots__ = ("exchange", "idle", "max_duration", "moved_at", "relayed")

    def __init__(self, exchange: Exchange, idle: float, max_duration: float) -> None:
        super().__init__()
        self.exchange = exchange
        self.idle = idle  # seconds; 0: without end
        self.max_duration = max_duration  # likewise
        self.moved_at = exchange.started_at
        self.relayed = 0  # octets both ways when it was last looked at
        self._set(exchange.started_at)

    def _set(self, now: float) -> None:
        """Look again when something may be due."""
        due = [now + self.idle / LOOKS] if self.idle else []
        if self.max_duration:
            due.append(self.exchange.started_at + self.max_duration)
        self.exchange.engine.set_alarm(self, min(due))

    def ring(self, now: float) -> None:
        exchange = self.exchange
        try:
            relayed = exchange.request.received + (exchange.response.received if exchange.response is not None else 0)
            if relayed != self.relayed:
                self.relayed, self.moved_at = relayed, now
            name = exchange.dispatch.name
            where = f" on {exchange.attempt.endpoint.address}" if exchange.attempt is not None else ""
            if self.max_duration and now - exchange.started_at >= self.max_duration:
                self._cut(MAX_DURATION, f"{name}: has lasted {self.max_duration:g}s{where}, its timeouts.max_duration")
            elif self.idle and now - self.moved_at >= self.idle:
                self._cut(IDLE, f"{name}: nothing was sent either way for {self.idle:g}s{where}, its timeouts.idle")
            else:
                self._set(now)
        except Exception as error:
            exchange.crash(error)

    def _cut(self, reason: str, text: str) -> None:
        bump(self.exchange.dispatch.metrics.overstays, reason)
        self.exchange.cut(DEADLINE_EXCEEDED, text)
