"""Connections that are dead although they are open: asked before reuse, asked while streams are silent (B6, P13)."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from sidecar.http2.constants import ENHANCE_YOUR_CALM, LARGEST_STREAM_ID
from sidecar.http2.interface import Codec
from sidecar.policy.endpoint import CONNECTING, READY, TRANSIENT_FAILURE
from sidecar.proxy.pool import EndpointPool
from sidecar.proxy.settings import ConnectionSettings
from sidecar.proxy.upstream import set_user_timeout
from tests.proxy.pipe import Ear, Peer
from tests.proxy.stage import Stage, on_loop, started

ADDRESS = "10.0.0.1:50051"
OTHER = "10.0.0.2:50051"
IDLE, LIMIT = 30.0, 2.0  # the defaults
TICK = 0.01  # of the wheel, and a little
STEP = 9.0  # seconds: less than half of what a keepalive may take
LASTING = ConnectionSettings(idle_timeout=0, max_age=0)


async def idle(codec: type[Codec], seconds: float = IDLE + 1, **options: Any) -> Stage:
    """A stage whose connections have been silent for so long, with an app connected."""
    stage = await started(codec, connection=options.pop("connection", LASTING), **options)
    stage.app()
    await stage.run()
    await stage.advance(seconds)
    return stage


def call(stage: Stage) -> Ear:
    return stage.apps[0].call(end=True)


def pool_of(stage: Stage) -> EndpointPool:
    (pool,) = stage.dispatch.pools.values()
    return pool


async def pass_time(stage: Stage, seconds: float) -> None:
    """Time passes in steps so small that every PING meets its answer."""
    steps = int(seconds / STEP) + 1
    for _ in range(steps):
        await stage.advance(seconds / steps)


def freeze(*peers: Peer) -> None:
    """Octets to them are dropped, and they send nothing."""
    for peer in peers:
        peer.reading = False


async def answer_all(stage: Stage) -> None:
    for server in stage.servers:
        for connection in server.connections:
            for request in connection.streams:
                connection.answer(request)
    await stage.run()


# === before reuse ===


@on_loop
async def test_idle_connection_is_asked_first_and_the_rpc_follows_the_answer(codec: type[Codec]) -> None:
    stage = await idle(codec)
    server = stage.server.connection
    server.reading = False
    made = call(stage)
    await stage.run()
    octets = bytes(server.pipe.outbox)
    assert (len(octets), octets[3]) == (17, 6)  # one PING frame, and nothing after it
    server.reading = True
    await stage.run()
    await answer_all(stage)
    assert made.status == 0
    assert stage.server.dials == 1
    assert stage.leaks() == []


@on_loop
async def test_connection_that_was_read_from_lately_is_used_at_once(codec: type[Codec]) -> None:
    stage = await idle(codec, IDLE - 1)
    server = stage.server.connection
    server.reading = False
    call(stage)
    await stage.run()
    assert len(server.pipe.outbox) > 17
    assert server.pipe.outbox[3] == 1  # HEADERS


@on_loop
async def test_rpc_on_a_dead_idle_connection_goes_elsewhere_within_the_limit(codec: type[Codec]) -> None:
    stage = await idle(codec, servers=2)
    freeze(stage.servers[0].connection)
    stage.servers[0].hanging = True
    calls = [call(stage) for _ in range(4)]
    await stage.run()
    await answer_all(stage)
    assert sorted(made.status is None for made in calls) == [False, False, True, True]
    await stage.advance(LIMIT + TICK)
    await answer_all(stage)
    assert [made.status for made in calls] == [0] * 4
    assert stage.servers[0].requests == []
    assert stage.metrics.retries == {"not_sent": 2}
    assert stage.metrics.ping_timeouts == {"reuse": 1}
    assert stage.metrics.disconnects == {"ping_timeout": 1}
    assert stage.leaks() == []


@on_loop
async def test_endpoint_that_owes_half_the_limit_is_out_of_the_picks_and_dialled_anew(codec: type[Codec]) -> None:
    stage = await idle(codec, servers=2)
    freeze(stage.servers[0].connection)
    stage.servers[0].hanging = True
    held = [call(stage) for _ in range(2)]
    await stage.run()
    await stage.advance(LIMIT / 2 + TICK)
    endpoint = stage.endpoint(ADDRESS)
    assert (endpoint.connectivity, endpoint.last_error) == (CONNECTING, "a PING is not answered")
    assert stage.servers[0].dials == 2
    more = [call(stage) for _ in range(6)]
    await stage.run()
    await answer_all(stage)
    assert [made.status for made in more] == [0] * 6
    assert [made.status for made in held].count(None) == 1
    assert [endpoint.address for endpoint in stage.cluster.pickable] == [OTHER]


@on_loop
async def test_what_was_withheld_moves_to_the_new_connection_as_soon_as_it_is_up(codec: type[Codec]) -> None:
    """A firewall forgot the connection; the endpoint itself is well."""
    stage = await idle(codec)
    old = stage.server.connection
    freeze(old)
    made = call(stage)
    await stage.run()
    await stage.advance(LIMIT / 2 + TICK)
    assert stage.server.dials == 2
    assert old.lost
    await answer_all(stage)
    assert made.status == 0
    assert stage.endpoint(ADDRESS).connectivity == READY
    assert stage.leaks() == []


@on_loop
async def test_late_answer_brings_the_endpoint_back(codec: type[Codec]) -> None:
    stage = await idle(codec)
    stage.server.hanging = True
    freeze(stage.server.connection)
    made = call(stage)
    await stage.run()
    await stage.advance(LIMIT * 0.75)
    assert stage.endpoint(ADDRESS).connectivity == CONNECTING
    stage.server.connection.reading = True
    await stage.run()
    assert stage.endpoint(ADDRESS).connectivity == READY
    await answer_all(stage)
    assert made.status == 0
    await stage.advance(LIMIT + TICK)
    assert not stage.server.connection.lost
    assert stage.leaks() == []


@on_loop
async def test_octets_of_a_peer_that_does_not_hear_us_are_no_answer_before_reuse(codec: type[Codec]) -> None:
    """Our packets are dropped, and the peer's are not."""
    stage = await idle(codec, servers=2)
    deaf = stage.servers[0].connection
    freeze(deaf)
    stage.servers[0].hanging = True
    calls = [call(stage) for _ in range(2)]
    await stage.run()
    deaf.codec.send_ping(b"anybody?")
    await stage.advance(LIMIT + TICK)
    await answer_all(stage)
    assert [made.status for made in calls] == [0, 0]
    assert stage.metrics.ping_timeouts == {"reuse": 1}


