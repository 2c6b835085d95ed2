"""Real sockets, every event loop, one test body: what a connection may count on, whoever serves its socket.

On `ServingLoop` that is a `Channel`, on the others the loop's own transport.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import struct
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from sidecar.http2.codec import codec_name, load_codec
from sidecar.proxy.connection import Connection
from sidecar.proxy.engine import Engine
from sidecar.proxy.outlet import open_outlet
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


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[None]]], None]:
    """Runs a scene on each loop."""

    def run(scene: Callable[[], Awaitable[None]]) -> None:
        async def bounded() -> None:
            await asyncio.wait_for(scene(), 3 * PATIENCE)

        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(bounded())

    return run


@pytest.fixture
def play(run: Callable[[Callable[[], Awaitable[None]]], None]) -> Callable[[Body], None]:
    """Runs a body with a transport, its connection, and the blocking socket at the other end."""

    def play(body: Body) -> None:
        async def scene() -> None:
            ours, theirs = tcp_pair()
            with theirs:
                transport, ear = await join(build_engine(), ours)
                await body(transport, ear, theirs)
                if not ear.lost.done():
                    transport.abort()
                await ear.lost
                await asyncio.sleep(0)
                assert ear.heard.count("lost") == 1

        run(scene)

    return play


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


def test_compiled_a_channel_stands_between(play: Callable[[Body], None], request: pytest.FixtureRequest) -> None:
    async def body(transport: asyncio.Transport, ear: Ear, peer: socket.socket) -> None:
        expected = "Channel" if "native" in request.node.name else "TransportOutlet"
        assert type(open_outlet(transport)).__name__ == expected

    play(body)


def test_what_the_socket_takes_leaves_at_once(play: Callable[[Body], None]) -> None:
    async def body(transport: asyncio.Transport, ear: Ear, peer: socket.socket) -> None:
        open_outlet(transport).write(b"at once")
        assert peer.recv(100) == b"at once"  # the loop had no turn in between

    play(body)


def test_what_does_not_fit_follows_in_order_and_the_connection_is_paused_meanwhile(
    play: Callable[[Body], None],
) -> None:
    async def body(transport: asyncio.Transport, ear: Ear, peer: socket.socket) -> None:
        outlet = open_outlet(transport)
        for turn in (1, 2):  # again when all has left: then the socket is free once more
            for _ in range(4):
                outlet.write(MUCH)
            assert ear.heard == ["made", *["pause", "resume"] * (turn - 1), "pause"]
            assert transport.get_write_buffer_size() > 65_536
            outlet.write(b"and the rest")
            expected = 4 * MUCH + b"and the rest"
            assert await asyncio.to_thread(received, peer, len(expected)) == expected
            while transport.get_write_buffer_size():
                await asyncio.sleep(0)
            assert ear.heard == ["made", *["pause", "resume"] * turn]

    play(body)


def test_what_the_peer_says_is_heard_whole_and_in_order(play: Callable[[Body], None]) -> None:
    async def body(transport: asyncio.Transport, ear: Ear, peer: socket.socket) -> None:
        await asyncio.to_thread(peer.sendall, MUCH)
        while len(ear.data) < len(MUCH):
            await asyncio.sleep(0)
        assert bytes(ear.data) == MUCH

    play(body)


def test_the_peers_fin_ends_the_connection_without_an_error(play: Callable[[Body], None]) -> None:
    async def body(transport: asyncio.Transport, ear: Ear, peer: socket.socket) -> None:
        peer.sendall(b"the last words")
        peer.close()
        assert await ear.lost is None
        assert bytes(ear.data) == b"the last words"
        assert transport.is_closing()

    play(body)


def test_a_reset_by_the_peer_is_told_as_such(play: Callable[[Body], None]) -> None:
    async def body(transport: asyncio.Transport, ear: Ear, peer: socket.socket) -> None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        assert isinstance(await ear.lost, ConnectionResetError)

    play(body)


def test_a_peer_that_is_gone_costs_a_writer_nothing_but_the_connection(play: Callable[[Body], None]) -> None:
    async def body(transport: asyncio.Transport, ear: Ear, peer: socket.socket) -> None:
        outlet = open_outlet(transport)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        outlet.write(b"to nobody")
        outlet.write(b"to nobody either")
        await ear.lost

    play(body)


def test_close_writes_what_waits_and_says_goodbye_then(play: Callable[[Body], None]) -> None:
    async def body(transport: asyncio.Transport, ear: Ear, peer: socket.socket) -> None:
        for _ in range(4):
            open_outlet(transport).write(MUCH)
        transport.close()
        assert not ear.lost.done()
        assert await asyncio.to_thread(received, peer, 4 * len(MUCH)) == 4 * MUCH
        assert await ear.lost is None
        assert await asyncio.to_thread(peer.recv, 1) == b""

    play(body)


def test_abort_drops_what_waits(play: Callable[[Body], None]) -> None:
    async def body(transport: asyncio.Transport, ear: Ear, peer: socket.socket) -> None:
        outlet = open_outlet(transport)
        for _ in range(4):
            outlet.write(MUCH)
        transport.abort()
        outlet.write(b"too late")
        assert await ear.lost is None
        got = 0
        while piece := await asyncio.to_thread(peer.recv, 65_536):
            got += len(piece)
        assert got < 4 * len(MUCH)

    play(body)


def test_fin_follows_what_waits_and_the_peer_is_still_heard(play: Callable[[Body], None]) -> None:
    async def body(transport: asyncio.Transport, ear: Ear, peer: socket.socket) -> None:
        assert transport.can_write_eof()
        for _ in range(4):
            open_outlet(transport).write(MUCH)
        transport.write_eof()
        assert await asyncio.to_thread(received, peer, 4 * len(MUCH)) == 4 * MUCH
        assert await asyncio.to_thread(peer.recv, 1) == b""
        peer.sendall(b"still there")
        peer.close()
        assert await ear.lost is None
        assert bytes(ear.data) == b"still there"

    play(body)


def test_the_socket_and_both_addresses_can_be_asked_for(play: Callable[[Body], None]) -> None:
    async def body(transport: asyncio.Transport, ear: Ear, peer: socket.socket) -> None:
        assert transport.get_extra_info("peername") == peer.getsockname()
        assert transport.get_extra_info("sockname") == peer.getpeername()
        assert transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert transport.get_extra_info("sslcontext") is None

    play(body)


def test_a_cancelled_connect_leaves_no_connection_behind(run: Callable[[Callable[[], Awaitable[None]]], None]) -> None:
    async def scene() -> None:
        ours, theirs = tcp_pair()
        with theirs:
            connect = asyncio.get_running_loop().create_task(join(build_engine(), ours))
            await asyncio.sleep(0)  # it has its transport now, and waits to hear that it is up
            connect.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connect
            assert await asyncio.to_thread(theirs.recv, 1) == b""

    run(scene)


def test_an_error_in_a_connection_costs_that_connection_only(
    run: Callable[[Callable[[], Awaitable[None]]], None], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(data: bytes) -> None:
        raise ZeroDivisionError("on purpose")

    async def scene() -> None:
        caplog.set_level(logging.CRITICAL)
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        engine = build_engine()
        (ours, theirs), (other, peer) = tcp_pair(), tcp_pair()
        with theirs, peer:
            _, ear = await join(engine, ours)
            spared, listening = await join(engine, other)
            ear.on_take = fail
            theirs.sendall(b"bad luck")
            peer.sendall(b"good luck")
            await ear.lost
            while not listening.data:
                await asyncio.sleep(0)
            assert not listening.lost.done()
            spared.abort()
            await listening.lost

    run(scene)


@pytest.mark.skipif(not COMPILED, reason="the loop that serves connections itself is compiled")
class TestServingLoop:
    """What is particular to the loop that serves channels inside its wait."""

    def run(self, scene: Callable[[], Awaitable[None]]) -> None:
        async def bounded() -> None:
            await asyncio.wait_for(scene(), PATIENCE)

        with asyncio.Runner(loop_factory=ServingLoop) as runner:
            runner.run(bounded())

    def test_what_is_ready_at_the_same_time_is_one_turn(self) -> None:
        async def scene() -> None:
            engine = build_engine()
            pairs = [tcp_pair() for _ in range(5)]
            joined = [await join(engine, ours) for ours, _ in pairs]
            for _, theirs in pairs:
                theirs.sendall(b"x")
            while not all(ear.data for _, ear in joined):
                await asyncio.sleep(0)
            assert len({now for _, ear in joined for now in ear.nows}) == 1
            for (transport, ear), (_, theirs) in zip(joined, pairs, strict=True):
                transport.abort()
                await ear.lost
                theirs.close()

        self.run(scene)

    def test_callbacks_and_timers_of_others_run_while_a_channel_never_rests(self) -> None:
        """Each read is answered by the peer with another one, so that the wait would never be over by itself."""

        async def scene() -> None:
            loop = asyncio.get_running_loop()
            (ours, theirs), (echo, other) = tcp_pair(), tcp_pair()
            engine = build_engine()
            transport, ear = await join(engine, ours)
            theirs.setblocking(False)
            back, mirror = await join(engine, echo)
            other.setblocking(False)

            def pass_on(data: bytes) -> None:
                other.sendall(data)  # which makes the other channel readable

            def pass_back(data: bytes) -> None:
                theirs.sendall(data)

            ear.on_take, mirror.on_take = pass_on, pass_back
            theirs.sendall(b"x")
            heard = loop.create_future()
            called_at = len(ear.nows)
            loop.call_later(0.01, heard.set_result, "timer")
            assert await heard == "timer"
            assert len(ear.nows) > called_at  # it went round and round meanwhile
            assert await loop.run_in_executor(None, lambda: "thread") == "thread"
            for one, connection in ((transport, ear), (back, mirror)):
                one.abort()
                await connection.lost
            theirs.close()
            other.close()

        self.run(scene)

    def test_a_callback_scheduled_by_a_channel_runs_in_the_next_turn(self) -> None:
        async def scene() -> None:
            loop = asyncio.get_running_loop()
            ours, theirs = tcp_pair()
            transport, ear = await join(build_engine(), ours)
            called = loop.create_future()
            ear.on_take = lambda data: loop.call_soon(called.set_result, data) and None
            theirs.sendall(b"now")
            assert await called == b"now"
            transport.abort()
            await ear.lost
            theirs.close()

        self.run(scene)

    def test_sockets_that_are_not_channels_are_the_loops_own(self) -> None:
        async def scene() -> None:
            loop = asyncio.get_running_loop()
            ours, theirs = tcp_pair()
            with ours, theirs:
                await loop.sock_sendall(ours, b"to them")
                assert theirs.recv(100) == b"to them"
                answer = loop.create_task(loop.sock_recv(ours, 100))
                await asyncio.sleep(0)
                theirs.sendall(b"to us")
                assert await answer == b"to us"

        self.run(scene)

    def test_a_channel_closed_by_another_one_in_the_same_turn_is_not_served(self) -> None:
        async def scene() -> None:
            engine = build_engine()
            (ours, theirs), (other, peer) = tcp_pair(), tcp_pair()
            transport, ear = await join(engine, ours)
            second, listening = await join(engine, other)
            ear.on_take = lambda data: second.abort()
            listening.on_take = lambda data: transport.abort()
            theirs.sendall(b"x")
            peer.sendall(b"x")
            while not (ear.data or listening.data):
                await asyncio.sleep(0)
            assert bool(ear.data) != bool(listening.data)
            transport.abort()
            second.abort()
            await ear.lost
            await listening.lost
            theirs.close()
            peer.close()

        self.run(scene)
