"""Real sockets, every event loop, one test body: what a connection may count on, whoever serves its socket.

On `ServingLoop` that is a `Channel`, on the others the loop's own transport.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct

import pytest

from sidecar.proxy.outlet import open_outlet
from tests.proxy.wired import (
    COMPILED,
    LOOPS,
    MUCH,
    PATIENCE,
    Ear,
    Play,
    Run,
    Scene,
    build_engine,
    join,
    received,
    tcp_pair,
)


def test_compiled_a_channel_stands_between(play: Play, request: pytest.FixtureRequest) -> None:
    async def body(transport: asyncio.Transport, ear: Ear, peer: socket.socket) -> None:
        expected = "Channel" if "native" in request.node.name else "TransportOutlet"
        assert type(open_outlet(transport)).__name__ == expected

    play(body)


def test_what_the_socket_takes_leaves_at_once(play: Play) -> None:
    async def body(transport: asyncio.Transport, ear: Ear, peer: socket.socket) -> None:
        open_outlet(transport).write(b"at once")
        assert peer.recv(100) == b"at once"  # the loop had no turn in between

    play(body)


def test_what_does_not_fit_follows_in_order_and_the_connection_is_paused_meanwhile(
    play: Play,
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


def test_what_is_kept_of_a_read_stays_as_it_was(run: Run) -> None:
    async def scene() -> None:
        engine = build_engine()
        kept: list[bytes] = []
        pairs = [tcp_pair() for _ in range(6)]
        ears = [(await join(engine, ours))[1] for ours, _ in pairs]
        for turn in range(3):
            for n, (ear, (_, theirs)) in enumerate(zip(ears, pairs, strict=True)):
                ear.on_take = kept.append
                theirs.sendall(bytes([16 * turn + n]) * 5000)
            while sum(map(len, kept)) < (turn + 1) * 6 * 5000:
                await asyncio.sleep(0)
        assert all(piece == piece[:1] * len(piece) for piece in kept)
        assert sum(map(len, kept)) == 3 * 6 * 5000
        for ear, (_, theirs) in zip(ears, pairs, strict=True):
            theirs.close()
            await ear.lost

    run(scene)


def test_what_the_peer_says_is_heard_whole_and_in_order(play: Play) -> None:
    async def body(transport: asyncio.Transport, ear: Ear, peer: socket.socket) -> None:
        await asyncio.to_thread(peer.sendall, MUCH)
        while len(ear.data) < len(MUCH):
            await asyncio.sleep(0)
        assert bytes(ear.data) == MUCH

    play(body)


def test_the_peers_fin_ends_the_connection_without_an_error(play: Play) -> None:
    async def body(transport: asyncio.Transport, ear: Ear, peer: socket.socket) -> None:
        peer.sendall(b"the last words")
        peer.close()
        assert await ear.lost is None
        assert bytes(ear.data) == b"the last words"
        assert transport.is_closing()

    play(body)


def test_a_reset_by_the_peer_is_told_as_such(play: Play) -> None:
    async def body(transport: asyncio.Transport, ear: Ear, peer: socket.socket) -> None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        assert isinstance(await ear.lost, ConnectionResetError)

    play(body)


def test_a_peer_that_is_gone_costs_a_writer_nothing_but_the_connection(play: Play) -> None:
    async def body(transport: asyncio.Transport, ear: Ear, peer: socket.socket) -> None:
        outlet = open_outlet(transport)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        outlet.write(b"to nobody")
        outlet.write(b"to nobody either")
        await ear.lost

    play(body)


def test_close_writes_what_waits_and_says_goodbye_then(play: Play) -> None:
    async def body(transport: asyncio.Transport, ear: Ear, peer: socket.socket) -> None:
        for _ in range(4):
            open_outlet(transport).write(MUCH)
        transport.close()
        assert not ear.lost.done()
        assert await asyncio.to_thread(received, peer, 4 * len(MUCH)) == 4 * MUCH
        assert await ear.lost is None
        assert await asyncio.to_thread(peer.recv, 1) == b""

    play(body)


def test_abort_drops_what_waits(play: Play) -> None:
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


def test_fin_follows_what_waits_and_the_peer_is_still_heard(play: Play) -> None:
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


def test_the_socket_and_both_addresses_can_be_asked_for(play: Play) -> None:
    async def body(transport: asyncio.Transport, ear: Ear, peer: socket.socket) -> None:
        assert transport.get_extra_info("peername") == peer.getsockname()
        assert transport.get_extra_info("sockname") == peer.getpeername()
        assert transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert transport.get_extra_info("sslcontext") is None

    play(body)


def test_a_cancelled_connect_leaves_no_connection_behind(run: Run) -> None:
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


def test_an_error_in_a_connection_costs_that_connection_only(run: Run, caplog: pytest.LogCaptureFixture) -> None:
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

    def run(self, scene: Scene) -> None:
        async def bounded() -> None:
            await asyncio.wait_for(scene(), PATIENCE)

        with asyncio.Runner(loop_factory=LOOPS["native"]) as runner:
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
