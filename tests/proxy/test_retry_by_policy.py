"""Retries that the method's policy allows, as the app and the endpoints see them (gRFC A6; RT-01 to RT-13, GR-31)."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.http2 import constants as h2
from sidecar.http2.interface import Codec
from sidecar.policy.method import MethodTable
from sidecar.policy.method_settings import (
    BudgetSettings,
    MethodSettings,
    RetrySettings,
    ThrottleSettings,
    TimeoutSettings,
)
from sidecar.proxy.settings import LimitSettings
from tests.proxy.pipe import RESPONSE, Ear, Peer
from tests.proxy.stage import Stage, on_loop, started

UNAVAILABLE = (b"grpc-status", b"14")


def methods(
    budget: BudgetSettings | None = None, throttle: ThrottleSettings | None = None, **retry: Any
) -> MethodTable:
    settings = RetrySettings(**{"codes": ("UNAVAILABLE",), "backoff_base": 0.1, "backoff_max": 0.4, **retry})
    return MethodTable(MethodSettings(retry=settings), {}, budget, throttle)


def live(stage: Stage) -> list[tuple[Peer, Ear]]:
    """The requests that a server holds and has not answered."""
    return [
        (peer, ear)
        for server in stage.servers
        for peer in server.connections
        for ear in peer.streams
        if ear.reset is None and not ear.closed
    ]


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


async def answer(stage: Stage, *fields: tuple[bytes, bytes], data: bytes = b"", trailers_only: bool = True) -> Ear:
    """The one server that holds the request answers."""
    ((peer, ear),) = live(stage)
    if trailers_only:
        peer.respond(ear, *fields, end=True)
    else:
        peer.respond(ear)
        ear.send(data)
        ear.end(fields)
    await stage.run()
    return ear


async def succeed(stage: Stage) -> None:
    await answer(stage, (b"grpc-status", b"0"), data=b"answer", trailers_only=False)


# === the answer is turned down ===


@pytest.mark.parametrize("trailers_only", [True, False])
@on_loop
async def test_a_named_status_is_tried_again_elsewhere_after_the_backoff(
    codec: type[Codec], trailers_only: bool
) -> None:
    stage, call = await called(codec)
    first = await answer(stage, UNAVAILABLE, trailers_only=trailers_only)
    await stage.advance(0.079)
    assert live(stage) == []
    await stage.advance(0.043)
    ((_, second),) = live(stage)
    assert second.peer is not first.peer
    assert (second.data, second.ended) == (b"question", True)
    assert b"grpc-previous-rpc-attempts" not in first.request
    assert second.request[b"grpc-previous-rpc-attempts"] == b"1"
    await succeed(stage)
    assert (call.data, call.status) == (b"answer", 0)
    assert stage.metrics.retries == {"unavailable": 1}
    assert stage.metrics.retries_suppressed == {}
    assert [attempt.reason for attempt in stage.records[0].attempts] == ["first", "unavailable"]
    assert [attempt.status for attempt in stage.records[0].attempts] == [14, 0]
    assert stage.leaks() == []


@on_loop
async def test_a_status_that_is_not_named_is_the_answer(codec: type[Codec]) -> None:
    stage, call = await called(codec)
    await answer(stage, (b"grpc-status", b"13"), (b"grpc-message", b"broken"))
    assert (call.status, call.message, call.trailers_only) == (13, "broken", True)
    assert call.field(b"grpc-retry-pushback-ms") is None
    assert stage.metrics.retries_suppressed == {}
    assert stage.leaks() == []


@on_loop
async def test_an_answer_that_is_no_grpc_counts_by_its_http_status(codec: type[Codec]) -> None:
    stage, call = await called(codec)
    ((peer, ear),) = live(stage)
    peer.respond(ear, head=((b":status", b"503"), (b"content-type", b"text/plain")))
    await stage.run()
    assert ear.reset == h2.CANCEL
    await stage.advance(0.122)
    await succeed(stage)
    assert call.status == 0
    assert stage.leaks() == []


@on_loop
async def test_attempts_run_out_and_the_last_failure_tells_the_caller_not_to_try_again(codec: type[Codec]) -> None:
    stage, call = await called(codec, methods=methods(max_attempts=3))
    for _ in range(3):
        await answer(stage, UNAVAILABLE, (b"grpc-message", b"sorry"))
        await stage.advance(0.5)
    assert (call.status, call.message, call.trailers_only) == (14, "sorry", True)
    assert call.field(b"grpc-retry-pushback-ms") == b"-1"
    assert stage.metrics.retries == {"unavailable": 2}
    assert stage.metrics.retries_suppressed == {"attempts": 1}
    servers = {attempt.endpoint for attempt in stage.records[0].attempts}
    assert len(servers) == 3
    assert stage.leaks() == []


@on_loop
async def test_an_rpc_that_is_over_before_its_retry_leaves_nothing(codec: type[Codec]) -> None:
    stage, call = await called(codec)
    await answer(stage, UNAVAILABLE)
    call.cancel()
    await stage.advance(1)
    assert live(stage) == []
    assert stage.metrics.exchange_status[1] == 1
    assert stage.leaks() == []


# === failures without an answer ===


@pytest.mark.parametrize(("settings", "retried"), [({}, True), ({"codes": ("ABORTED",)}, False)])
@on_loop
async def test_a_lost_connection_is_unavailable_and_may_have_run_it(
    codec: type[Codec], settings: dict[str, Any], retried: bool
) -> None:
    stage, call = await called(codec, methods=methods(**settings))
    ((peer, _),) = live(stage)
    peer.hang_up()
    await stage.run()
    await stage.advance(0.122)
    if retried:
        await succeed(stage)
        assert call.status == 0
        assert stage.metrics.retries == {"connection_lost": 1}
    else:
        assert call.status == 14
        assert stage.metrics.retries == {}
    assert stage.leaks() == []


@pytest.mark.parametrize(("code", "retried"), [(h2.CANCEL, True), (h2.NO_ERROR, False), (h2.INTERNAL_ERROR, False)])
@on_loop
async def test_a_reset_counts_by_its_status_and_one_without_an_error_is_never_retried(
    codec: type[Codec], code: int, retried: bool
) -> None:
    stage, call = await called(codec, methods=methods(codes=("CANCELLED",)))
    ((_, ear),) = live(stage)
    ear.cancel(code)
    await stage.run()
    await stage.advance(0.122)
    assert bool(live(stage)) is retried
    assert call.ended is not retried


@on_loop
async def test_a_second_refusal_is_for_the_policy_and_the_first_is_not_counted(codec: type[Codec]) -> None:
    stage, call = await called(codec, methods=methods(max_attempts=2))
    for _ in range(2):
        ((_, ear),) = live(stage)
        ear.cancel(h2.REFUSED_STREAM)
        await stage.run()
    assert live(stage) == []
    await stage.advance(0.122)
    await succeed(stage)
    assert call.status == 0
    assert stage.metrics.retries == {"refused_stream": 2}
    assert stage.leaks() == []


@on_loop
async def test_an_attempt_without_an_answer_is_given_up_after_its_own_timeout(codec: type[Codec]) -> None:
    stage, call = await called(codec, methods=methods(per_try_timeout=1.0))
    ((_, first),) = live(stage)
    await stage.advance(1.002)
    assert first.reset == h2.CANCEL
    await stage.advance(0.122)
    await succeed(stage)
    assert call.status == 0
    assert stage.metrics.retries == {"try_timeout": 1}
    assert stage.metrics.outcomes == {"timeout": 1}
    assert stage.leaks() == []


@on_loop
async def test_an_attempt_that_has_begun_to_answer_has_no_timeout_of_its_own(codec: type[Codec]) -> None:
    stage, call = await called(codec, methods=methods(per_try_timeout=1.0))
    ((peer, ear),) = live(stage)
    peer.respond(ear)
    await stage.run()
    await stage.advance(10)
    assert call.head is not None
    ear.end([(b"grpc-status", b"0")])
    await stage.run()
    assert call.status == 0
    assert stage.leaks() == []


@on_loop
async def test_the_sentence_of_a_failure_names_upstream_endpoint_reason_and_attempts(codec: type[Codec]) -> None:
    stage, call = await called(codec, methods=methods(max_attempts=2, per_try_timeout=1.0))
    await stage.advance(1.002)
    await stage.advance(0.122)
    ((_, ear),) = live(stage)
    await stage.advance(1.002)
    assert call.status == 4
    (server,) = [server.address for server in stage.servers if ear in server.requests]
    assert call.message == f"sidecar: greeter: {server} did not answer within per_try_timeout, 1s; attempts: 2"
    assert call.field(b"grpc-retry-pushback-ms") == b"-1"


# === the look-ahead (GR-31) ===


@on_loop
async def test_a_head_alone_waits_for_what_follows_and_no_longer_than_five_milliseconds(codec: type[Codec]) -> None:
    stage, call = await called(codec)
    ((peer, ear),) = live(stage)
    peer.respond(ear)
    await stage.run()
    await stage.advance(0.003)
    assert call.head is None
    await stage.advance(0.003)
    assert call.head is not None
    ear.end([UNAVAILABLE])
    await stage.run()
    assert (call.status, call.trailers_only) == (14, False)
    assert stage.metrics.retries_suppressed == {"committed": 1}
    assert stage.leaks() == []


@on_loop
async def test_a_head_that_is_followed_by_error_trailers_in_time_commits_nothing(codec: type[Codec]) -> None:
    stage, call = await called(codec)
    ((peer, ear),) = live(stage)
    peer.respond(ear)
    await stage.run()
    await stage.advance(0.004)
    ear.end([UNAVAILABLE])
    await stage.run()
    await stage.advance(0.122)
    await succeed(stage)
    assert call.status == 0
    assert stage.leaks() == []


@on_loop
async def test_the_last_attempt_withholds_nothing(codec: type[Codec]) -> None:
    stage, call = await called(codec, methods=methods(max_attempts=2))
    await answer(stage, UNAVAILABLE)
    await stage.advance(0.122)
    ((peer, ear),) = live(stage)
    peer.respond(ear)
    await stage.run()
    assert call.head is not None


@on_loop
async def test_data_commits_the_rpc(codec: type[Codec]) -> None:
    stage, call = await called(codec)
    await answer(stage, UNAVAILABLE, data=b"half", trailers_only=False)
    assert (call.data, call.status) == (b"half", 14)
    assert stage.metrics.retries == {}
    assert stage.metrics.retries_suppressed == {"committed": 1}
    assert stage.leaks() == []


@on_loop
async def test_a_reset_while_the_head_is_withheld_is_as_before_the_head(codec: type[Codec]) -> None:
    stage, call = await called(codec)
    ((peer, ear),) = live(stage)
    peer.respond(ear)
    await stage.run()
    peer.hang_up()
    await stage.run()
    await stage.advance(0.122)
    await succeed(stage)
    assert call.status == 0
    assert stage.leaks() == []


# === limits ===


@on_loop
async def test_a_request_beyond_the_replay_buffer_is_committed(codec: type[Codec]) -> None:
    stage, call = await called(codec, limits=LimitSettings(replay_size=4))
    await answer(stage, UNAVAILABLE)
    assert call.status == 14
    assert stage.metrics.retries_suppressed == {"committed": 1}
    assert stage.leaks() == []


@pytest.mark.parametrize(("value", "due"), [(b"0", 0.0), (b"700", 0.7)])
@on_loop
async def test_pushback_is_waited_for_exactly_and_starts_the_backoff_anew(
    codec: type[Codec], value: bytes, due: float
) -> None:
    stage, call = await called(codec, methods=methods(max_attempts=5))
    await answer(stage, UNAVAILABLE)
    await stage.advance(0.122)
    await answer(stage, UNAVAILABLE, (b"grpc-retry-pushback-ms", value))
    if due:
        await stage.advance(due - 0.002)
        assert live(stage) == []
        await stage.advance(0.004)
    await answer(stage, UNAVAILABLE)
    await stage.advance(0.122)  # the first backoff again, not the third
    await succeed(stage)
    assert call.status == 0
    assert stage.leaks() == []


@pytest.mark.parametrize("value", [b"-1", b"soon", b"007"])
@on_loop
async def test_pushback_that_says_no_is_obeyed_and_passed_on(codec: type[Codec], value: bytes) -> None:
    stage, call = await called(codec)
    await answer(stage, UNAVAILABLE, (b"grpc-retry-pushback-ms", value))
    assert call.status == 14
    assert call.field(b"grpc-retry-pushback-ms") == b"-1"
    assert stage.metrics.retries_suppressed == {"pushback": 1}
    assert stage.leaks() == []


@on_loop
async def test_a_backoff_beyond_the_deadline_is_the_failure_at_once(codec: type[Codec]) -> None:
    stage, call = await called(codec, (b"grpc-timeout", b"70m"))
    await answer(stage, UNAVAILABLE, (b"grpc-message", b"sorry"))
    assert (call.status, call.message) == (14, "sorry")
    assert stage.metrics.retries_suppressed == {"deadline": 1}
    assert stage.leaks() == []


@on_loop
async def test_each_attempt_is_told_what_is_left_of_the_time(codec: type[Codec]) -> None:
    table = MethodTable(MethodSettings(retry=RetrySettings(idempotent=True), timeouts=TimeoutSettings(total=2.0)), {})
    stage, call = await called(codec, methods=table)
    await stage.advance(0.5)
    await answer(stage, UNAVAILABLE, (b"grpc-retry-pushback-ms", b"500"))
    await stage.advance(0.501)
    ((_, ear),) = live(stage)
    assert int(ear.request[b"grpc-timeout"][:-1]) == pytest.approx(1_000_000, abs=3000)
    await stage.advance(1.0)
    assert call.status == 4
    assert stage.leaks() == []


@on_loop
async def test_the_budget_bounds_the_retries_under_way(codec: type[Codec]) -> None:
    stage = await started(codec, servers=3, methods=methods(BudgetSettings(ratio=0.0, floor=2)))
    app = stage.app()
    await stage.run()
    calls = [app.call(end=True) for _ in range(5)]
    await stage.run()
    for peer, ear in live(stage):
        peer.respond(ear, UNAVAILABLE, end=True)
    await stage.run()
    refused = [call for call in calls if call.ended]
    assert len(refused) == 3
    assert {call.field(b"grpc-retry-pushback-ms") for call in refused} == {b"-1"}
    assert stage.metrics.retries_suppressed == {"budget": 3}
    await stage.advance(0.122)
    assert len(live(stage)) == 2
    for peer, ear in live(stage):
        peer.respond(ear)
    await stage.run()
    await stage.advance(0.006)  # answers that last are no retries under way
    table = stage.dispatch.methods
    assert table is not None
    assert table.budget.active == 0


@on_loop
async def test_the_throttle_stops_retries_and_tells_the_caller(codec: type[Codec]) -> None:
    stage, call = await called(codec, methods=methods(throttle=ThrottleSettings(max_tokens=2)))
    await answer(stage, UNAVAILABLE)
    assert call.status == 14
    assert call.field(b"grpc-retry-pushback-ms") == b"-1"
    assert stage.metrics.retries_suppressed == {"throttle": 1}


async def answer_all(stage: Stage, *fields: tuple[bytes, bytes]) -> int:
    """Every request that a server holds is answered alike; how many those were."""
    held = live(stage)
    for peer, ear in held:
        peer.respond(ear, *fields, end=True)
    await stage.run()
    return len(held)


@on_loop
async def test_a_total_failure_costs_nine_retries_by_default_and_successes_bring_them_back(
    codec: type[Codec],
) -> None:
    stage = await started(codec, servers=3, methods=methods(BudgetSettings(ratio=1.0, floor=1000)))
    app = stage.app()
    await stage.run()
    executed = 0
    for _ in range(10):
        calls = [app.call(end=True) for _ in range(20)]
        await stage.run()
        while not all(call.ended for call in calls):
            executed += await answer_all(stage, UNAVAILABLE)
            await stage.advance(0.5)
    assert executed == 200 + 9
    assert stage.metrics.retries == {"unavailable": 9}
    calls = [app.call(end=True) for _ in range(12)]  # the next failure costs a token before it is asked about
    await stage.run()
    await answer_all(stage, (b"grpc-status", b"0"))
    call = app.call(end=True)
    await stage.run()
    assert await answer_all(stage, UNAVAILABLE) == 1
    await stage.advance(0.5)
    assert await answer_all(stage, (b"grpc-status", b"0")) == 1
    assert call.status == 0
    assert stage.leaks() == []


@on_loop
async def test_all_rpcs_that_were_on_a_lost_connection_are_tried_again(codec: type[Codec]) -> None:
    stage = await started(codec, servers=2, methods=methods(BudgetSettings(ratio=1.0, floor=1000)))
    app = stage.app()
    await stage.run()
    calls = [app.call(end=True) for _ in range(80)]
    await stage.run()
    lost = stage.servers[0].connections[0]
    on_it = len([ear for peer, ear in live(stage) if peer is lost])
    assert on_it > 20, "more than there are tokens"
    lost.hang_up()
    await stage.run()
    await stage.advance(0.5)
    await answer_all(stage, (b"grpc-status", b"0"))
    assert [call.status for call in calls] == [0] * 80
    assert stage.metrics.retries == {"connection_lost": on_it}
    assert stage.metrics.retries_suppressed == {}


@on_loop
async def test_plain_http_is_never_retried_by_policy(codec: type[Codec]) -> None:
    stage = await started(codec, servers=3, methods=methods())
    app = stage.app()
    await stage.run()
    head = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"greeter")]
    call = app.call(head=head, end=True)
    await stage.run()
    ((peer, ear),) = live(stage)
    peer.respond(ear, head=((b":status", b"503"),), end=True)
    await stage.run()
    assert call.ended
    assert stage.metrics.retries == {}


@on_loop
async def test_a_head_too_large_for_the_app_ends_the_rpc(codec: type[Codec]) -> None:
    stage, call = await called(codec)
    ((peer, ear),) = live(stage)
    peer.respond(ear, head=[*RESPONSE, (b"x", b"y" * 15_000)])
    await stage.run()
    await stage.advance(0.006)
    assert call.head is not None
    ear.end([(b"grpc-status", b"0")])
    await stage.run()
    assert stage.leaks() == []
