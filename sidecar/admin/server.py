"""The admin API's sockets and routes: one address for this machine, and a second one that only answers probes.

What is answered stands in `inspection` and `command`, who may ask in `guard`. It ends with `close`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from aiohttp import web

from sidecar.admin.command import Command
from sidecar.admin.guard import local_callers, plain_errors
from sidecar.admin.inspection import Inspection
from sidecar.admin.settings import AdminSettings
from sidecar.admin.view import SidecarView

# A command carries nothing in its body.
_LARGEST_BODY: Final = 4_096
# How long `close` lets an answer finish: a drain that is under way ends with the process, not with its asker.
_CLOSE_TIMEOUT: Final = 1.0

_Build = Callable[[str], web.Application]  # from the host part of the bound address


class AdminServer:
    """The admin API of one process."""

    def __init__(self, settings: AdminSettings, view: SidecarView) -> None:
        self._settings = settings
        self._view = view
        self._runners: list[web.AppRunner] = []
        self.address: str | None = None  # as bound, once started
        self.probe_address: str | None = None

    async def start(self) -> None:
        """Bind both addresses. Raises OSError, with the address in its text, and leaves nothing bound behind."""
        try:
            if self._settings.listen is not None:
                self.address = await self._serve(self._settings.listen, self._local_application)
            if self._settings.probe_listen is not None:
                self.probe_address = await self._serve(self._settings.probe_listen, self._probe_application)
        except OSError:
            await self.close()
            raise

    async def close(self) -> None:
        """Give the addresses back. Answers under way have a second to finish."""
        runners, self._runners = self._runners, []
        for runner in runners:
            await runner.cleanup()
        self.address = self.probe_address = None

    async def _serve(self, listen: str, build: _Build) -> str:
        host, _, port = listen.rpartition(":")
        host = host.strip("[]")
        runner = web.AppRunner(build(host), access_log=None, handle_signals=False, shutdown_timeout=_CLOSE_TIMEOUT)
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, host, int(port)).start()
        return _written(runner.addresses[0])

    def _local_application(self, bound_host: str) -> web.Application:
        app = web.Application(middlewares=[plain_errors, local_callers(bound_host)], client_max_size=_LARGEST_BODY)
        inspection = Inspection(self._view)
        command = Command(self._view)
        app.add_routes(
            [
                web.get("/", inspection.front),
                *_probes(inspection),
                web.get("/clusters", inspection.clusters),
                web.get("/upstreams", inspection.upstreams),
                web.get("/config_dump", inspection.config_dump),
                web.get("/server_info", inspection.server_info),
                web.post("/drain", command.drain),
                web.post("/reload", command.reload),
                web.post("/logging", command.logging),
                web.post("/quitquitquit", command.quit),
            ]
        )
        return app

    def _probe_application(self, bound_host: str) -> web.Application:
        """No Host check: kubelet and Prometheus ask by pod address or by names that only the cluster knows."""
        app = web.Application(middlewares=[plain_errors], client_max_size=_LARGEST_BODY)
        app.add_routes(_probes(Inspection(self._view)))
        return app


def _probes(inspection: Inspection) -> list[web.RouteDef]:
    return [
        web.get("/ready", inspection.ready),
        web.get("/live", inspection.live),
        web.get("/metrics", inspection.metrics),
    ]


def _written(address: tuple[str, int, *tuple[int, ...]]) -> str:
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
