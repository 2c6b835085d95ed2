"""What a connection leaves behind: nothing. The collector looks for cycles so rarely that one each would add up."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from pathlib import Path

from tests.app.place import Place, running, upstream
from tests.app.socket_peer import SocketPeer, SocketServer, dial, until
from tests.proxy.stage import on_loop


async def left_behind(tmp_path: Path, end: Callable[[Place, SocketPeer, SocketServer], None]) -> list[object]:
    """Both connections of an RPC that was answered and of one that was not, once `end` has cut them."""
    server = await SocketServer().start()
    async with running(tmp_path, upstreams=[upstream("orders", server.address)]) as place:
        app = await dial(place.bound("orders"))
        app.call()
        await until(lambda: server.requests, "the first RPC")
        server.answer(server.requests[0], b"answer")
        app.call()
        await until(lambda: len(server.requests) == 2, "the second RPC")
        connections = place.sidecar.engine.connections
        kept = [weakref.ref(connection) for connection in connections]
        assert len(kept) == 2
        gc.collect()
        gc.disable()
        try:
            end(place, app, server)
            await until(lambda: all(ref() not in connections for ref in kept), "the end of both")
            for _ in range(3):
                await asyncio.sleep(0)  # the transports let go of them in their own time
            return [ref() for ref in kept if ref() is not None]
        finally:
            gc.enable()
            server.close()


def hang_up(place: Place, app: SocketPeer, server: SocketServer) -> None:
    """The far ends go away."""
    for peer in (app, *server.connections):
        assert peer.outlet.transport is not None
        peer.outlet.transport.abort()


def cut(place: Place, app: SocketPeer, server: SocketServer) -> None:
    """The sidecar cuts them itself."""
    for connection in list(place.sidecar.engine.connections):
        connection.abort()


@on_loop
async def test_connections_that_the_far_end_closes_are_freed_at_once(tmp_path: Path) -> None:
    assert await left_behind(tmp_path, hang_up) == []


@on_loop
async def test_connections_that_the_sidecar_cuts_are_freed_at_once(tmp_path: Path) -> None:
    assert await left_behind(tmp_path, cut) == []
