"""The connections to one endpoint: when they are made, reused, replaced and closed."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.http2 import constants as h2
from sidecar.http2.interface import Codec, CodecSettings
from sidecar.policy.cluster import Cluster
from sidecar.policy.endpoint import CONNECTING, IDLE, READY, TRANSIENT_FAILURE
from sidecar.proxy.engine import PROBE_EVERY
from sidecar.proxy.settings import ConnectionSettings, Http2Settings
from sidecar.proxy.upstream import STREAM_ID_LIMIT
from tests.proxy.call import calls
from tests.proxy.stage import InTurn, Stage, on_loop, started

ADDRESS = "10.0.0.1:50051"
ONE_STREAM = CodecSettings(max_concurrent_streams=1, reset_burst=10**9)


async def answer_all(stage: Stage) -> None:
    """The server answers what has come."""
    for connection in stage.server.connections:
        for request in connection.streams:
            if not request.closed:
                connection.answer(request)
    await stage.run()


# === connecting ===


@on_loop
async def test_discovered_endpoint_is_connected_before_any_rpc(codec: type[Codec]) -> None:
    stage = await started(codec, servers=3)
    assert [server.dials for server in stage.servers] == [1, 1, 1]
    assert [endpoint.connectivity for endpoint in stage.cluster.endpoints] == [READY] * 3


class Told(InTurn):
    """Counts how often the balancer was told of a change."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0

    def on_change(self, cluster: Cluster) -> None:
        self.changes += 1


@on_loop
async def test_endpoints_that_connect_in_one_turn_are_one_change(codec: type[Codec]) -> None:
    """Each change looks at every member: a thousand connects would be a million looks."""
    told = Told()
    stage = await started(codec, servers=60, balancer=told)
    assert len(stage.cluster.pickable) == 60
    # One for the members, one for each of the connects before it was noticed that they come in bunches, and one.
    assert told.changes <= 1 + PROBE_EVERY + 1


@on_loop
async def test_lazy_endpoint_is_connected_for_the_first_rpc(codec: type[Codec]) -> None:
    stage = await started(codec, connection=ConnectionSettings(eager=False))
    assert stage.server.dials == 0
    (call,) = calls(stage, 1)
    await stage.run()
    await answer_all(stage)
    assert (call.status, stage.server.dials) == (0, 1)


@on_loop
async def test_rpcs_share_one_connection(codec: type[Codec]) -> None:
    stage = await started(codec)
    made = calls(stage, 50)
    await stage.run()
    await answer_all(stage)
    assert all(call.status == 0 for call in made)
    assert stage.server.dials == 1


@on_loop
async def test_connection_lost_before_its_dial_has_returned_is_dialled_again(codec: type[Codec]) -> None:
    stage = Stage(codec)
    while not stage.server.connections:
        await asyncio.sleep(0)
    stage.server.connection.exchange()
    assert stage.endpoint(ADDRESS).connectivity == READY
    stage.server.connection.codec.send_goaway(0, h2.NO_ERROR)
    stage.server.connection.exchange()
    assert stage.endpoint(ADDRESS).connectivity == CONNECTING
    stage.loop.advance(1)  # the redial comes due in the very turn in which the dial would return
    await stage.run()
    assert (stage.endpoint(ADDRESS).connectivity, stage.server.dials) == (READY, 2)


@on_loop
async def test_endpoint_that_cannot_be_reached_is_dialled_again_after_a_growing_wait(codec: type[Codec]) -> None:
    stage = Stage(codec, connection=ConnectionSettings(backoff_base=1, backoff_max=4))
    stage.server.refusing = ConnectionRefusedError(111, "refused")
    await stage.run()
    dials = []
    for _ in range(20):
        dials.append(stage.server.dials)
        await stage.advance(1)
    assert dials[0] == 1
    assert dials[2] == 2
    assert 5 <= dials[-1] <= 8
    endpoint = stage.endpoint(ADDRESS)
    assert (endpoint.connectivity, endpoint.last_error) == (TRANSIENT_FAILURE, "connection refused")
    assert stage.server.most_dials == 1
    assert stage.metrics.connect_failures["refused"] == stage.metrics.connects


