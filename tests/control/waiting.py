"""Waiting in async tests: for a condition, never for a time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Self, TypeVar

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
    """A free loopback port on which the kernel accepts and nobody says a word: an app, as far as a TCP check can tell.

    Nothing is accepted by the test's own loop, so that no connection can outlive it.
    """

    BACKLOG = 1000  # connections that a test's checks may make, at most: each stays in the queue

    def __init__(self) -> None:
        self.port = 0
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Listen; again on the same port after `close`."""
        self._socket = socket.create_server(("127.0.0.1", self.port), backlog=self.BACKLOG)
        self.port = self._socket.getsockname()[1]

    def close(self) -> None:
        """Refuse connections."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
