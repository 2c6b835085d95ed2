"""What an upstream configures beyond the plain caps, on the data path: limits, overload, faults and mirrors."""

from __future__ import annotations

import random
from typing import Any

import pytest

from sidecar.http2 import constants as h2
from sidecar.http2.interface import Codec
from sidecar.policy.admission import Admission
from sidecar.policy.concurrency import Concurrency, ConcurrencySettings
from sidecar.policy.fault import Faults, FaultSettings
from sidecar.policy.method import MethodTable
from sidecar.policy.method_settings import MethodSettings
from sidecar.policy.mirror_settings import MirrorSettings
from sidecar.policy.rate import RateSettings
from sidecar.policy.shedding import STANDING
from sidecar.proxy.gate import Gate
from sidecar.proxy.mirror import Mirror
from sidecar.proxy.settings import BufferSettings, LimitSettings
from tests.proxy.call import OK, called
from tests.proxy.pipe import REQUEST, Ear, Peer
from tests.proxy.stage import Stage, on_loop, started

SHADOW = "10.9.0.1:50051"


async def gated(
    codec: type[Codec],
    *faults: FaultSettings,
    adaptive: Concurrency | None = None,
    mirror: MirrorSettings | None = None,
    **options: Any,
) -> tuple[Stage, Peer]:
    """A stage whose upstream has a gate, and an app that has dialled."""
    stage = await started(codec, **options)
    copies = None
    if mirror is not None:
        copies = Mirror(mirror, stage.dispatch, stage.add_upstream("shadow", SHADOW).dispatch)
    rules = Faults(faults, stage.loop.now)
    stage.dispatch.gate = Gate(stage.dispatch, Admission("greeter", adaptive), rules, copies)
    app = stage.app()
    await stage.run()
    return stage, app


async def answered(stage: Stage, app: Peer, *extra: tuple[bytes, bytes]) -> Ear:
    call = app.call(*extra, end=True)
    await stage.run()
    for request in stage.server.requests:
        if not request.responded:
            request.responded = True
            stage.server.connection.answer(request)
    await stage.run()
    return call


def pushback(call: Ear) -> int:
    return int((call.head or {})[b"grpc-retry-pushback-ms"])


# === limits ===


@on_loop
async def test_more_rpcs_per_second_than_the_limit_are_refused_and_told_when_to_come_again(codec: type[Codec]) -> None:
    stage, app = await gated(codec)
    stage.dispatch.methods = MethodTable(MethodSettings(rate=RateSettings(per_second=10, burst=2)), {})
    calls = [await answered(stage, app) for _ in range(3)]
    assert [call.status for call in calls] == [0, 0, 8]
    assert calls[2].trailers_only
    assert "the limit of 10 RPCs/s (burst 2) is reached (rate)" in calls[2].message
    assert pushback(calls[2]) == 100
    assert stage.metrics.refusals == {"rate_limit": 1}
    await stage.advance(0.1)
    assert (await answered(stage, app)).status == 0
    assert stage.leaks() == []


@on_loop
async def test_a_method_may_have_a_limit_of_its_own(codec: type[Codec]) -> None:
    stage, app = await gated(codec)
    limited = MethodSettings(rate=RateSettings(per_second=1, burst=1))
    stage.dispatch.methods = MethodTable(
        MethodSettings(rate=RateSettings(per_second=100, burst=2)),
        {"/greeter.Greeter/SayHello": limited, "/greeter.Greeter/*": MethodSettings()},
    )
    calls = [await answered(stage, app) for _ in range(2)]
    assert [call.status for call in calls] == [0, 8]
    assert "(methods./greeter.Greeter/SayHello.rate)" in calls[1].message
    paths = [b"/greeter.Greeter/Other", b"/other.Service/Get", b"/greeter.Greeter/Other"]
    heads = [[(name, path if name == b":path" else value) for name, value in REQUEST] for path in paths]
    rest = [app.call(head=head, end=True) for head in heads]
    await stage.run()
    assert [call.status for call in rest] == [None, None, 8]  # those without one of their own share the upstream's


