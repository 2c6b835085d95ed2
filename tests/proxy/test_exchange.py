"""One RPC from its head to its end: what is forwarded as it is, and every answer that the sidecar makes itself."""

from __future__ import annotations

import gc

import pytest

from sidecar.http2 import constants as h2
from sidecar.http2.interface import Codec, CodecSettings, HeaderBlock
from tests.proxy.call import OK, called
from tests.proxy.stage import on_loop, started

# === forwarded as it is ===


@on_loop
async def test_all_of_a_conversation_passes_in_both_directions(codec: type[Codec]) -> None:
    stage, call, server, request = await called(codec, (b"x-trace", b"7"))
    assert request.request[b":path"] == b"/greeter.Greeter/SayHello"
    assert request.request[b"x-trace"] == b"7"
    for n in range(5):
        call.send(b"q%d" % n)
        await stage.run()
        if n == 0:
            server.respond(request, (b"x-served-by", b"a"))
        request.send(b"a%d" % n)
        await stage.run()
        assert (request.data[-2:], call.data[-2:]) == (b"q%d" % n, b"a%d" % n)
    call.end()
    await stage.run()
    assert request.ended
    assert not call.ended
    request.send(b"last")
    request.end([*OK, (b"x-cost", b"3")])
    await stage.run()
    assert (call.head or {})[b"x-served-by"] == b"a"
    assert call.trailers == {b"grpc-status": b"0", b"x-cost": b"3"}
    assert call.reset is None
    assert stage.leaks() == []


@on_loop
async def test_trailers_only_stays_trailers_only(codec: type[Codec]) -> None:
    """Splitting it would commit the app's own retries (GR-30)."""
    stage, call, server, request = await called(codec, end=True)
    server.respond(request, (b"grpc-status", b"5"), (b"grpc-message", b"none such"), end=True)
    await stage.run()
    assert call.trailers_only
    assert (call.status, call.message) == (5, "none such")
    assert stage.metrics.exchange_status[5] == stage.metrics.attempt_status[5] == 1
    assert stage.leaks() == []


@on_loop
async def test_request_trailers_pass(codec: type[Codec]) -> None:
    stage, call, server, request = await called(codec)
    call.send(b"body")
    call.end([(b"x-sum", b"1")])
    await stage.run()
    assert (request.data, request.trailers) == (b"body", {b"x-sum": b"1"})
    server.answer(request)
    await stage.run()
    assert call.status == 0


@on_loop
async def test_informational_head_passes_before_the_final_one(codec: type[Codec]) -> None:
    stage, call, server, request = await called(codec)
    server.codec.send_informational(request.stream, HeaderBlock([(b":status", b"103"), (b"link", b"x")]))
    await stage.run()
    assert call.informational == [{b":status": b"103", b"link": b"x"}]
    call.end()
    server.answer(request, b"x")
    await stage.run()
    assert call.status == 0
    assert stage.leaks() == []


@on_loop
async def test_end_of_data_without_trailers_passes_and_counts_as_a_failure(codec: type[Codec]) -> None:
    stage, call, server, request = await called(codec, end=True)
    server.respond(request)
    request.send(b"half an answer")
    request.end()
    await stage.run()
    assert (call.ended, call.trailers, call.data, call.reset) == (True, None, b"half an answer", None)
    assert stage.metrics.exchange_status[2] == 1
    assert stage.metrics.outcomes == {"failure": 1}
    assert stage.leaks() == []


@pytest.mark.parametrize(("http", "status"), [(401, 16), (404, 12), (503, 14), (418, 2)])
@on_loop
async def test_answer_that_is_not_grpc_passes_and_is_counted_by_its_http_status(
    codec: type[Codec], http: int, status: int
) -> None:
    stage, call, server, request = await called(codec, end=True)
    server.respond(request, head=[(b":status", b"%d" % http), (b"content-type", b"text/html")])
    request.send(b"<html>")
    request.end()
    await stage.run()
    assert ((call.head or {})[b":status"], call.data, call.status) == (b"%d" % http, b"<html>", None)
    assert stage.metrics.exchange_status[status] == 1