@on_loop
async def test_rpc_waits_for_the_only_endpoint_and_fails_with_the_reason_if_that_stays_away(codec: type[Codec]) -> None:
    stage = await idle(codec)
    stage.server.refusing = OSError(113, "No route to host")
    freeze(stage.server.connection)
    made = call(stage)
    await stage.run()
    await stage.advance(LIMIT + TICK)
    assert stage.endpoint(ADDRESS).connectivity == TRANSIENT_FAILURE
    assert made.status == 14
    assert "No route to host" in made.message
    assert stage.leaks() == []


@on_loop
async def test_withheld_rpc_may_be_cancelled_and_may_time_out(codec: type[Codec]) -> None:
    stage = await idle(codec)
    server = stage.server.connection
    server.reading = False
    cancelled = call(stage)
    late = stage.apps[0].call((b"grpc-timeout", b"500m"), end=True)
    await stage.run()
    cancelled.cancel()
    await stage.advance(0.6)
    assert late.status == 4
    server.reading = True
    await stage.run()
    assert [request.reset for request in stage.server.requests] == [8, 8]
    assert stage.leaks() == []


@on_loop
async def test_zero_never_asks(codec: type[Codec]) -> None:
    stage = await idle(codec, 3000, connection=ConnectionSettings(idle_ping=0, idle_timeout=0, max_age=0))
    server = stage.server.connection
    server.reading = False
    call(stage)
    await stage.run()
    assert server.pipe.outbox[3] == 1


@on_loop
async def test_endpoint_that_never_rewards_a_ping_with_an_answer_is_not_asked_a_third_time(codec: type[Codec]) -> None:
    """A gRPC server counts PINGs between two answers, and closes the connection after a few (gRFC A8)."""
    stage = await idle(codec)
    server = stage.server.connection
    kinds = []
    for _ in range(4):
        server.reading = False
        call(stage)
        await stage.run()
        kinds.append(server.pipe.outbox[3])
        server.reading = True
        await stage.run()
        await stage.advance(IDLE + 1)
    assert kinds == [6, 6, 1, 1]
    await answer_all(stage)
    await stage.advance(IDLE + 1)
    server.reading = False
    call(stage)
    await stage.run()
    assert server.pipe.outbox[3] == 6


# === while streams are open ===

KEEPALIVE, KEPT = 360.0, 20.0  # the defaults


@on_loop
async def test_silent_stream_on_a_dead_connection_ends_as_unavailable(codec: type[Codec]) -> None:
    stage = await idle(codec, 0)
    made = call(stage)
    await stage.run()
    freeze(stage.server.connection)
    await stage.advance(KEEPALIVE + KEPT - 1)
    assert made.status is None
    await stage.advance(2)
    assert made.status == 14
    assert made.message.startswith(
        "sidecar: greeter: 10.0.0.1:50051 was lost before it answered; the RPC may have run: "
    )
    assert "no answer to a PING within 20s" in made.message
    assert stage.metrics.ping_timeouts == {"keepalive": 1}
    assert stage.leaks() == []


@on_loop
async def test_silent_stream_on_a_live_connection_goes_on(codec: type[Codec]) -> None:
    stage = await idle(codec, 0)
    made = call(stage)
    await stage.run()
    await pass_time(stage, 3 * KEEPALIVE)
    await answer_all(stage)
    assert made.status == 0


@on_loop
async def test_any_octets_answer_a_keepalive(codec: type[Codec]) -> None:
    stage = await idle(codec, 0)
    made = call(stage)
    await stage.run()
    server = stage.server.connection
    freeze(server)
    await stage.advance(KEEPALIVE + 1)
    stage.server.request.peer.respond(stage.server.request)
    await stage.run()
    await stage.advance(KEPT)
    assert made.status is None
    assert stage.metrics.ping_timeouts == {}


