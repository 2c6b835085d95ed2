"""The admin API's sockets: one address for this machine, and a second one that only answers probes.

The addresses are bound when the process starts, so that a taken one ends it. aiohttp takes longer to import than the
whole data path: it is imported in a thread while RPCs flow already, and until it is there callers are refused. What
is answered stands in `application`. It ends with `close`.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Final

from sidecar.admin.settings import AdminSettings
from sidecar.admin.view import SidecarView

if TYPE_CHECKING:
    from aiohttp import web

# How long `close` lets an answer finish: a drain that is under way ends with the process, not with its asker.
_CLOSE_TIMEOUT: Final = 1.0


class AdminServer:
    """The admin API of one process."""

    def __init__(self, settings: AdminSettings, view: SidecarView) -> None:
        self._settings = settings
        self._view = view
        self._doors: list[Door] = []
        self.address: str | None = None  # as bound, once started
        self.probe_address: str | None = None

    async def bind(self) -> None:
        """Bind both addresses. Raises OSError, with the address in its text, and leaves nothing bound behind."""
        try:
            if self._settings.listen is not None:
                self.address = await self._bind(self._settings.listen, "local_application")
            if self._settings.probe_listen is not None:
                self.probe_address = await self._bind(self._settings.probe_listen, "probe_application")
        except OSError:
            await self.close()
            raise

    async def _bind(self, listen: str, application: str) -> str:
        host, _, port = listen.rpartition(":")
        door = Door(host.strip("[]"), int(port), application)
        address = await door.bind()
        self._doors.append(door)
        return address

    async def serve(self) -> None:
        """Answer from now on."""
        if self._doors:
            module = await asyncio.to_thread(importlib.import_module, "sidecar.admin.application")
            for door in self._doors:
                await door.open(getattr(module, door.application)(self._view, door.host))

    async def close(self) -> None:
        """Give the addresses back. Answers under way have a second to finish."""
        doors, self._doors = self._doors, []
        for door in doors:
            await door.close()
        self.address = self.probe_address = None


class Door:
    """One address. `application` names the function that makes what is behind it."""

    def __init__(self, host: str, port: int, application: str) -> None:
        self.host = host
        self.port = port
        self.application = application
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None

    async def bind(self) -> str:
        """Take the address, and return it as it was bound. Nobody is let in yet."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, self.host, self.port, start_serving=False)
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def open(self, application: web.Application) -> None:
        """Let callers in."""
        from aiohttp import web

        self._runner = web.AppRunner(
            application, access_log=None, handle_signals=False, shutdown_timeout=_CLOSE_TIMEOUT
        )
        await self._runner.setup()
        if self._server is not None:
            await self._server.start_serving()

    def _accept(self) -> asyncio.BaseProtocol:
        assert self._runner is not None and self._runner.server is not None
        return self._runner.server()

    async def close(self) -> None:
        """Let nobody in, and give the address back."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        if self._runner is not None:
            await self._runner.cleanup()