@on_loop
async def test_grpc_status_wins_over_the_http_status(codec: type[Codec]) -> None:
    stage, call, server, request = await called(codec, end=True)
    server.respond(request, (b"grpc-status", b"0"), head=[(b":status", b"503")], end=True)
    await stage.run()
    assert stage.metrics.exchange_status[0] == 1
    assert stage.endpoint("10.0.0.1:50051").successes == 1
    assert call.status == 0


# === early completion (H2-62) ===


@on_loop
async def test_early_answer_is_followed_by_a_reset_without_blame_on_both_hops(codec: type[Codec]) -> None:
    stage, call, server, request = await called(codec)
    call.send(b"some of it")
    await stage.run()
    server.answer(request, b"enough")
    await stage.run()
    assert (call.data, call.status, call.reset) == (b"enough", 0, h2.NO_ERROR)
    assert request.reset == h2.NO_ERROR
    assert stage.leaks() == []


@on_loop
async def test_early_answer_to_a_slow_reader_is_delivered_whole_and_frees_the_request_at_once(
    codec: type[Codec],
) -> None:
    """The app may be writing and not reading: its request must not fill the sidecar, nor stop for want of credit."""
    stage = await started(codec)
    app = stage.app(CodecSettings(stream_window=65_535, reset_burst=10**9))
    app.crediting = False
    await stage.run()
    call = app.call()
    await stage.run()
    request = stage.server.request
    stage.server.connection.answer(request, b"a" * 200_000)
    await stage.run()
    assert len(call.data) == 65_535
    call.send(b"q" * 1_000_000)
    await stage.run()
    assert len(call.sent) == 1_000_000
    assert stage.process.buffered < 200_000
    call.crediting = True
    call.give_back()
    await stage.run()
    assert (len(call.data), call.status, call.reset) == (200_000, 0, h2.NO_ERROR)
    assert stage.leaks() == []


# === resets ===


@pytest.mark.parametrize("code", [h2.CANCEL, h2.INTERNAL_ERROR, h2.NO_ERROR, 77])
@pytest.mark.parametrize("when", ["waiting", "attempting", "responding", "stalled"])
@on_loop
async def test_app_that_resets_stops_the_work_upstream(codec: type[Codec], code: int, when: str) -> None:
    """Whatever its code says, the server hears CANCEL (H2-63)."""
    stage = await started(codec, discovered=when != "waiting")
    app = stage.app()
    await stage.run()
    call = app.call()
    call.send(b"x")
    await stage.run()
    if when in ("responding", "stalled"):
        stage.server.connection.respond(stage.server.request)
        call.crediting = when != "stalled"
        stage.server.request.send(b"y" * 300_000)
        await stage.run()
    call.cancel(code)
    await stage.run()
    assert [request.reset for request in stage.server.requests] == ([] if when == "waiting" else [h2.CANCEL])
    assert stage.metrics.exchange_status[1] == 1
    assert stage.leaks() == []


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (h2.NO_ERROR, 13),
        (h2.PROTOCOL_ERROR, 13),
        (h2.INTERNAL_ERROR, 13),
        (h2.FLOW_CONTROL_ERROR, 13),
        (h2.STREAM_CLOSED, 13),
        (h2.CANCEL, 1),
        (h2.ENHANCE_YOUR_CALM, 8),
        (h2.INADEQUATE_SECURITY, 7),
        (0xD, 13),
        (0x7777, 13),
    ],
)
@pytest.mark.parametrize("headed", [False, True])
@on_loop
async def test_reset_by_the_server_is_the_status_of_its_code(
    codec: type[Codec], code: int, status: int, headed: bool
) -> None:
    """Before the head as trailers-only, after it as trailers behind all data that came (table 6.2, GR-33)."""
    stage, call, server, request = await called(codec)
    if headed:
        server.respond(request)
        request.send(b"part")
        await stage.run()
    request.cancel(code)
    await stage.run()
    assert call.status == status
    assert call.trailers_only is not headed
    assert call.data == (b"part" if headed else b"")
    assert "sidecar: greeter: 10.0.0.1:50051 reset the stream" in call.message
    assert "attempts: 1" in call.message
    assert call.field(b"x-sidecar-error") == b"true"
    assert call.reset == h2.NO_ERROR
    assert stage.leaks() == []


