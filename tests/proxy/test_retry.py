"""Transparent retries: what certainly did not run is tried again, what may have run is not (H2-65, RT-06)."""

from __future__ import annotations

import pytest

from sidecar.http2 import constants as h2
from sidecar.http2.interface import Codec, CodecSettings
from sidecar.policy.snapshot import Member, Snapshot
from sidecar.proxy.settings import ConnectionSettings, LimitSettings
from tests.proxy.pipe import Ear
from tests.proxy.stage import Server, Stage, on_loop, started


def reached(stage: Stage) -> tuple[Server, Ear]:
    """The one server that got a request on a live stream, and the request."""
    found = [
        (server, ear) for server in stage.servers for ear in server.requests if ear.reset is None and not ear.closed
    ]
    assert len(found) == 1, found
    return found[0]


async def called(stage: Stage, body: bytes = b"question", *extra: tuple[bytes, bytes]) -> tuple[Ear, Server, Ear]:
    """An RPC that has reached a server."""
    app = stage.apps[0] if stage.apps else stage.app()
    await stage.run()
    call = app.call(*extra)
    if body:
        call.send(body)
    call.end()
    await stage.run()
    return call, *reached(stage)


@on_loop
async def test_refused_stream_is_tried_once_more_elsewhere(codec: type[Codec]) -> None:
    stage = await started(codec, servers=2)
    call, first, request = await called(stage)
    request.cancel(h2.REFUSED_STREAM)
    await stage.run()
    second, again = reached(stage)
    assert second is not first
    assert again.data == b"question"
    assert again.ended
    assert b"grpc-previous-rpc-attempts" not in request.request
    assert again.request[b"grpc-previous-rpc-attempts"] == b"1"
    second.connection.answer(again, b"answer")
    await stage.run()
    assert (call.data, call.status) == (b"answer", 0)
    assert stage.metrics.retries == {"refused_stream": 1}
    assert stage.metrics.exchange_status[0] == 1
    assert sum(stage.metrics.attempt_status) == 2
    assert [attempt.reason for attempt in stage.records[0].attempts] == ["first", "refused_stream"]
    assert stage.leaks() == []


@on_loop
async def test_where_its_level_has_no_other_instance_it_is_tried_on_the_next(codec: type[Codec]) -> None:
    stage = await started(codec, servers=2)
    call, first, request = await called(stage)
    members = tuple(Member(address=each.address, priority=int(each is not first)) for each in stage.servers)
    stage.cluster.apply(Snapshot(service="greeter", members=members, source="consul"), stage.loop.now)
    assert stage.cluster.pickable == [stage.endpoint(first.address)]
    request.cancel(h2.REFUSED_STREAM)
    await stage.run()
    second, again = reached(stage)
    assert second is not first
    second.connection.answer(again, b"answer")
    await stage.run()
    assert call.status == 0
    assert stage.leaks() == []


@on_loop
async def test_attempts_that_the_app_made_before_are_added(codec: type[Codec]) -> None:
    stage = await started(codec, servers=2)
    _, _, request = await called(stage, b"", (b"grpc-previous-rpc-attempts", b"2"))
    assert request.request[b"grpc-previous-rpc-attempts"] == b"2"
    request.cancel(h2.REFUSED_STREAM)
    await stage.run()
    assert reached(stage)[1].request[b"grpc-previous-rpc-attempts"] == b"3"


@on_loop
async def test_second_refusal_is_the_answer(codec: type[Codec]) -> None:
    stage = await started(codec, servers=3)
    call, _, request = await called(stage)
    request.cancel(h2.REFUSED_STREAM)
    await stage.run()
    reached(stage)[1].cancel(h2.REFUSED_STREAM)
    await stage.run()
    assert (call.status, call.trailers_only) == (14, True)
    assert "refused the stream; attempts: 2" in call.message
    assert stage.metrics.outcomes == {"refused": 2}
    assert stage.leaks() == []


@on_loop
async def test_refusal_after_the_response_head_is_not_retried(codec: type[Codec]) -> None:
    stage = await started(codec, servers=2)
    call, server, request = await called(stage)
    server.connection.respond(request)
    await stage.run()
    request.cancel(h2.REFUSED_STREAM)
    await stage.run()
    assert (call.status, call.trailers_only) == (14, False)
    assert sum(stage.metrics.attempt_status) == 1