@on_loop
async def test_the_adaptive_limit_hears_of_every_answer_and_refuses_what_is_above_it(codec: type[Codec]) -> None:
    adaptive = Concurrency(ConcurrencySettings(max_limit=2, min_limit=1), random.Random(1))
    stage, app = await gated(codec, adaptive=adaptive)
    for _ in range(30):
        call = app.call(end=True)
        await stage.run()
        await stage.advance(0.02)
        stage.server.connection.answer(stage.server.requests[-1])
        await stage.run()
        assert call.status == 0
    assert round(adaptive.baseline, 6) == 0.02
    assert stage.metrics.concurrency_limit == 2
    held = [app.call(end=True) for _ in range(3)]
    await stage.run()
    assert [call.status for call in held] == [None, None, 14]
    assert "it bears no more at present" in held[2].message
    assert stage.metrics.refusals == {"concurrency_limit": 1}


# === overload ===


@on_loop
async def test_a_part_of_the_rpcs_is_refused_while_the_loop_stays_late(codec: type[Codec]) -> None:
    stage, app = await gated(codec)
    for _ in range(STANDING + 4):
        stage.engine.note_lag(0.7)
    calls = [await answered(stage, app) for _ in range(10)]
    refused = [call for call in calls if call.status == 14]
    assert len(refused) == 5
    assert (
        "its event loop is 700 ms late, so that it refuses 50%25 of new RPCs (overload.max_lag)" in refused[0].message
    )
    assert all(500 <= pushback(call) <= 1500 for call in refused)
    assert stage.metrics.refusals == {"overloaded": 5}
    for _ in range(20):
        stage.engine.note_lag(0.0)
    assert not stage.engine.strained
    assert [(await answered(stage, app)).status for _ in range(5)] == [0] * 5
    assert stage.leaks() == []


@on_loop
async def test_where_memory_is_short_replays_go_first_and_new_rpcs_second(codec: type[Codec]) -> None:
    stage = await started(codec, buffers=BufferSettings(soft_limit=50_000, hard_limit=100_000))
    app = stage.app()
    await stage.run()
    stalled = app.call()
    stalled.crediting = False
    await stage.run()
    stage.server.connection.respond(stage.server.request)
    while not stage.engine.holding:
        stage.server.request.send(b"x" * 20_000)
        await stage.run()
    assert not stage.engine.full
    call = app.call()
    call.send(b"12345")
    await stage.run()
    assert stage.engine.replay_size == 0
    assert stage.server.requests[-1].data == b"12345"
    for _ in range(3):
        stage.server.requests[0].send(b"x" * 20_000)
        await stage.run()
    assert stage.engine.full
    refused = app.call(end=True)
    await stage.run()
    assert (refused.status, stage.metrics.refusals) == (8, {"buffers_full": 1})


# === faults ===


@on_loop
async def test_an_aborted_rpc_is_answered_with_its_status_and_no_endpoint_sees_it(codec: type[Codec]) -> None:
    stage, app = await gated(codec, FaultSettings(abort="NOT_FOUND"))
    call = await answered(stage, app)
    assert (call.status, call.trailers_only, stage.server.requests) == (5, True, [])
    assert call.message == "sidecar: greeter: injected on purpose by faults[0] of this upstream; attempts: 0"
    assert stage.metrics.faults == {"abort": 1}
    assert stage.leaks() == []


@on_loop
async def test_a_reset_rpc_gets_no_status(codec: type[Codec]) -> None:
    stage, app = await gated(codec, FaultSettings(reset=True))
    call = await answered(stage, app)
    assert (call.reset, call.head, stage.server.requests) == (h2.INTERNAL_ERROR, None, [])
    assert stage.metrics.faults == {"reset": 1}
    assert stage.leaks() == []


@on_loop
async def test_a_delayed_rpc_goes_on_by_itself_with_all_that_came_meanwhile(codec: type[Codec]) -> None:
    stage, app = await gated(codec, FaultSettings(delay=0.5))
    call = app.call()
    call.send(b"12345")
    call.end()
    await stage.run()
    await stage.advance(0.4)
    assert stage.server.requests == []
    await stage.advance(0.2)
    assert (stage.server.request.data, stage.server.request.ended) == (b"12345", True)
    stage.server.connection.answer(stage.server.request)
    await stage.run()
    assert (call.status, stage.metrics.faults) == (0, {"delay": 1})
    assert stage.leaks() == []


