"""Who waits for an endpoint, in which order and for how long; and the reasons of those that need not wait."""

from __future__ import annotations

import pytest

from sidecar.http2.interface import Codec, CodecSettings
from sidecar.proxy.settings import ConnectionSettings, LimitSettings
from tests.proxy.pipe import Ear
from tests.proxy.stage import Stage, on_loop, started

ONE = {
    "server_settings": CodecSettings(max_concurrent_streams=1, reset_burst=10**9),
    "connection": ConnectionSettings(max_connections=1),
}


def named(number: int) -> tuple[bytes, bytes]:
    return (b"x-number", b"%d" % number)


async def queue(stage: Stage, count: int, first: int = 0) -> list[Ear]:
    """RPCs, one read event each."""
    app = stage.apps[0] if stage.apps else stage.app()
    await stage.run()
    made = []
    for number in range(first, first + count):
        made.append(app.call(named(number), end=True))
        await stage.run()
    return made


def served(stage: Stage) -> list[int]:
    return [int(request.request[b"x-number"]) for request in stage.server.requests]


@on_loop
async def test_rpcs_are_placed_in_the_order_in_which_they_came(codec: type[Codec]) -> None:
    """One slot at a time: who is looked at and cannot be placed keeps its place."""
    stage = await started(codec, **ONE)
    made = await queue(stage, 8)
    for _ in range(8):
        connection = stage.server.connection
        connection.answer(next(request for request in connection.streams if not request.closed))
        await stage.run()
    assert served(stage) == list(range(8))
    assert [call.status for call in made] == [0] * 8
    assert stage.leaks() == []


@on_loop
async def test_late_rpc_does_not_overtake_those_that_wait(codec: type[Codec]) -> None:
    stage = await started(codec, **ONE)
    await queue(stage, 3)
    connection = stage.server.connection
    connection.answer(connection.streams[0])
    stage.apps[0].call(named(99), end=True)
    await stage.run()
    assert served(stage)[:2] == [0, 1]


@on_loop
async def test_time_in_the_queue_is_counted_from_its_beginning(codec: type[Codec]) -> None:
    """However often it was looked at meanwhile (F16)."""
    stage = await started(codec, **ONE, limits=LimitSettings(queue_timeout=3))
    made = await queue(stage, 5)
    for _ in range(2):
        await stage.advance(1)
        connection = stage.server.connection
        connection.answer(next(request for request in connection.streams if not request.closed))
        await stage.run()
    await stage.advance(1.1)
    assert [call.status for call in made] == [0, 0, None, 14, 14]
    assert "gave up after 3s" in made[3].message
    assert "all stream slots of the 1 connected of its 1 instance(s) are taken" in made[3].message
    assert stage.metrics.refusals == {"queue_timeout": 2}


@on_loop
async def test_queue_is_bounded_in_number(codec: type[Codec]) -> None:
    stage = await started(codec, discovered=False, limits=LimitSettings(max_queued=2))
    made = await queue(stage, 3)
    assert [call.status for call in made] == [None, None, 14]
    assert "the registry has not answered yet" in made[2].message
    assert "2 RPCs wait already" in made[2].message
    assert stage.metrics.refusals == {"queue_full": 1}


@on_loop
async def test_rpcs_that_ended_while_they_waited_take_no_place_in_the_queue(codec: type[Codec]) -> None:
    stage = await started(codec, discovered=False, limits=LimitSettings(max_queued=2))
    for _ in range(5):
        made = await queue(stage, 2)
        for call in made:
            call.cancel()
        await stage.run()
    assert stage.metrics.refusals == {}
    assert stage.leaks() == []


@on_loop
async def test_deadline_ends_the_wait_and_its_place_is_free(codec: type[Codec]) -> None:
    stage = await started(codec, discovered=False, limits=LimitSettings(max_queued=1))
    app = stage.app()
    await stage.run()
    call = app.call((b"grpc-timeout", b"1S"), end=True)
    await stage.run()
    await stage.advance(1.1)
    assert call.status == 4
    (later,) = await queue(stage, 1)
    stage.discover("10.0.0.1:50051")
    await stage.run()
    stage.server.connection.answer(stage.server.request)
    await stage.run()
    assert later.status == 0