@on_loop
async def test_failure_after_the_head_lets_a_slow_reader_have_all_data_first(codec: type[Codec]) -> None:
    stage, call, server, request = await called(codec)
    call.crediting = False
    server.respond(request)
    request.send(b"d" * 400_000)
    await stage.run()
    received = len(request.sent)
    request.cancel(h2.INTERNAL_ERROR)
    await stage.run()
    assert call.trailers is None
    call.crediting = True
    call.give_back()
    await stage.run()
    assert len(call.data) == received
    assert call.status == 13
    assert stage.leaks() == []


@on_loop
async def test_server_that_breaks_the_rules_of_a_stream_fails_that_rpc_alone(codec: type[Codec]) -> None:
    stage, call, server, request = await called(codec)
    other = stage.apps[0].call(end=True)
    await stage.run()
    server.respond(request)
    request.end([(b"connection", b"close"), *OK])
    await stage.run()
    assert call.status == 13
    assert "broke the rules" in call.message
    server.answer(stage.server.requests[1])
    await stage.run()
    assert other.status == 0
    assert stage.leaks() == []


# === deadlines ===


@pytest.mark.parametrize("when", ["queued", "attempting", "responding", "stalled"])
@on_loop
async def test_deadline_ends_the_rpc_in_every_state(codec: type[Codec], when: str) -> None:
    stage = await started(codec, discovered=when != "queued")
    app = stage.app()
    await stage.run()
    call = app.call((b"grpc-timeout", b"1S"))
    await stage.run()
    if when in ("responding", "stalled"):
        call.crediting = when != "stalled"
        stage.server.connection.respond(stage.server.request)
        stage.server.request.send(b"y" * 300_000)
        await stage.run()
    await stage.advance(0.99)
    assert not call.ended
    await stage.advance(0.02)
    assert call.status == 4
    assert "deadline exceeded after 1.0" in call.message
    assert call.trailers_only is (when in ("queued", "attempting"))
    assert [request.reset for request in stage.server.requests] == ([] if when == "queued" else [h2.CANCEL])
    assert stage.metrics.outcomes == ({} if when == "queued" else {"timeout": 1})
    assert stage.leaks() == []


@on_loop
async def test_upstream_gets_what_is_left_of_the_deadline(codec: type[Codec]) -> None:
    stage = await started(codec, discovered=False)
    app = stage.app()
    await stage.run()
    app.call((b"grpc-timeout", b"2S"), end=True)
    await stage.run()
    await stage.advance(0.5)
    stage.discover("10.0.0.1:50051")
    await stage.run()
    value = stage.server.request.request[b"grpc-timeout"]
    assert value[-1:] == b"u"
    assert 1_490_000 <= int(value[:-1]) <= 1_500_000


@pytest.mark.parametrize("value", [b"0S", b"0n"])
@on_loop
async def test_deadline_of_nothing_is_answered_at_once(codec: type[Codec], value: bytes) -> None:
    stage = await started(codec)
    app = stage.app()
    await stage.run()
    call = app.call((b"grpc-timeout", value), end=True)
    await stage.run()
    assert call.status == 4
    assert stage.server.requests == []
    assert stage.leaks() == []


@on_loop
async def test_malformed_deadline_is_passed_on_and_kept_by_nobody(codec: type[Codec]) -> None:
    stage, call, _, request = await called(codec, (b"grpc-timeout", b"soon"), end=True)
    assert request.request[b"grpc-timeout"] == b"soon"
    await stage.advance(300)
    assert not call.ended