@on_loop
async def test_failing_stays_failing_while_it_is_dialled_again(codec: type[Codec]) -> None:
    """So that RPCs fail at once with the reason, instead of waiting out each connect (LB-12)."""
    stage = Stage(codec)
    stage.server.refusing = ConnectionRefusedError(111, "refused")
    await stage.run()
    stage.server.hanging = True
    await stage.advance(1)
    assert stage.server.dialling == 1
    (call,) = calls(stage, 1)
    await stage.run()
    assert call.status == 14
    assert call.message.endswith(
        "none of its 1 instance(s) can be reached; last error: 10.0.0.1:50051: connection refused; attempts: 0"
    )
    assert stage.leaks() == []


@pytest.mark.parametrize("error", [OverflowError("port must be 0-65535"), ValueError("no port"), UnicodeError("host")])
@on_loop
async def test_address_that_makes_no_sense_is_a_failure_like_any_other(codec: type[Codec], error: Exception) -> None:
    """It must not leave the endpoint connecting for good, which would keep RPCs waiting (LB-12)."""
    stage = Stage(codec)
    stage.server.refusing = error
    await stage.run()
    endpoint = stage.endpoint(ADDRESS)
    assert endpoint.connectivity == TRANSIENT_FAILURE
    assert str(error) in endpoint.last_error
    stage.server.refusing = None
    await stage.advance(1)
    assert endpoint.connectivity == READY


@on_loop
async def test_server_that_accepts_and_says_nothing_is_given_up(codec: type[Codec]) -> None:
    """The connect ends with the peer's SETTINGS, not with the socket."""
    stage = Stage(codec, connection=ConnectionSettings(connect_timeout=0.01))
    stage.server.silent = True
    endpoint = stage.endpoint(ADDRESS)
    for _ in range(1000):
        await stage.run()
        if endpoint.connectivity == TRANSIENT_FAILURE:
            break
        await asyncio.sleep(0.005)  # the connect timeout runs on the loop's own clock
    assert endpoint.last_error == "no connection within 0.01s"
    assert stage.metrics.connect_failures == {"timeout": 1}
    await stage.run()
    assert stage.server.connection.lost


@on_loop
async def test_connection_closed_before_its_settings_is_a_failed_connect(codec: type[Codec]) -> None:
    stage = Stage(codec)
    stage.server.silent = True
    await stage.run()
    stage.server.connection.hang_up()
    await stage.run()
    assert stage.endpoint(ADDRESS).connectivity == TRANSIENT_FAILURE
    assert stage.metrics.connect_failures == {"closed": 1}
    stage.server.silent = False
    await stage.advance(1)
    assert stage.endpoint(ADDRESS).connectivity == READY


@on_loop
async def test_lost_connection_is_replaced_at_once(codec: type[Codec]) -> None:
    stage = await started(codec)
    await stage.advance(10)
    stage.server.connection.hang_up()
    await stage.run()
    assert (stage.server.dials, stage.endpoint(ADDRESS).connectivity) == (2, READY)
    assert stage.metrics.disconnects == {"lost": 1}


@on_loop
async def test_connections_that_do_not_live_are_not_made_in_a_loop(codec: type[Codec]) -> None:
    """A server that accepts and drops each connection at once is dialled with backoff."""
    stage = await started(codec)
    for _ in range(20):
        stage.server.connection.hang_up()
        await stage.run()
    assert stage.server.dials <= 3


@on_loop
async def test_no_more_than_the_allowed_connects_run_at_a_time(codec: type[Codec]) -> None:
    addresses = [f"10.0.{n // 250}.{n % 250}:1" for n in range(200)]
    stage = Stage(codec, servers=addresses)
    for server in stage.servers:
        server.hanging = True
    await stage.run()
    assert sum(server.dialling for server in stage.servers) == 64
    for pool in list(stage.dispatch.pools.values()):
        pool.close("test")
    await stage.run()


# === the peer's stream limit (H2-71, H2-72) ===


