"""An HTTP server that stands where a Consul agent should be, and answers as the test says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Self

from aiohttp import web

Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeAgent:
    """Answers every request by `answer`; remembers what was asked."""

    def __init__(self, answer: Answering) -> None:
        self.answer = answer
        self.requests: list[web.Request] = []
        self.port = 0
        self._runner: web.ServerRunner | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def _handle(self, request: Any) -> web.StreamResponse:
        self.requests.append(request)
        return await self.answer(request)

    async def start(self, socket: str = "") -> None:
        """Listen, on the same port as before if there was one, or on a unix socket."""
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await self._runner.setup()
        if socket:
            await web.UnixSite(self._runner, socket).start()
            return
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close everything, requests under way too."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def entry(identity: str, port: int, **service: Any) -> dict[str, Any]:
    """One passing instance as `/v1/health/service` lists it."""
    checks = service.pop("Checks", [{"CheckID": "c", "Status": "passing"}])
    node = service.pop("Node", {"Node": "n1", "Address": "10.0.0.9"})
    body = {"ID": identity, "Service": "orders", "Address": "10.0.0.1", "Port": port, **service}
    return {"Node": node, "Service": body, "Checks": checks}


def listed(*entries: dict[str, Any], index: int | str = 1, **headers: str) -> web.Response:
    """A well-formed answer."""
    return web.json_response(list(entries), headers={"X-Consul-Index": str(index), **headers})