@on_loop
async def test_nothing_goes_upstream_when_the_deadline_has_passed_in_the_queue(codec: type[Codec]) -> None:
    """Even when the endpoint comes up in the very turn in which the alarm is due, and is heard of first (GR-42)."""
    stage = await started(codec, discovered=False)
    app = stage.app()
    await stage.run()
    call = app.call((b"grpc-timeout", b"1S"), end=True)
    await stage.run()
    stage.server.hanging = False
    stage.discover("10.0.0.1:50051")
    stage.loop.now += 1.5
    await stage.run()
    assert stage.server.requests == []
    assert call.status == 4


@on_loop
async def test_complete_answer_that_waits_for_its_reader_is_not_replaced_by_the_deadline(codec: type[Codec]) -> None:
    stage, call, server, request = await called(codec, (b"grpc-timeout", b"1S"), end=True)
    call.crediting = False
    server.answer(request, b"y" * 262_144 + b"z")
    await stage.run()
    await stage.advance(2)
    call.crediting = True
    call.give_back()
    await stage.run()
    assert (len(call.data), call.status) == (262_145, 0)
    assert stage.leaks() == []


@on_loop
async def test_server_that_cancels_after_the_deadline_is_a_deadline(codec: type[Codec]) -> None:
    """Its clock may be ahead of our timer by a tick (GR-35)."""
    stage, call, _, request = await called(codec, (b"grpc-timeout", b"1S"), end=True)
    stage.loop.now += 1.0001
    request.cancel(h2.CANCEL)
    await stage.run()
    assert call.status == 4


# === the books ===


@on_loop
async def test_books_of_an_rpc_are_kept_on_both_sides(codec: type[Codec]) -> None:
    stage, call, server, request = await called(codec)
    call.send(b"12345")
    call.end()
    await stage.advance(0.25)
    server.answer(request, b"123")
    await stage.run()
    endpoint = stage.endpoint("10.0.0.1:50051")
    assert (endpoint.successes, endpoint.failures, endpoint.in_flight) == (1, 0, 0)
    assert 0.24 < endpoint.latency.quantile(1) < 0.3
    (record,) = stage.records
    assert (record.status, record.bytes_up, record.bytes_down, record.seconds) == (0, 5, 3, pytest.approx(0.25))
    (attempt,) = record.attempts
    assert (attempt.endpoint, attempt.reason, attempt.outcome) == ("10.0.0.1:50051", "first", "success")


@on_loop
async def test_lost_app_connection_cancels_each_of_its_rpcs_upstream(codec: type[Codec]) -> None:
    stage = await started(codec)
    app = stage.app()
    await stage.run()
    for _ in range(5):
        app.call()
    await stage.run()
    app.hang_up()
    await stage.run()
    assert [request.reset for request in stage.server.requests] == [h2.CANCEL] * 5
    assert stage.metrics.exchange_status[1] == 5
    assert stage.listener.connections == set()
    assert stage.leaks() == []


@on_loop
async def test_rpcs_leave_nothing_to_the_garbage_collector(codec: type[Codec]) -> None:
    stage = await started(codec)
    app = stage.app()
    await stage.run()

    async def some(count: int) -> None:
        for n in range(count):
            call = app.call((b"grpc-timeout", b"5S"))
            call.send(b"x" * 100)
            call.end()
            await stage.run()
            request = stage.server.requests[-1]
            if n % 3:
                stage.server.connection.answer(request, b"y")
            else:
                request.cancel()
            await stage.run()
            app.streams.clear()
            stage.server.connection.streams.clear()

    await some(3)
    gc.collect()
    gc.disable()
    try:
        await some(12)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        ours = [item for item in gc.garbage if type(item).__module__.startswith("sidecar.proxy")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert ours == []