@on_loop
async def test_a_delayed_rpc_still_has_its_deadline_and_may_be_given_up(codec: type[Codec]) -> None:
    stage, app = await gated(codec, FaultSettings(delay=5.0, abort="UNAVAILABLE"))
    late = app.call((b"grpc-timeout", b"100m"), end=True)
    gone = app.call(end=True)
    await stage.run()
    gone.cancel()
    await stage.advance(0.2)
    assert late.status == 4
    assert stage.leaks() == []
    await stage.advance(10.0)
    assert stage.metrics.faults == {"delay": 2}
    assert stage.dispatch.gate is not None
    assert "0 RPCs have it now" in next(iter(stage.dispatch.gate.notes(stage.loop.now)))


@on_loop
async def test_no_more_rpcs_than_the_cap_are_held_back_at_a_time(codec: type[Codec]) -> None:
    stage, app = await gated(codec, FaultSettings(delay=5.0, max_active=2))
    calls = [app.call(end=True) for _ in range(3)]
    await stage.run()
    stage.server.connection.answer(stage.server.request)
    await stage.run()
    assert [call.status for call in calls] == [None, None, 0]
    assert stage.metrics.faults == {"delay": 2, "spared": 1}
    await stage.advance(6.0)
    for request in stage.server.requests[1:]:
        stage.server.connection.answer(request)
    await stage.run()
    assert [call.status for call in calls] == [0, 0, 0]
    assert stage.leaks() == []


@on_loop
async def test_a_slowed_response_comes_whole_and_no_faster_than_its_bandwidth(codec: type[Codec]) -> None:
    stage, app = await gated(codec, FaultSettings(bandwidth=10_000))
    call = app.call(end=True)
    await stage.run()
    payload = bytes(range(256)) * 100
    stage.server.connection.answer(stage.server.request, payload)
    await stage.run()
    seen = []
    while call.status is None:
        seen.append(len(call.data))
        await stage.advance(0.1)
        assert len(seen) < 100
    assert call.data == payload
    assert all(size <= 10_000 * 0.1 * (step + 1) + 2048 for step, size in enumerate(seen))
    assert 2.3 < 0.1 * len(seen) < 3.0
    assert stage.metrics.faults == {"bandwidth": 1}
    assert stage.leaks() == []


@on_loop
async def test_a_slowed_response_that_is_given_up_leaves_nothing_behind(codec: type[Codec]) -> None:
    stage, app = await gated(codec, FaultSettings(bandwidth=100))
    call = app.call(end=True)
    await stage.run()
    stage.server.connection.answer(stage.server.request, b"x" * 20_000)
    await stage.advance(1.0)
    call.cancel()
    await stage.advance(60.0)
    assert stage.leaks() == []


# === mirrors ===


def shadow(stage: Stage) -> list[Ear]:
    return stage.dispatch.servers[SHADOW].requests


@on_loop
async def test_a_copy_carries_the_request_and_its_mark_and_its_answer_is_dropped(codec: type[Codec]) -> None:
    stage, app = await gated(codec, mirror=MirrorSettings(upstream="shadow"))
    call = app.call((b"x-user", b"7"), (b"grpc-timeout", b"2S"))
    call.send(b"123")
    await stage.run()
    assert shadow(stage) == []
    call.send(b"45")
    call.end()
    await stage.run()
    (copy,) = shadow(stage)
    assert (copy.data, copy.ended) == (b"12345", True)
    assert (copy.request[b"x-sidecar-mirror"], copy.request[b"x-user"]) == (b"true", b"7")
    assert b"grpc-timeout" in copy.request
    assert b"x-sidecar-mirror" not in stage.server.request.request
    stage.dispatch.servers[SHADOW].connection.answer(copy, b"z" * 5000, status=13)
    await stage.run()
    stage.server.connection.answer(stage.server.request, b"abc")
    await stage.run()
    assert (call.status, call.data) == (0, b"abc")
    assert stage.metrics.mirrored == {"failed": 1}
    target = stage.targets["shadow"]
    assert (target.metrics.exchange_started, target.metrics.attempt_started) == (0, 0)
    assert [endpoint.in_flight for endpoint in target.cluster.endpoints] == [target.cluster.in_flight] == [0]
    assert stage.leaks() == []