@on_loop
async def test_stream_above_the_last_id_of_a_goaway_goes_elsewhere_and_the_ones_below_finish(
    codec: type[Codec],
) -> None:
    stage = await started(codec)
    app = stage.app()
    await stage.run()
    kept, moved = app.call(end=True), app.call(end=True)
    await stage.run()
    old = stage.server.connection
    await stage.advance(10)
    old.codec.send_goaway(1, h2.NO_ERROR)
    await stage.run()
    assert stage.server.connection is not old
    (again,) = stage.server.connection.streams
    stage.server.connection.answer(again, b"new")
    old.answer(old.streams[0], b"old")
    await stage.run()
    assert (kept.data, kept.status, moved.data, moved.status) == (b"old", 0, b"new", 0)
    assert stage.metrics.retries == {"goaway": 1}
    assert old.lost
    assert stage.leaks() == []


@on_loop
async def test_connection_lost_after_the_request_left_may_have_run_it(codec: type[Codec]) -> None:
    stage = await started(codec, servers=2)
    call, server, _ = await called(stage)
    server.connection.hang_up(ConnectionResetError("reset by peer"))
    await stage.run()
    assert call.status == 14
    assert "before it answered; the RPC may have run: connection lost: reset by peer" in call.message
    assert sum(stage.metrics.attempt_status) == 1
    assert stage.leaks() == []


@on_loop
async def test_connection_lost_in_the_middle_of_an_answer_says_so(codec: type[Codec]) -> None:
    stage = await started(codec)
    call, server, request = await called(stage)
    server.connection.respond(request)
    request.send(b"half")
    await stage.run()
    server.connection.hang_up()
    await stage.run()
    assert (call.data, call.status) == (b"half", 14)
    assert "in the middle of its answer" in call.message
    assert stage.leaks() == []


@on_loop
async def test_request_that_never_left_is_tried_elsewhere(codec: type[Codec]) -> None:
    """The loss is heard in the turn in which the attempt was made, before anything of it was written."""
    stage = await started(codec, servers=2)
    app = stage.app()
    await stage.run()
    call = app.call()
    call.send(b"question")
    call.end()
    data = app.codec.data_to_send()
    stage.engine.begin()
    stage.downstream[0].feed(data)  # a read that shares its flush with the next event
    (attempted,) = [e for e in stage.cluster.endpoints if e.in_flight]
    (lost,) = [server for server in stage.servers if server.address == attempted.address]
    lost.connection.pipe.closed = lost.connection.pipe.closing = True
    lost.connection.pipe.protocol.connection_lost(None)
    await stage.run()
    server, request = reached(stage)
    assert server is not lost
    assert request.data == b"question"
    server.connection.answer(request)
    await stage.run()
    assert call.status == 0
    assert stage.metrics.retries == {"not_sent": 1}
    assert stage.leaks() == []


@on_loop
async def test_request_beyond_the_replay_buffer_is_committed(codec: type[Codec]) -> None:
    """Overflow is no error: the RPC goes on, it can only not be retried (RT-04)."""
    stage = await started(codec, servers=2, limits=LimitSettings(replay_size=10_000))
    call, _, request = await called(stage, b"q" * 10_001)
    assert stage.engine.replay_size == 0
    request.cancel(h2.REFUSED_STREAM)
    await stage.run()
    assert call.status == 14
    assert stage.metrics.retries == {}
    assert stage.leaks() == []


@on_loop
async def test_replay_holds_no_more_than_its_octets_however_small_the_frames(codec: type[Codec]) -> None:
    stage = await started(codec, servers=2)
    app = stage.app()
    await stage.run()
    call = app.call()
    for n in range(5000):
        call.send(b"%d" % (n % 10))
    await stage.run()
    (exchange,) = stage.downstream[0].exchanges
    replay = exchange.request.replay
    assert replay is not None
    assert (stage.engine.replay_size, replay.size) == (5000, 5000)
    assert len(replay.chunks) <= 3
    reached(stage)[1].cancel(h2.REFUSED_STREAM)
    await stage.run()
    _, again = reached(stage)
    call.end()
    await stage.run()
    assert again.data == b"0123456789" * 500
    assert again.ended


@on_loop
async def test_replayed_octets_are_credited_once(codec: type[Codec]) -> None:
    """A retry sends them again; the app's window must not grow by it (RT-05). The app's codec would object."""
    stage = await started(codec, servers=2, limits=LimitSettings(replay_size=250_000))
    app = stage.app()
    await stage.run()
    call = app.call()
    call.send(b"a" * 200_000)
    await stage.run()
    reached(stage)[1].cancel(h2.REFUSED_STREAM)
    await stage.run()
    server, again = reached(stage)
    assert again.data == b"a" * 200_000
    call.send(b"b" * 500_000)
    call.end()
    await stage.run()
    assert again.data == b"a" * 200_000 + b"b" * 500_000
    server.connection.answer(again)
    await stage.run()
    assert call.status == 0
    assert stage.leaks() == []