@on_loop
async def test_empty_upstream_is_refused_at_once(codec: type[Codec]) -> None:
    stage = await started(codec, servers=[])
    (call,) = await queue(stage, 1)
    assert (call.status, call.trailers_only) == (14, True)
    assert call.message == "sidecar: greeter: consul lists no healthy instance of it; attempts: 0"
    assert stage.metrics.refusals == {"no_members": 1}
    assert stage.leaks() == []


@on_loop
async def test_those_who_wait_are_refused_when_waiting_becomes_useless(codec: type[Codec]) -> None:
    stage = await started(codec, discovered=False)
    made = await queue(stage, 3)
    stage.server.refusing = ConnectionRefusedError(111, "refused")
    stage.discover("10.0.0.1:50051")
    await stage.run()
    assert [call.status for call in made] == [14, 14, 14]
    assert stage.metrics.refusals == {"all_failing": 3}
    assert stage.leaks() == []


@pytest.mark.parametrize("reason", ["never_discovered", "all_connecting"])
@on_loop
async def test_those_who_wait_are_told_what_for(codec: type[Codec], reason: str) -> None:
    stage = Stage(codec, discovered=reason == "all_connecting")
    stage.server.hanging = True
    (call,) = await queue(stage, 1)
    await stage.advance(3.1)
    assert call.status == 14
    assert ("still connecting to 1 of 1" if reason == "all_connecting" else "not answered yet") in call.message
    assert "gave up after 3s" in call.message


@on_loop
async def test_endpoint_with_a_free_slot_is_taken_before_anyone_waits(codec: type[Codec]) -> None:
    stage = await started(codec, servers=3, **ONE)
    await queue(stage, 3)
    assert [len(server.requests) for server in stage.servers] == [1, 1, 1]
    assert stage.metrics.queued == 0


@on_loop
async def test_closing_twice_is_closing_once(codec: type[Codec]) -> None:
    """A retired upstream may become idle while the process ends: both then close it."""
    stage = await started(codec, discovered=False)
    (call,) = await queue(stage, 1)
    stage.dispatch.close("no longer configured")
    stage.dispatch.close("shutting_down")
    await stage.run()
    assert (call.status, call.message) == (14, "sidecar: greeter: no longer configured; attempts: 0")
    assert stage.metrics.refusals == {"shutting_down": 1}
    assert stage.leaks() == []


@on_loop
async def test_new_limits_hold_for_rpcs_from_now_on(codec: type[Codec]) -> None:
    stage = await started(codec)
    made = await queue(stage, 2)
    stage.dispatch.reconfigure(ConnectionSettings(), LimitSettings(max_in_flight=1))
    (refused,) = await queue(stage, 1, first=2)
    assert refused.status == 14
    for request in stage.server.requests:
        stage.server.connection.answer(request)
    await stage.run()
    assert [call.status for call in made] == [0, 0]


@on_loop
async def test_rpc_that_comes_in_the_turn_in_which_a_slot_becomes_free_does_not_overtake(codec: type[Codec]) -> None:
    """Several sockets are read before the queue is looked at."""
    stage = await started(codec, **ONE)
    await queue(stage, 3)
    app, connection = stage.apps[0], stage.server.connection
    connection.answer(connection.streams[0])
    app.call(named(99), end=True)
    stage.engine.begin()
    (upstream,) = [c for c in stage.engine.connections if c not in stage.downstream]
    upstream.feed(connection.codec.data_to_send())
    stage.downstream[0].feed(app.codec.data_to_send())
    stage.engine.settle()
    await stage.run()
    assert served(stage) == [0, 1]
    assert stage.metrics.refusals == {}
