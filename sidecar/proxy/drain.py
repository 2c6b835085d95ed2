"""The end of the data path: finish what runs, in order, within a grace; then cut what is left, with a status.

The app may still be alive (when both get SIGTERM at once): its connections are asked to go by a two-step GOAWAY
and new ones are still served, since refusing them would fail RPCs (RL-02). `_TABLE` holds the steps.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from sidecar.proxy.dispatch import Dispatch
from sidecar.proxy.engine import Engine
from sidecar.proxy.listener import Listener
from sidecar.rpc.status import UNAVAILABLE

log = logging.getLogger("sidecar.proxy")

SERVING: Final = "serving"
FINISHING: Final = "finishing"  # every app connection is asked to go; RPCs run on
CLOSED: Final = "closed"
_TABLE: Final = {(SERVING, "drain"): FINISHING, (FINISHING, "done"): CLOSED}

LINGER: Final = 1.0  # for the last octets to be read by the peers; Envoy's delayed_close 1 s


class Drain:
    """Runs once. `hurry` ends the grace at once (a second SIGTERM)."""

    def __init__(self, engine: Engine, listeners: Sequence[Listener], dispatches: Sequence[Dispatch]) -> None:
        self.engine = engine
        self.listeners = listeners
        self.dispatches = dispatches
        self.state = SERVING
        self._changed = asyncio.Event()
        self._hurry = False

    async def run(self, grace: float) -> int:
        """Drain within `grace` seconds; returns how many RPCs had to be cut."""
        self.state = _TABLE[self.state, "drain"]
        for listener in self.listeners:
            listener.on_change = self._changed.set
            listener.drain()
        try:
            async with asyncio.timeout(grace):
                await self._until(self._finished)
        except TimeoutError:
            log.warning("the drain grace of %gs is over; cutting what still runs", grace)
        cut = await self._close()
        self.state = _TABLE[self.state, "done"]
        return cut

    def hurry(self) -> None:
        """Do not wait for what runs."""
        self._hurry = True
        self._changed.set()

    async def _until(self, condition: object) -> None:
        assert callable(condition)
        while not self._hurry and not condition():
            self._changed.clear()
            await self._changed.wait()

    def _finished(self) -> bool:
        """Every connection has gone but those that nothing runs on."""
        return all(connection.unused for listener in self.listeners for connection in listener.connections)

    async def _close(self) -> int:
        """Answer what still runs, say goodbye on both hops, and let the octets leave."""
        engine = self.engine
        engine.begin()
        cut = 0
        for listener in self.listeners:
            listener.stop()
            for connection in list(listener.connections):
                for exchange in connection.exchanges:
                    cut += 1
                    exchange.cut(UNAVAILABLE, f"{exchange.dispatch.name}: the sidecar is shutting down")
                connection.close()
        for dispatch in self.dispatches:
            dispatch.close("shutting_down")
        engine.settle()
        self._hurry = False
        try:
            async with asyncio.timeout(LINGER):
                await self._until(lambda: not any(listener.connections for listener in self.listeners))
        except TimeoutError:
            pass
        for left in list(engine.connections):
            left.abort()
        return cut
