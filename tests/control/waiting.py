"""Waiting in async tests: for a condition, never for a time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
PATIENCE = 30.0  # seconds for any condition on a slow machine


async def eventually(condition: Callable[[], T], what: str, patience: float = PATIENCE) -> T:
    """Ask until the answer is true; the answer. Fails with `what` after `patience` seconds."""
    give_up_at = time.monotonic() + patience
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > give_up_at:
            raise AssertionError(f"not within {patience:g} s: {what}; last answer: {answer!r}")
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Run it beside the block; cancel it at the end. What it raised by itself is raised here."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class Listening:
    """A TCP server on a free loopback port that accepts and says nothing: an app, as far as a TCP check can tell."""

    def __init__(self) -> None:
        self.port = 0
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen; again on the same port after `close`."""
        self._server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Refuse connections."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def __aenter__(self) -> Listening:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
