"""The event loop of a sidecar: asyncio's, with the connections of the data path served inside its wait.

That needs Linux and the compiled modules; importing this without them is an ImportError.
"""

from __future__ import annotations

import asyncio
import select
import selectors
import socket
from collections.abc import Callable
from contextvars import Context
from typing import Any, TypeVarTuple, Unpack

from sidecar.proxy.channel import Channel
from sidecar.proxy.connection import Connection
from sidecar.proxy.poll import Poll

Ts = TypeVarTuple("Ts")


class ServingSelector(selectors.EpollSelector):
    """Tells the loop what is ready, but for channels: those it has served before."""

    def __init__(self) -> None:
        super().__init__()
        self.poll = Poll(self.fileno())

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = []
        for descriptor, events in self.poll.wait(timeout):
            try:
                key = self.get_key(descriptor)
            except KeyError:  # of a channel that another one closed in the same turn
                continue
            mask = (selectors.EVENT_WRITE if events & ~select.EPOLLIN else 0) | (
                selectors.EVENT_READ if events & ~select.EPOLLOUT else 0
            )
            ready.append((key, mask & key.events))
        return ready


class ServingLoop(asyncio.SelectorEventLoop):
    """What connects or accepts with a `Connection` for its protocol gets a `Channel` for its transport."""

    def __init__(self) -> None:
        selector = ServingSelector()
        self._poll = selector.poll
        super().__init__(selector)

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        self._poll.leave()
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        self._poll.leave()
        return super().call_at(when, callback, *args, context=context)

    def stop(self) -> None:
        self._poll.leave()
        super().stop()

    def _make_socket_transport(
        self, sock: socket.socket, protocol: Any, waiter: asyncio.Future[None] | None = None, **others: Any
    ) -> Any:
        if isinstance(protocol, Connection):
            return Channel(self, self._poll, sock, protocol, waiter)
        return super()._make_socket_transport(sock, protocol, waiter, **others)  # type: ignore[misc]
