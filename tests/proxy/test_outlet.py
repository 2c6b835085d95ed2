"""Real sockets, both event loops: what a connection writes leaves once, whole and in order, whichever way it goes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from sidecar.http2.codec import codec_name, load_codec
from sidecar.proxy.outlet import Outlet, open_outlet

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
WAYS = {"through the transport": Outlet, "as it comes": open_outlet}
MUCH = bytes(range(256)) * 8192  # 2 MiB: more than a socket takes at once


class Ear(asyncio.Protocol):
    """Notes how its connection ended."""

    def __init__(self) -> None:
        self.lost = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


Body = Callable[[asyncio.Transport, Ear, socket.socket], Awaitable[None]]


@pytest.fixture(params=LOOPS)
def play(request: pytest.FixtureRequest) -> Callable[[Body], None]:
    """Runs a body with a transport, its protocol, and the blocking socket at the other end."""

    def play(body: Body) -> None:
        async def scene() -> None:
            ours, theirs = socket.socketpair()
            with theirs:
                theirs.settimeout(10)
                transport, ear = await asyncio.get_running_loop().create_connection(Ear, sock=ours)
                await body(transport, ear, theirs)
                transport.abort()
                await ear.lost

        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(scene())

    return play


def received(peer: socket.socket, size: int) -> bytes:
    """So many octets, waited for."""
    data = bytearray()
    while len(data) < size:
        data += peer.recv(65_536)
    return bytes(data)


def test_compiled_it_is_the_direct_one(play: Callable[[Body], None]) -> None:
    async def body(transport: asyncio.Transport, ear: Ear, peer: socket.socket) -> None:
        compiled = codec_name(load_codec("auto")) == "native"
        assert type(open_outlet(transport)).__name__ == ("DirectOutlet" if compiled else "Outlet")

    play(body)


@pytest.mark.parametrize("way", WAYS)
def test_what_the_socket_takes_leaves_at_once(play: Callable[[Body], None], way: str) -> None:
    async def body(transport: asyncio.Transport, ear: Ear, peer: socket.socket) -> None:
        WAYS[way](transport).write(b"at once")
        assert peer.recv(100) == b"at once"  # the loop had no turn in between

    play(body)


@pytest.mark.parametrize("way", WAYS)
def test_what_does_not_fit_follows_in_order(play: Callable[[Body], None], way: str) -> None:
    async def body(transport: asyncio.Transport, ear: Ear, peer: socket.socket) -> None:
        outlet = WAYS[way](transport)
        for _ in range(2):  # again when all has left: then the socket is free once more
            outlet.write(MUCH)
            assert transport.get_write_buffer_size() > 0
            outlet.write(b"and the rest")
            expected = MUCH + b"and the rest"
            assert await asyncio.to_thread(received, peer, len(expected)) == expected
            assert transport.get_write_buffer_size() == 0

    play(body)


@pytest.mark.parametrize("way", WAYS)
def test_a_peer_that_is_gone_is_told_by_the_transport(play: Callable[[Body], None], way: str) -> None:
    async def body(transport: asyncio.Transport, ear: Ear, peer: socket.socket) -> None:
        outlet = WAYS[way](transport)
        peer.close()
        outlet.write(b"to nobody")
        await asyncio.wait_for(asyncio.shield(ear.lost), 10)

    play(body)


@pytest.mark.parametrize("way", WAYS)
def test_once_shut_nothing_reaches_the_descriptor(play: Callable[[Body], None], way: str) -> None:
    async def body(transport: asyncio.Transport, ear: Ear, peer: socket.socket) -> None:
        outlet = WAYS[way](transport)
        outlet.shut()
        transport.abort()
        outlet.write(b"too late")
        await ear.lost
        assert peer.recv(100) == b""

    play(body)
