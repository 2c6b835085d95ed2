"""Several attempts at the same time, and the first good answer (gRFC A6, RT-10)."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.http2 import constants as h2
from sidecar.http2.interface import Codec
from sidecar.policy.method import MethodTable
from sidecar.policy.method_settings import HedgeSettings, MethodSettings, ThrottleSettings
from sidecar.proxy.settings import LimitSettings
from tests.proxy.pipe import Ear, Peer
from tests.proxy.stage import Stage, on_loop, started

OK = (b"grpc-status", b"0")
UNAVAILABLE = (b"grpc-status", b"14")


def methods(throttle: ThrottleSettings | None = None, **hedge: Any) -> MethodTable:
    settings = HedgeSettings(**{"delay": 0.1, "codes": ("UNAVAILABLE",), "ratio": 1.0, **hedge})
    table = MethodTable(MethodSettings(hedge=settings), {}, throttle=throttle)
    pace = table.find(b"").hedge
    assert pace is not None
    for _ in range(4):
        pace.budget.earn()
    return table


def requests(stage: Stage) -> list[tuple[Peer, Ear]]:
    """Every request that reached a server, in the order of the attempts."""
    found = [(peer, ear) for server in stage.servers for peer in server.connections for ear in peer.streams]
    return sorted(found, key=lambda pair: int(pair[1].request.get(b"grpc-previous-rpc-attempts", b"0")))


def live(stage: Stage) -> list[tuple[Peer, Ear]]:
    """Of these, the ones without an answer."""
    return [(peer, ear) for peer, ear in requests(stage) if ear.reset is None and not ear.closed]


async def called(codec: type[Codec], *extra: tuple[bytes, bytes], **options: Any) -> tuple[Stage, Ear]:
    """One RPC that has reached a server of three."""
    stage = await started(codec, **{"servers": 3, "methods": methods(), **options})
    app = stage.app()
    await stage.run()
    call = app.call(*extra)
    call.send(b"question")
    call.end()
    await stage.run()
    return stage, call


async def hedged(codec: type[Codec], **options: Any) -> tuple[Stage, Ear, list[tuple[Peer, Ear]]]:
    """One RPC with two attempts under way."""
    stage, call = await called(codec, **options)
    await stage.advance(0.102)
    pair = requests(stage)
    assert len(pair) == 2
    return stage, call, pair


@on_loop
async def test_a_late_answer_is_asked_for_elsewhere_and_the_first_to_come_is_passed_on(codec: type[Codec]) -> None:
    stage, call, ((slow, first), (fast, second)) = await hedged(codec)
    assert fast is not slow
    assert (second.data, second.ended) == (b"question", True)
    assert second.request[b"grpc-previous-rpc-attempts"] == b"1"
    fast.answer(second, b"fast")
    await stage.run()
    assert (call.data, call.status) == (b"fast", 0)
    assert first.reset == h2.CANCEL
    assert stage.metrics.retries == {"hedge": 1}
    assert stage.metrics.hedge_wins == 1
    assert stage.metrics.outcomes == {"cancelled": 1}
    assert sorted(attempt.outcome for attempt in stage.records[0].attempts) == ["cancelled", "success"]
    assert stage.leaks() == []


@on_loop
async def test_the_first_attempt_may_still_win(codec: type[Codec]) -> None:
    stage, call, ((peer, first), (_, second)) = await hedged(codec)
    peer.answer(first, b"first")
    await stage.run()
    assert (call.data, call.status) == (b"first", 0)
    assert second.reset == h2.CANCEL
    assert stage.metrics.hedge_wins == 0
    assert stage.leaks() == []


@on_loop
async def test_an_answer_in_time_costs_no_second_attempt(codec: type[Codec]) -> None:
    stage, call = await called(codec)
    await stage.advance(0.09)
    ((peer, ear),) = requests(stage)
    peer.answer(ear)
    await stage.run()
    await stage.advance(1)
    assert call.status == 0
    assert len(requests(stage)) == 1
    assert stage.leaks() == []


@on_loop
async def test_each_further_attempt_waits_for_the_same_delay(codec: type[Codec]) -> None:
    stage, _ = await called(codec, methods=methods(max_attempts=3))
    await stage.advance(0.102)
    assert len(requests(stage)) == 2
    await stage.advance(0.102)
    assert len(requests(stage)) == 3
    await stage.advance(5)
    assert len(requests(stage)) == 3


@on_loop
async def test_a_status_that_is_not_fatal_hurries_the_next_attempt(codec: type[Codec]) -> None:
    stage, call = await called(codec)
    ((peer, ear),) = requests(stage)
    peer.respond(ear, UNAVAILABLE, end=True)
    await stage.run()
    (_, (other, second)) = requests(stage)
    assert not call.ended
    other.answer(second, b"answer")
    await stage.run()
    assert (call.data, call.status) == (b"answer", 0)
    assert stage.metrics.retries == {"unavailable": 1}
    assert stage.leaks() == []


@on_loop
async def test_a_status_that_is_not_fatal_leaves_the_other_attempt_running(codec: type[Codec]) -> None:
    stage, call, ((peer, first), (other, second)) = await hedged(codec)
    peer.respond(first, UNAVAILABLE, end=True)
    await stage.run()
    assert not call.ended
    other.answer(second, b"answer")
    await stage.run()
    assert (call.data, call.status) == (b"answer", 0)
    assert stage.leaks() == []


@on_loop
async def test_any_other_status_is_the_answer_and_cancels_the_rest(codec: type[Codec]) -> None:
    stage, call, ((_, first), (other, second)) = await hedged(codec)
    other.respond(second, (b"grpc-status", b"7"), end=True)
    await stage.run()
    assert (call.status, call.trailers_only) == (7, True)
    assert first.reset == h2.CANCEL
    assert stage.leaks() == []


@on_loop
async def test_the_last_failure_is_the_answer_when_nothing_is_left(codec: type[Codec]) -> None:
    stage, call, ((peer, first), (other, second)) = await hedged(codec)
    peer.respond(first, UNAVAILABLE, (b"grpc-message", b"first"), end=True)
    await stage.run()
    other.respond(second, UNAVAILABLE, (b"grpc-message", b"second"), end=True)
    await stage.run()
    assert (call.status, call.message) == (14, "second")
    assert stage.metrics.hedges_suppressed == {"attempts": 1}
    assert stage.leaks() == []


@pytest.mark.parametrize("lost", [0, 1])
@on_loop
async def test_a_lost_connection_leaves_the_other_attempt_running(codec: type[Codec], lost: int) -> None:
    stage, call, pair = await hedged(codec)
    pair[lost][0].hang_up()
    await stage.run()
    assert not call.ended
    peer, ear = pair[1 - lost]
    peer.answer(ear, b"answer")
    await stage.run()
    assert (call.data, call.status) == (b"answer", 0)
    assert stage.leaks() == []


@pytest.mark.parametrize("refused", [0, 1])
@on_loop
async def test_a_refused_stream_beside_a_running_one_is_not_tried_again_transparently(
    codec: type[Codec], refused: int
) -> None:
    stage, call, pair = await hedged(codec)
    pair[refused][1].cancel(h2.REFUSED_STREAM)
    await stage.run()
    assert len(requests(stage)) == 2
    peer, ear = pair[1 - refused]
    peer.answer(ear)
    await stage.run()
    assert call.status == 0
    assert stage.leaks() == []


@on_loop
async def test_pushback_stops_further_attempts(codec: type[Codec]) -> None:
    stage, call = await called(codec)
    ((peer, ear),) = requests(stage)
    peer.respond(ear, UNAVAILABLE, (b"grpc-retry-pushback-ms", b"-1"), end=True)
    await stage.run()
    assert call.status == 14
    assert stage.metrics.hedges_suppressed == {"pushback": 1}
    assert stage.leaks() == []


@on_loop
async def test_pushback_puts_the_next_attempt_off(codec: type[Codec]) -> None:
    stage, call = await called(codec)
    ((peer, ear),) = requests(stage)
    peer.respond(ear, UNAVAILABLE, (b"grpc-retry-pushback-ms", b"500"), end=True)
    await stage.run()
    await stage.advance(0.49)
    assert len(requests(stage)) == 1
    await stage.advance(0.02)
    (_, (other, second)) = requests(stage)
    other.answer(second)
    await stage.run()
    assert call.status == 0
    assert stage.leaks() == []


@on_loop
async def test_extra_load_is_capped(codec: type[Codec]) -> None:
    table = methods(ratio=0.0)
    pace = table.find(b"").hedge
    assert pace is not None
    pace.budget.tokens = 1.0
    stage = await started(codec, servers=3, methods=table)
    app = stage.app()
    await stage.run()
    for _ in range(5):
        app.call(end=True)
    await stage.advance(0)
    await stage.advance(0.102)
    assert len(requests(stage)) == 6
    assert stage.metrics.retries == {"hedge": 1}
    assert stage.metrics.hedges_suppressed == {"budget": 4}


@on_loop
async def test_the_throttle_of_retries_stops_hedges(codec: type[Codec]) -> None:
    stage, call = await called(codec, methods=methods(ThrottleSettings(max_tokens=2)))
    ((peer, ear),) = requests(stage)
    peer.respond(ear, UNAVAILABLE, end=True)
    await stage.run()
    assert call.status == 14
    assert stage.metrics.hedges_suppressed == {"throttle": 1}


@pytest.mark.parametrize("end", ["a status in codes", "a plea for no more", "a reset", "a fatal status"])
@on_loop
async def test_a_token_is_the_price_of_every_failure_but_a_fatal_status(codec: type[Codec], end: str) -> None:
    table = methods()
    stage, _ = await called(codec, methods=table)
    ((peer, ear),) = requests(stage)
    if end == "a status in codes":
        peer.respond(ear, UNAVAILABLE, end=True)
    elif end == "a plea for no more":
        peer.respond(ear, (b"grpc-status", b"5"), (b"grpc-retry-pushback-ms", b"-1"), end=True)
    elif end == "a reset":
        ear.cancel(h2.INTERNAL_ERROR)
    else:
        peer.respond(ear, (b"grpc-status", b"5"), end=True)
    await stage.run()
    assert table.throttle is not None
    assert table.throttle.tokens == (20 if end == "a fatal status" else 19)


@on_loop
async def test_a_request_that_is_not_all_here_is_not_hedged(codec: type[Codec]) -> None:
    stage = await started(codec, servers=3, methods=methods())
    app = stage.app()
    await stage.run()
    call = app.call()
    call.send(b"half")
    await stage.run()
    await stage.advance(0.102)
    assert len(requests(stage)) == 1
    assert stage.metrics.hedges_suppressed == {"unfinished": 1}


@on_loop
async def test_a_request_beyond_the_replay_buffer_is_not_hedged(codec: type[Codec]) -> None:
    stage, call = await called(codec, limits=LimitSettings(replay_size=4))
    await stage.advance(0.102)
    ((peer, ear),) = requests(stage)
    peer.answer(ear)
    await stage.run()
    assert call.status == 0
    assert stage.metrics.hedges_suppressed == {"unfinished": 1}
    assert stage.leaks() == []


@on_loop
async def test_a_single_instance_is_not_asked_twice(codec: type[Codec]) -> None:
    stage, _ = await called(codec, servers=1)
    await stage.advance(0.102)
    assert len(requests(stage)) == 1
    assert stage.metrics.hedges_suppressed == {"no_other": 1}


@on_loop
async def test_a_learned_delay_makes_no_hedge_before_enough_was_learned(codec: type[Codec]) -> None:
    stage, _ = await called(codec, methods=methods(delay=None))
    await stage.advance(60)
    assert len(requests(stage)) == 1


@on_loop
async def test_one_slow_answer_in_fifty_is_cut_out_of_the_tail_for_little_extra_load(
    codec: type[Codec],
) -> None:
    """Both figures with a learned delay: p99 at most a fifth of what it would be, at most 5 % extra attempts."""
    table = MethodTable(MethodSettings(hedge=HedgeSettings()), {})
    stage = await started(codec, servers=3, methods=table)
    app = stage.app()
    await stage.run()
    seconds: list[float] = []
    for number in range(600):
        slow = number % 50 == 49
        since = stage.loop.now
        call = app.call(end=True)
        await stage.run()
        for _ in range(200):
            await stage.advance(0.010)
            for peer, ear in live(stage):
                if not slow or b"grpc-previous-rpc-attempts" in ear.request or stage.loop.now - since > 1.0:
                    peer.answer(ear)
            await stage.run()
            if call.ended:
                break
        seconds.append(stage.loop.now - since)
    tail = sorted(seconds[200:])[int(0.99 * 400)]
    assert tail < 1.0 / 5
    assert stage.metrics.retries["hedge"] <= 0.05 * 600
    assert stage.leaks() == []


@on_loop
async def test_the_deadline_ends_every_attempt(codec: type[Codec]) -> None:
    stage, call = await called(codec, (b"grpc-timeout", b"1S"))
    await stage.advance(0.102)
    (_, first), (_, second) = requests(stage)
    await stage.advance(0.9)
    assert call.status == 4
    assert (first.reset, second.reset) == (h2.CANCEL, h2.CANCEL)
    assert stage.metrics.outcomes == {"timeout": 2}
    assert stage.leaks() == []


@on_loop
async def test_an_app_that_is_gone_ends_every_attempt(codec: type[Codec]) -> None:
    stage, call, ((_, first), (_, second)) = await hedged(codec)
    call.cancel()
    await stage.run()
    assert (first.reset, second.reset) == (h2.CANCEL, h2.CANCEL)
    assert stage.leaks() == []


@on_loop
async def test_a_head_alone_wins_after_five_milliseconds(codec: type[Codec]) -> None:
    stage, call, ((_, first), (other, second)) = await hedged(codec)
    other.respond(second)
    await stage.run()
    assert call.head is None
    await stage.advance(0.007)
    assert call.head is not None
    assert first.reset == h2.CANCEL
    second.send(b"later")
    second.end([OK])
    await stage.run()
    assert (call.data, call.status) == (b"later", 0)
    assert stage.leaks() == []


@on_loop
async def test_a_large_request_reaches_a_rival_as_its_window_allows(codec: type[Codec]) -> None:
    stage = await started(codec, servers=3, methods=methods(), limits=LimitSettings(replay_size=300_000))
    app = stage.app()
    await stage.run()
    for server in stage.servers:
        server.connection.crediting = False
    call = app.call()
    call.send(b"q" * 280_000)
    call.end()
    await stage.run()
    await stage.advance(0.102)
    assert [len(ear.data) for _, ear in requests(stage)] == [262_144, 262_144]
    (_, (other, second)) = requests(stage)
    second.crediting = True
    second.give_back()
    await stage.run()
    assert (len(second.data), second.ended) == (280_000, True)
    other.answer(second, b"answer")
    await stage.run()
    assert (call.data, call.status) == (b"answer", 0)
    assert stage.process.buffered == 0
