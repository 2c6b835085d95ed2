"""Real sockets with a `Connection` at one end, on every event loop that one may be served by."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable

import uvloop

from sidecar.http2.codec import codec_name, load_codec
from sidecar.proxy.connection import Connection
from sidecar.proxy.engine import Engine
from sidecar.proxy.settings import BufferSettings, Http2Settings
from sidecar.telemetry.metrics import ProcessMetrics

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
COMPILED = codec_name(load_codec("auto")) == "native"
if COMPILED:
    from sidecar.proxy.loop import ServingLoop

    LOOPS["native"] = ServingLoop
MUCH = bytes(range(256)) * 8192  # 2 MiB: more than a socket takes at once
PATIENCE = 10.0


class Ear(Connection):
    """Notes what its transport tells it, and in which order."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, 0)
        self.heard: list[str] = []
        self.data = bytearray()
        self.nows: list[float] = []
        self.lost: asyncio.Future[Exception | None] = engine.loop.create_future()
        self.on_take: Callable[[bytes], None] = lambda data: None

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.heard.append("made")
        transport.set_write_buffer_limits(high=65_536, low=16_384)

    def take(self, data: bytes) -> None:
        self.data += data
        self.nows.append(self.engine.now)
        self.on_take(data)

    def pause_writing(self) -> None:
        self.heard.append("pause")

    def resume_writing(self) -> None:
        self.heard.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.heard.append("lost")
        self.lost.set_result(exc)


def build_engine() -> Engine:
    return Engine(
        loop=asyncio.get_running_loop(),
        codec_class=load_codec("auto"),
        http2=Http2Settings(),
        buffers=BufferSettings(),
        metrics=ProcessMetrics(),
        rng=random.Random(1),
    )


async def join(engine: Engine, ours: socket.socket) -> tuple[asyncio.Transport, Ear]:
    transport, ear = await asyncio.get_running_loop().create_connection(lambda: Ear(engine), sock=ours)  # type: ignore[type-var]
    return transport, ear  # type: ignore[return-value]


Body = Callable[[asyncio.Transport, Ear, socket.socket], Awaitable[None]]


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection; the second blocks."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    ours.setblocking(False)
    theirs.settimeout(PATIENCE)
    return ours, theirs


def received(peer: socket.socket, size: int) -> bytes:
    """So many octets, waited for."""
    data = bytearray()
    while len(data) < size:
        piece = peer.recv(65_536)
        assert piece, "the peer's end came too early"
        data += piece
    return bytes(data)


Scene = Callable[[], Awaitable[None]]
Run = Callable[[Scene], None]
Play = Callable[[Body], None]