@on_loop
async def test_copies_that_nobody_answers_hold_up_no_rpc_and_are_bounded(codec: type[Codec]) -> None:
    stage, app = await gated(codec, mirror=MirrorSettings(upstream="shadow", max_in_flight=2))
    calls = [await answered(stage, app) for _ in range(5)]
    assert [call.status for call in calls] == [0] * 5
    assert len(shadow(stage)) == 2
    assert stage.metrics.mirrored == {"too_many": 3}


@on_loop
async def test_a_request_too_large_for_a_retry_is_still_copied_whole(codec: type[Codec]) -> None:
    limits = LimitSettings(replay_size=65_536)
    stage, app = await gated(codec, mirror=MirrorSettings(upstream="shadow", max_size=300_000), limits=limits)
    large = bytes(n % 251 for n in range(200_000))
    call = app.call()
    for start in range(0, len(large), 50_000):
        call.send(large[start : start + 50_000])
        await stage.run()
    call.end()
    await stage.run()
    (copy,) = shadow(stage)
    assert (copy.data == large, copy.ended) == (True, True)
    assert stage.server.request.data == large
    stage.dispatch.servers[SHADOW].connection.answer(copy)
    stage.server.connection.answer(stage.server.request)
    await stage.run()
    assert (call.status, stage.metrics.mirrored, stage.leaks()) == (0, {"ok": 1}, [])


@pytest.mark.parametrize("why", ["unplaced", "too_large", "cut"])
@on_loop
async def test_a_copy_that_cannot_be_made_is_counted_and_costs_its_rpc_nothing(codec: type[Codec], why: str) -> None:
    stage, app = await gated(codec, mirror=MirrorSettings(upstream="shadow", max_size=1000))
    if why == "unplaced":
        stage.targets["shadow"].dispatch.close("removed")
        await stage.run()
    call = app.call()
    call.send(b"x" * (1001 if why == "too_large" else 10))
    await stage.run()
    if why == "cut":
        stage.server.connection.respond(stage.server.request)
        stage.server.request.end(OK)
    else:
        call.end()
        await stage.run()
        stage.server.connection.answer(stage.server.request)
    await stage.run()
    assert call.status == 0
    assert stage.metrics.mirrored == {why: 1}
    assert stage.leaks() == []


@on_loop
async def test_an_rpc_that_was_held_back_is_copied_whole_or_not_at_all(codec: type[Codec]) -> None:
    small = LimitSettings(replay_size=1000)
    stage, app = await gated(codec, FaultSettings(delay=0.5), mirror=MirrorSettings(upstream="shadow"), limits=small)
    calls = [app.call() for _ in range(2)]
    for call, size in zip(calls, (900, 1100), strict=True):
        call.send(b"x" * size)
    await stage.advance(0.1)
    await stage.advance(1.0)
    for call in calls:
        call.send(b"yz")
        call.end()
    await stage.run()
    assert [copy.data for copy in shadow(stage)] == [b"x" * 900 + b"yz"]
    assert stage.metrics.mirrored == {"too_large": 1}
    for request in stage.server.requests:
        stage.server.connection.answer(request)
    await stage.run()
    assert [call.status for call in calls] == [0, 0]


@on_loop
async def test_an_rpc_that_is_copied_can_still_be_retried(codec: type[Codec]) -> None:
    stage, call, server, _ = await called(codec)
    stage.dispatch.gate = Gate(
        stage.dispatch,
        Admission("greeter", None),
        Faults((), 0.0),
        Mirror(MirrorSettings(upstream="shadow"), stage.dispatch, stage.add_upstream("shadow", SHADOW).dispatch),
    )
    await stage.run()
    second = stage.apps[0].call()
    second.send(b"12345")
    second.end()
    await stage.run()
    stage.server.requests[1].cancel(h2.REFUSED_STREAM)
    await stage.run()
    assert stage.server.requests[2].data == b"12345"
    server.answer(stage.server.requests[2])
    await stage.run()
    assert (second.status, len(shadow(stage))) == (0, 1)
    call.cancel()
    await stage.run()


# === what those pay who have none of it ===


@on_loop
async def test_an_upstream_without_any_of_it_has_no_gate(codec: type[Codec]) -> None:
    stage, call, server, request = await called(codec, end=True)
    server.answer(request)
    await stage.run()
    assert (call.status, stage.dispatch.gate, stage.engine.strained) == (0, None, False)