@on_loop
async def test_connection_without_streams_is_left_in_peace(codec: type[Codec]) -> None:
    """Servers tolerate one PING in two hours there (GR-70)."""
    stage = await idle(codec, 0)
    before = stage.server.connection.pipe.writes
    await pass_time(stage, 3 * KEEPALIVE)
    assert stage.server.connection.pipe.writes == before


@on_loop
async def test_every_read_postpones_the_question(codec: type[Codec]) -> None:
    stage = await idle(codec, 0)
    made = call(stage)
    await stage.run()
    server, request = stage.server.connection, stage.server.request
    server.respond(request)
    await stage.run()
    before = server.pipe.writes
    for _ in range(3):
        request.send(b"x")
        await pass_time(stage, KEEPALIVE * 0.9)
    assert server.pipe.writes == before
    request.end([(b"grpc-status", b"0")])
    await stage.run()
    assert made.status == 0


@on_loop
async def test_rpc_on_a_connection_whose_keepalive_is_not_answered_waits_for_it(codec: type[Codec]) -> None:
    stage = await idle(codec, 0)
    stage.server.hanging = True
    first = call(stage)
    await stage.run()
    freeze(stage.server.connection)
    await stage.advance(KEEPALIVE + 0.1)
    call(stage)
    await stage.run()
    await stage.advance(LIMIT + TICK)  # of a question before reuse, not of a keepalive
    assert first.status == 14
    assert stage.metrics.ping_timeouts == {"reuse": 1}


@on_loop
async def test_server_that_complains_of_pings_is_asked_half_as_often(codec: type[Codec]) -> None:
    stage = await idle(codec, 0)
    pool = pool_of(stage)
    stage.server.connection.codec.send_goaway(LARGEST_STREAM_ID, ENHANCE_YOUR_CALM, b"too_many_pings")
    await stage.run()
    assert (pool.trust, pool.keepalive_interval) == (2 * IDLE, 2 * KEEPALIVE)
    await stage.advance(1)
    assert stage.server.dials == 2
    call(stage)
    await stage.run()
    before = stage.server.connection.pipe.writes
    await pass_time(stage, KEEPALIVE * 1.9)
    assert stage.server.connection.pipe.writes == before
    await pass_time(stage, KEEPALIVE * 0.2)
    assert stage.server.connection.pipe.writes == before + 1


# === after a gap in time (RL-45) ===


@on_loop
async def test_after_a_suspend_deadlines_expire_and_live_connections_survive(codec: type[Codec]) -> None:
    """The machine slept in the middle of a question; the answer lies unread, or the question was lost on the way."""
    stage = await idle(codec, 0, servers=3)
    bounded = [stage.apps[0].call((b"grpc-timeout", b"60S"), end=True) for _ in range(3)]
    unbounded = [call(stage) for _ in range(3)]
    await stage.run()
    servers = [server.connection for server in stage.servers]
    freeze(*servers)
    await stage.advance(KEEPALIVE + 1)  # each was asked
    for server in servers:
        server.pipe.outbox.clear()  # and the questions were lost with the network
        server.reading = True
    stage.loop.now += 8 * 3600
    await stage.advance(0.5)
    assert [made.status for made in bounded] == [4] * 3
    await stage.advance(3 * KEPT)
    assert not any(server.lost for server in servers)
    assert stage.metrics.ping_timeouts == {}
    await answer_all(stage)
    assert [made.status for made in unbounded] == [0] * 3


@on_loop
async def test_after_a_suspend_dead_connections_are_still_found(codec: type[Codec]) -> None:
    stage = await idle(codec, 0)
    made = call(stage)
    await stage.run()
    freeze(stage.server.connection)
    await stage.advance(KEEPALIVE + 1)
    stage.loop.now += 8 * 3600
    await stage.advance(0.5)
    assert made.status is None
    await stage.advance(KEPT)
    assert made.status == 14


# === the kernel's part ===


@pytest.mark.parametrize(("seconds", "milliseconds"), [(4.0, 4000), (0.0, 0)])
def test_kernel_is_told_how_long_silence_may_last(seconds: float, milliseconds: int) -> None:
    """What it makes of that is tested in `adversity`."""
    with socket.socket() as sock:
        set_user_timeout(asyncio.BaseTransport({"socket": sock}), seconds)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == milliseconds


def test_unix_socket_has_no_such_thing() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        set_user_timeout(asyncio.BaseTransport({"socket": sock}), 4.0)


@on_loop
async def test_loss_that_the_kernel_found_has_a_name_of_its_own(codec: type[Codec]) -> None:
    stage = await idle(codec, 0)
    made = call(stage)
    await stage.run()
    stage.server.connection.hang_up(TimeoutError(110, "Connection timed out"))
    await stage.run()
    assert made.status == 14
    assert "what was sent was not acknowledged in time (connection.user_timeout)" in made.message
    assert stage.metrics.disconnects == {"unacknowledged": 1}
    assert stage.leaks() == []
