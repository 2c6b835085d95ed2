"""The moment after which the app no longer wants its answer (GR-43). Only RPCs that have one pay for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.proxy.wheel import Alarm

if TYPE_CHECKING:
    from sidecar.proxy.exchange import Exchange


class Deadline(Alarm):
    """Set when the exchange opens, cancelled when it ends."""

    __slots__ = ("exchange",)

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self.exchange = exchange

    def ring(self, now: float) -> None:
        try:
            self.exchange.on_deadline()
        except Exception as error:
            self.exchange.crash(error)