@on_loop
async def test_stream_limit_opens_another_connection_then_queues_then_goes_on(codec: type[Codec]) -> None:
    stage = await started(codec, server_settings=ONE_STREAM, connection=ConnectionSettings(max_connections=2))
    made = calls(stage, 4)
    await stage.run()
    assert len(stage.server.connections) == 2
    assert [len(connection.streams) for connection in stage.server.connections] == [1, 1]
    assert (stage.metrics.queued, stage.endpoint(ADDRESS).saturated) == (2, True)
    for _ in range(3):
        await answer_all(stage)
    assert [call.status for call in made] == [0, 0, 0, 0]
    assert stage.server.dials == 2
    assert not stage.endpoint(ADDRESS).saturated
    assert stage.leaks() == []


@on_loop
async def test_oldest_connection_with_a_free_slot_is_taken(codec: type[Codec]) -> None:
    stage = await started(codec, server_settings=ONE_STREAM)
    calls(stage, 2)
    await stage.run()
    await answer_all(stage)
    for _ in range(3):
        calls(stage, 1)
        await stage.run()
        await answer_all(stage)
    assert [len(connection.streams) for connection in stage.server.connections] == [4, 1]


@on_loop
async def test_limit_that_is_raised_lets_those_who_wait_go(codec: type[Codec]) -> None:
    stage = await started(codec, server_settings=ONE_STREAM, connection=ConnectionSettings(max_connections=1))
    calls(stage, 3)
    await stage.run()
    assert len(stage.server.requests) == 1
    raised = b"\x00\x00\x06\x04\x00\x00\x00\x00\x00" + b"\x00\x03\x00\x00\x00\x09"
    stage.server.connection.codec.settings = CodecSettings(max_concurrent_streams=9)
    stage.server.connection.write(raised)
    await stage.run()
    assert stage.metrics.queued == 0


@on_loop
async def test_limit_is_never_exceeded_whatever_the_order(codec: type[Codec]) -> None:
    settings = CodecSettings(max_concurrent_streams=3, reset_burst=10**9)
    stage = await started(codec, server_settings=settings, connection=ConnectionSettings(max_connections=2))
    made = calls(stage, 30)
    most = 0
    for _ in range(40):
        await stage.run()
        for connection in stage.server.connections:
            live = [request for request in connection.streams if not request.closed]
            most = max(most, len(live))
            if live:
                connection.answer(live[0])
    await stage.run()
    assert most == 3
    assert [call.status for call in made] == [0] * 30
    assert stage.metrics.outcomes == {}


# === leaving a connection ===


@on_loop
async def test_goaway_replaces_the_connection_while_its_rpcs_finish(codec: type[Codec]) -> None:
    stage = await started(codec)
    (call,) = calls(stage, 1)
    await stage.run()
    await stage.advance(5)
    old, request = stage.server.connection, stage.server.request
    old.codec.send_goaway(h2.LARGEST_STREAM_ID, h2.NO_ERROR)
    await stage.run()
    assert stage.server.dials == 2
    (later,) = calls(stage, 1)
    await stage.run()
    assert len(stage.server.connection.streams) == 1
    assert not old.lost
    old.answer(request)
    await stage.run()
    assert call.status == 0
    assert old.lost
    assert old.goaways == [(0, h2.NO_ERROR)]
    await answer_all(stage)
    assert later.status == 0
    assert stage.metrics.disconnects == {"goaway": 1}
    assert stage.endpoint(ADDRESS).failures == 0


@on_loop
async def test_old_connection_is_replaced_before_it_is_drained(codec: type[Codec]) -> None:
    stage = await started(codec, connection=ConnectionSettings(max_age=100))
    (call,) = calls(stage, 1)
    await stage.run()
    request = stage.server.request
    await stage.advance(111)
    old, young = stage.server.connections
    (later,) = calls(stage, 1)
    await stage.run()
    assert len(young.streams) == 1
    assert not old.lost
    old.answer(request)
    await answer_all(stage)
    assert (call.status, later.status) == (0, 0)
    assert old.lost
    assert stage.metrics.disconnects == {"max_age": 1}


