"""A bound address that the app dials for one upstream. Loopback only, unless the configuration allows more (SE-30)."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

from sidecar.proxy.dispatch import Dispatch
from sidecar.proxy.downstream import DownstreamConnection
from sidecar.telemetry.metrics import ListenerMetrics, bump

if TYPE_CHECKING:
    from sidecar.proxy.engine import Engine

log = logging.getLogger("sidecar.proxy")

BACKLOG = 1024  # connects that wait to be accepted; Linux caps it at somaxconn, 4096
# Accepted in one turn of asyncio's loop, which makes a task for each: of a thousand at once the memory would stay.
AT_ONCE = 16


class Listener:
    """Accepts the app's connections for `dispatch`. It ends with `stop`; its connections may outlive it.

    With an empty address nothing is bound: the app reaches the upstream through the routes of others only.
    """

    def __init__(self, engine: Engine, dispatch: Dispatch, address: str, metrics: ListenerMetrics) -> None:
        self.engine = engine
        self.dispatch = dispatch
        self.address = address
        self.metrics = metrics
        self.connections: set[DownstreamConnection] = set()
        self.bound = ""  # the address in fact bound, with its port when 0 was asked for
        self.one_shot = False  # the process is ending: a new connection is asked to go after its first RPCs
        self.on_change: Callable[[], None] = lambda: None  # a connection came, went, or finished its RPCs
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Bind and listen. Raises OSError with the address in its text."""
        loop = self.engine.loop
        if not self.address:
            return
        try:
            if self.address.startswith("unix:"):
                self._server = await self._listen_unix(loop, self.address.removeprefix("unix:"))
                self.bound = self.address
            else:
                host, _, port = self.address.rpartition(":")
                self._server = await loop.create_server(
                    self._accept, host.strip("[]"), int(port), backlog=AT_ONCE, reuse_address=True
                )
                self.bound = f"{host}:{self._server.sockets[0].getsockname()[1]}"
            lengthen_backlog(self._server)
        except OSError as failure:
            raise OSError(f"cannot listen on {self.address} for upstream {self.dispatch.name}: {failure}") from failure

    async def _listen_unix(self, loop: asyncio.AbstractEventLoop, path: str) -> asyncio.Server:
        """A socket file for this user only; one left behind by a process that died is replaced."""
        if os.path.lexists(path):
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                raise OSError(errno.EEXIST, "there is a file that is not a socket")
            if await answers(path):
                raise OSError(errno.EADDRINUSE, "somebody listens there already")
            os.unlink(path)
        mask = os.umask(0o177)
        try:
            return await loop.create_unix_server(self._accept, path, backlog=AT_ONCE)
        finally:
            os.umask(mask)

    def _accept(self) -> asyncio.Protocol:
        return DownstreamConnection(self)  # type: ignore[return-value]

    def on_open(self, connection: DownstreamConnection) -> None:
        """A connection was accepted."""
        self.metrics.accepted += 1
        if len(self.connections) >= self.engine.http2.max_connections:
            bump(self.metrics.refused, "too_many")
            connection.abort()
            return
        self.connections.add(connection)
        self.metrics.open = len(self.connections)

    def on_closed(self, connection: DownstreamConnection) -> None:
        """Its socket is gone."""
        self.connections.discard(connection)
        self.metrics.open = len(self.connections)
        self.on_change()

    def drain(self) -> None:
        """Ask every connection to go (GOAWAY); later ones after their first RPCs: refusing them would fail RPCs."""
        self.one_shot = True
        self.engine.begin()
        for connection in list(self.connections):
            connection.drain()
        self.engine.settle()

    def stop(self) -> None:
        """Accept no more."""
        if self._server is not None:
            self._server.close()
            self._server = None
            if self.address.startswith("unix:") and os.path.exists(self.address.removeprefix("unix:")):
                os.unlink(self.address.removeprefix("unix:"))

    def abort(self) -> None:
        """Cut what is left."""
        self.stop()
        for connection in list(self.connections):
            connection.abort()


def lengthen_backlog(server: asyncio.Server) -> None:
    """Let more connects wait than are accepted at once: for asyncio these are one number."""
    for bound in server.sockets:
        with socket.socket(fileno=os.dup(bound.fileno())) as same:
            same.listen(BACKLOG)


async def answers(path: str) -> bool:
    """Whether somebody listens on a Unix socket."""
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    probe.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(probe, path)
    except OSError:
        return False
    finally:
        probe.close()
    return True
