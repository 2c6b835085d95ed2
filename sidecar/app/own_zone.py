"""The sidecar's own zone where the file does not say it: what the registry knows of this machine (D10).

It is asked only while an upstream looks at zones and does not know its own. A registry that is down or knows none is
asked again; until then zones are not looked at.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from sidecar.control.registry import RegistryError

if TYPE_CHECKING:
    from sidecar.app.sidecar import Sidecar

log = logging.getLogger("sidecar.app")

ASK_INTERVAL: Final = 10.0  # seconds; the agent is local and cheap to ask, and a reload may have switched zones on


class OwnZone:
    """One for the process. `known` is what the registry said last; empty: nothing."""

    def __init__(self, sidecar: Sidecar) -> None:
        self.sidecar = sidecar
        self.known = ""
        self._told = ""

    async def run(self) -> None:
        """Ask now and then, until cancelled."""
        while True:
            await self.ask()
            await asyncio.sleep(ASK_INTERVAL)

    async def ask(self) -> None:
        """Find out, if somebody needs to know, and tell every upstream that knows none."""
        registry, upstreams = self.sidecar.registry, self.sidecar.by_name
        if registry is None or not any(upstream.lacks_zone for upstream in upstreams.values()):
            return
        try:
            self.known = await registry.locate()
        except RegistryError as error:
            self._say(logging.WARNING, f"{error}; until the own zone is known, zones are not looked at")
            return
        if not self.known:
            self._say(logging.WARNING, f"{registry.name} states no zone of this machine, so zones are not looked at")
            return
        self._say(logging.INFO, f"the own zone is {self.known}, says {registry.name}")
        for upstream in upstreams.values():
            upstream.settle_in(self.known)

    def _say(self, level: int, sentence: str) -> None:
        """Once, until it changes."""
        if sentence != self._told:
            self._told = sentence
            log.log(level, "%s", sentence)

    def __repr__(self) -> str:
        return f"<OwnZone {self.known or 'not known'}>"