@on_loop
async def test_old_connection_stays_in_use_while_it_cannot_be_replaced(codec: type[Codec]) -> None:
    stage = await started(codec, connection=ConnectionSettings(max_age=100))
    stage.server.refusing = ConnectionRefusedError(111, "refused")
    for _ in range(30):
        await stage.advance(5)
    assert stage.endpoint(ADDRESS).connectivity == READY
    (call,) = calls(stage, 1)
    await stage.run()
    await answer_all(stage)
    assert call.status == 0
    stage.server.refusing = None
    await stage.advance(60)
    assert len(stage.server.connections) == 2
    assert stage.server.connections[0].lost


@on_loop
async def test_age_of_connections_is_spread(codec: type[Codec]) -> None:
    stage = await started(codec, servers=20, connection=ConnectionSettings(max_age=100))
    before = []
    for _ in range(25):
        await stage.advance(1 if before else 88)
        before.append(sum(len(server.connections) for server in stage.servers))
    assert before[0] == 20
    assert before[-1] == 40
    assert len(set(before)) > 5


@on_loop
async def test_idle_connection_beyond_the_first_is_closed(codec: type[Codec]) -> None:
    stage = await started(codec, server_settings=ONE_STREAM, connection=ConnectionSettings(idle_timeout=60))
    calls(stage, 2)
    await stage.run()
    await answer_all(stage)
    assert len(stage.server.connections) == 2
    for _ in range(30):
        await stage.advance(10)
    assert [connection.lost for connection in stage.server.connections].count(False) == 1
    assert stage.metrics.disconnects == {"idle": 1}
    assert stage.endpoint(ADDRESS).connectivity == READY


@on_loop
async def test_idle_connection_of_a_lazy_endpoint_is_closed_and_made_anew_on_demand(codec: type[Codec]) -> None:
    stage = await started(codec, connection=ConnectionSettings(eager=False, idle_timeout=60))
    calls(stage, 1)
    await stage.run()
    await answer_all(stage)
    for _ in range(20):
        await stage.advance(10)
    assert stage.server.connection.lost
    assert stage.endpoint(ADDRESS).connectivity == IDLE
    (call,) = calls(stage, 1)
    await stage.run()
    await answer_all(stage)
    assert call.status == 0


class LateIds(Http2Settings, frozen=True, kw_only=True):
    """Connections whose ids begin near the end of what is used of them."""

    first_stream_id: int = 0

    def codec_settings(self) -> CodecSettings:
        import msgspec

        return msgspec.structs.replace(super().codec_settings(), first_stream_id=self.first_stream_id)


@on_loop
async def test_connection_that_runs_out_of_stream_ids_is_replaced_in_time(codec: type[Codec]) -> None:
    stage = await started(codec, http2=LateIds(first_stream_id=STREAM_ID_LIMIT // 2 * 2 - 3))
    for n in range(6):
        (call,) = calls(stage, 1)
        await stage.run()
        await answer_all(stage)
        assert call.status == 0, n
        await stage.advance(1)
    assert len(stage.server.connections) >= 2
    assert stage.metrics.disconnects["stream_ids"] >= 1
    assert stage.leaks() == []


@on_loop
async def test_last_stream_id_of_all_is_used_and_no_rpc_is_lost(codec: type[Codec]) -> None:
    stage = await started(codec, http2=LateIds(first_stream_id=h2.LARGEST_STREAM_ID - 2))
    made = calls(stage, 5)
    for _ in range(8):
        await stage.run()
        await stage.advance(1)
    await answer_all(stage)
    assert [call.status for call in made] == [0] * 5
    assert stage.leaks() == []


@on_loop
async def test_connection_lost_at_the_end_of_its_ids_is_forgotten(codec: type[Codec]) -> None:
    stage = await started(codec, http2=LateIds(first_stream_id=STREAM_ID_LIMIT // 2 * 2 + 1))
    calls(stage, 1)
    await stage.run()
    stage.server.connection.hang_up()
    await stage.run()
    assert not any(pool.draining for pool in stage.dispatch.pools.values())
    assert stage.leaks() == []