@on_loop
async def test_what_comes_between_two_attempts_may_overflow_the_replay_and_loses_nothing(codec: type[Codec]) -> None:
    """The beginning is then in the replay only, which the overflow drops."""
    stage = await started(codec, limits=LimitSettings(replay_size=1000))
    app = stage.app()
    await stage.run()
    call = app.call()
    call.send(b"beginning ")
    await stage.advance(10)
    stage.server.hanging = True
    stage.server.connection.codec.send_goaway(0, h2.NO_ERROR)
    await stage.run()
    assert stage.metrics.queued == 1
    call.send(b"x" * 2000)
    call.end()
    await stage.run()
    assert stage.engine.replay_size == 0
    stage.add_server("10.0.0.2:50051")
    stage.discover("10.0.0.1:50051", "10.0.0.2:50051")
    await stage.run()
    connection = stage.dispatch.servers["10.0.0.2:50051"].connection
    (again,) = connection.streams
    assert again.data == b"beginning " + b"x" * 2000
    connection.answer(again)
    await stage.run()
    assert call.status == 0
    assert stage.leaks() == []


@on_loop
async def test_request_still_streaming_is_continued_on_the_second_attempt(codec: type[Codec]) -> None:
    stage = await started(codec, servers=2)
    app = stage.app()
    await stage.run()
    call = app.call()
    call.send(b"one ")
    await stage.run()
    reached(stage)[1].cancel(h2.REFUSED_STREAM)
    await stage.run()
    call.send(b"two")
    call.end([(b"x-sum", b"2")])
    await stage.run()
    _, again = reached(stage)
    assert (again.data, again.trailers) == (b"one two", {b"x-sum": b"2"})


@on_loop
async def test_retry_that_has_to_wait_is_counted_once_and_gives_up_in_time(codec: type[Codec]) -> None:
    """The only endpoint goes away and never comes back."""
    stage = await started(codec)
    call, server, _ = await called(stage)
    await stage.advance(10)
    server.hanging = True
    server.connection.codec.send_goaway(0, h2.NO_ERROR)
    await stage.run()
    assert not call.ended
    stage.cluster.refresh()
    await stage.run()
    stage.cluster.refresh()
    await stage.advance(2.9)
    assert not call.ended
    await stage.advance(0.2)
    assert call.status == 14
    assert "gave up after 3s" in call.message
    assert stage.metrics.retries == {}
    assert stage.metrics.refusals == {"queue_timeout": 1}
    assert stage.leaks() == []


@on_loop
async def test_deadline_of_a_retry_that_waits_is_kept(codec: type[Codec]) -> None:
    stage = await started(codec)
    call, server, _ = await called(stage, b"x", (b"grpc-timeout", b"12S"))
    await stage.advance(10)
    server.hanging = True
    server.connection.codec.send_goaway(0, h2.NO_ERROR)
    await stage.advance(2.1)
    assert call.status == 4
    assert stage.leaks() == []


@on_loop
async def test_app_that_cancels_a_retry_that_waits_leaves_nothing(codec: type[Codec]) -> None:
    stage = await started(codec)
    call, server, _ = await called(stage)
    await stage.advance(10)
    server.hanging = True
    server.connection.codec.send_goaway(0, h2.NO_ERROR)
    await stage.run()
    call.cancel()
    await stage.run()
    assert stage.metrics.exchange_status[1] == 1
    assert stage.leaks() == []


@on_loop
async def test_retries_are_placed_before_those_that_wait(codec: type[Codec]) -> None:
    one = CodecSettings(max_concurrent_streams=1, reset_burst=10**9)
    stage = await started(codec, server_settings=one, connection=ConnectionSettings(max_connections=1))
    _, server, request = await called(stage, b"first")
    waiting = stage.apps[0].call(end=True)
    await stage.run()
    assert stage.metrics.queued == 1
    request.cancel(h2.REFUSED_STREAM)
    await stage.run()
    (again,) = [ear for ear in server.requests if ear.reset is None and not ear.closed]
    assert again.data == b"first"
    assert not waiting.ended


@pytest.mark.parametrize("code", [h2.CANCEL, h2.NO_ERROR, h2.ENHANCE_YOUR_CALM, h2.INTERNAL_ERROR])
@on_loop
async def test_no_other_reset_is_retried(codec: type[Codec], code: int) -> None:
    stage = await started(codec, servers=2)
    _, _, request = await called(stage)
    request.cancel(code)
    await stage.run()
    assert sum(stage.metrics.attempt_status) == 1
    assert stage.leaks() == []
