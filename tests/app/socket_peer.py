"""A scripted peer behind a real socket, as a client or a server; and bounded waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sidecar.http2.constants import CLIENT, SERVER
from sidecar.http2.interface import CodecSettings
from sidecar.http2.reference import ReferenceCodec
from tests.proxy.pipe import Ear, Peer, Pipe

PATIENCE = 20.0  # seconds


class Outlet:
    """What the peer's codec says goes to the socket."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: Pipe, /) -> None:
        """The in-memory side of it; nothing to do."""

    def data_received(self, data: bytes, /) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None, /) -> None:
        if self.transport is not None:
            self.transport.close()

    def pause_writing(self) -> None:
        """Tests write little."""

    def resume_writing(self) -> None:
        """Tests write little."""


class SocketPeer(asyncio.Protocol):
    """`peer` over a socket. After each command of a test, `pump` sends it."""

    def __init__(self, role: int) -> None:
        self.outlet = Outlet()
        self.peer = Peer(ReferenceCodec, role, self.outlet, CodecSettings(reset_burst=10**9))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.outlet.transport = transport
        self.peer.start()
        self.pump()

    def data_received(self, data: bytes) -> None:
        self.peer.pipe.outbox += data
        self.pump()

    def connection_lost(self, exc: Exception | None) -> None:
        self.peer.lost = True

    def pump(self) -> None:
        """Move what is to be moved."""
        while self.peer.exchange():
            pass

    def call(self) -> Ear:
        """CLIENT: open a stream and leave it open."""
        ear = self.peer.call()
        self.pump()
        return ear


class SocketServer:
    """A server that answers nothing by itself."""

    def __init__(self) -> None:
        self.connections: list[SocketPeer] = []
        self.address = ""
        self._server: asyncio.Server | None = None

    async def start(self) -> SocketServer:
        self._server = await asyncio.get_running_loop().create_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def _accept(self) -> SocketPeer:
        self.connections.append(SocketPeer(SERVER))
        return self.connections[-1]

    @property
    def requests(self) -> list[Ear]:
        """Every request that came."""
        return [ear for connection in self.connections for ear in connection.peer.streams]

    def answer(self, ear: Ear, data: bytes = b"") -> None:
        """A whole response."""
        ear.peer.answer(ear, data)
        for connection in self.connections:
            connection.pump()

    def close(self) -> None:
        if self._server is not None:
            self._server.close()


async def dial(address: str) -> SocketPeer:
    """An app's connection to a listener."""
    host, _, port = address.rpartition(":")
    _, peer = await asyncio.get_running_loop().create_connection(lambda: SocketPeer(CLIENT), host, int(port))
    return peer


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something that must come; how long it takes is not asked."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"never came: {what}") from None
