"""Active checks on the upstream's own connections: when each kind is made and what each answer does (E11)."""

from __future__ import annotations

import pytest

from sidecar.http2 import constants as h2
from sidecar.http2.interface import Codec, CodecSettings
from sidecar.policy.endpoint import AWAITED, FAILED, PASSED, UNCHECKED
from sidecar.proxy.health_settings import HealthCheckSettings, TcpHealth
from sidecar.proxy.settings import ConnectionSettings
from tests.proxy.clinic import (
    ADDRESS,
    CHECK,
    GET,
    NOT_SERVING,
    OK,
    SERVING,
    STEP,
    TCP,
    WATCH,
    Clinic,
    answer,
    ask,
    busy,
    clinic,
    pass_time,
    say,
)
from tests.proxy.stage import on_loop

# === before the first answer ===


@pytest.mark.parametrize("settings", [WATCH, CHECK])
@on_loop
async def test_endpoint_is_not_used_before_its_first_answer(codec: type[Codec], settings: HealthCheckSettings) -> None:
    stage = await clinic(codec, settings)
    call = stage.app().call(end=True)
    await stage.run()
    assert (stage.verdicts, stage.picked) == ([AWAITED], [])
    (request,) = stage.server.requests
    assert request.request[b":path"].startswith(b"/grpc.health.v1.Health/")
    say(stage.server, SERVING, request)
    request.end([OK])
    await stage.run()
    assert stage.picked == [ADDRESS]
    assert [ear.request[b":path"] for ear in stage.server.requests][1:2] == [b"/greeter.Greeter/SayHello"]
    assert call.status is None


@on_loop
async def test_without_settings_nothing_is_asked(codec: type[Codec]) -> None:
    stage = await clinic(codec, None)
    assert (stage.verdicts, stage.picked, stage.server.requests) == ([UNCHECKED], [ADDRESS], [])


@pytest.mark.parametrize("settings", [WATCH, CHECK, GET])
@on_loop
async def test_endpoint_that_does_not_answer_the_first_check_is_out(
    codec: type[Codec], settings: HealthCheckSettings
) -> None:
    stage = await clinic(codec, settings, servers=3)
    for server in stage.servers[1:]:
        ear = server.requests[-1]
        say(server, SERVING, ear)
        if settings is not WATCH:
            ear.end([OK])
    await stage.run()
    await stage.advance(1.1)
    assert stage.verdicts == [FAILED, PASSED, PASSED]
    assert stage.picked == ["10.0.0.2:50051", "10.0.0.3:50051"]
    assert stage.endpoint(ADDRESS).finding == "no answer to its health check within 1s"


@on_loop
async def test_checks_are_in_no_account_of_rpcs(codec: type[Codec]) -> None:
    """GR-53."""
    stage = await clinic(codec, CHECK)
    answer(stage.server, code=14)
    await stage.run()
    metrics = stage.metrics
    assert (metrics.exchange_started, metrics.attempt_started, sum(metrics.attempt_status)) == (0, 0, 0)
    assert (metrics.outcomes, metrics.retries) == ({}, {})
    assert [(e.successes, e.failures, e.state) for e in stage.cluster.endpoints] == [(0, 0, 0)]
    assert stage.leaks() == []


# === Check ===


@on_loop
async def test_check_is_made_again_and_again_with_its_timeout_told(codec: type[Codec]) -> None:
    stage = await busy(codec, CHECK)
    await ask(stage)
    started = stage.loop.now
    for _ in range(5):
        await ask(stage)
    assert stage.loop.now - started == pytest.approx(25, abs=5 * STEP)
    checks = [ear for ear in stage.server.requests if ear.request[b":path"] == b"/grpc.health.v1.Health/Check"]
    assert {ear.request[b"grpc-timeout"] for ear in checks} == {b"1000000u"}
    assert stage.checks == {"passed": 7}


@pytest.mark.parametrize(
    ("code", "status", "verdict"), [(14, 0, PASSED), (13, 0, PASSED), (5, 0, FAILED), (0, NOT_SERVING, FAILED)]
)
@on_loop
async def test_denial_counts_at_once_and_silence_only_in_a_row(
    codec: type[Codec], code: int, status: int, verdict: int
) -> None:
    stage = await busy(codec, CHECK)
    await ask(stage)
    await ask(stage, code, status)
    assert stage.verdicts == [verdict]
    await ask(stage, code, status)
    await ask(stage, code, status)
    assert stage.verdicts == [FAILED]
    await ask(stage)
    assert stage.verdicts == [FAILED]
    await ask(stage)
    assert stage.verdicts == [PASSED]
    assert stage.endpoint(ADDRESS).warm_at > stage.loop.now  # it starts slowly again


@on_loop
async def test_hung_endpoint_is_out_after_three_timeouts(codec: type[Codec]) -> None:
    stage = await busy(codec, CHECK, servers=3)
    await pass_time(stage, 12.5)
    assert stage.verdicts == [PASSED] * 3
    await pass_time(stage, 6.5)
    assert stage.verdicts == [FAILED] * 3
    assert len(stage.picked) == 3  # when all fail, all are used


@on_loop
async def test_upstream_without_rpcs_is_asked_less_often(codec: type[Codec]) -> None:
    stage = await clinic(codec, CHECK)
    answer(stage.server)
    await stage.run()
    for _ in range(300):
        await stage.advance(1)
        answer(stage.server)
        await stage.run()
    assert 4 <= len(stage.server.requests) <= 6
    stage.app().call(end=True)
    await stage.run()
    asked = len(stage.server.requests)
    await pass_time(stage, 5.5)
    assert len(stage.server.requests) == asked + 1  # an RPC ends the rest at once


@on_loop
async def test_first_intervals_are_spread(codec: type[Codec]) -> None:
    """A sidecar that starts with twenty endpoints does not ask them all in the same instant for ever after."""
    stage = await busy(codec, CHECK, servers=20)
    counts = []
    for _ in range(5):
        before = sum(len(server.requests) for server in stage.servers)
        for _ in range(round(1 / STEP)):
            await stage.advance(STEP)
            for server in stage.servers:
                answer(server)
        counts.append(sum(len(server.requests) for server in stage.servers) - before)
    assert max(counts) < 10
    assert sum(counts) == pytest.approx(20, abs=3)


@on_loop
async def test_check_with_no_free_stream_is_left_out(codec: type[Codec]) -> None:
    settings = CodecSettings(max_concurrent_streams=1, reset_burst=10**9)
    stage = await clinic(codec, CHECK, server_settings=settings, connection=ConnectionSettings(max_connections=1))
    answer(stage.server)
    await stage.run()
    app = stage.app()
    app.call(end=True)
    await stage.run()
    await pass_time(stage, 50)
    assert stage.verdicts == [PASSED]
    assert stage.checks == {"passed": 1}


@on_loop
async def test_whoever_looks_too_late_for_the_answer_asks_again(codec: type[Codec]) -> None:
    """After a suspend the answer is lost, and that says nothing of the endpoint (RL-45)."""
    stage = await busy(codec, CHECK, servers=3)
    while not all(len(server.requests) > 1 for server in stage.servers):
        for server in stage.servers:
            answer(server)
        await stage.advance(STEP)
    stage.loop.now += 3600
    for server in stage.servers:
        server.connection.reading = False
    stage.loop.advance(0)
    assert "missed" not in stage.checks
    for server in stage.servers:
        server.connection.reading = True
    await stage.run()
    for server in stage.servers:
        answer(server)
    await stage.run()
    await stage.advance(1)
    assert "missed" not in stage.checks


# === GET and TCP ===


@pytest.mark.parametrize(("status", "verdict"), [(200, PASSED), (204, PASSED), (429, FAILED), (503, FAILED)])
@on_loop
async def test_get_passes_with_2xx_only(codec: type[Codec], status: int, verdict: int) -> None:
    stage = await clinic(codec, GET)
    request = stage.server.request
    assert request.request == {
        b":method": b"GET",
        b":scheme": b"http",
        b":path": b"/health",
        b":authority": b"greeter",
    }
    stage.server.connection.respond(request, head=[(b":status", b"%d" % status)])
    request.send(b"x" * 1000)
    request.end()
    await stage.run()
    assert stage.verdicts == [verdict]
    assert stage.endpoint(ADDRESS).finding == f"GET /health: {status}"
    assert stage.leaks() == []


@on_loop
async def test_get_that_is_reset_is_a_miss(codec: type[Codec]) -> None:
    stage = await clinic(codec, GET)
    stage.server.request.cancel()
    await stage.run()
    assert stage.checks == {"missed": 1}
    assert stage.endpoint(ADDRESS).finding == "GET /health: 127.0.0.1:1 reset the stream: CANCEL"


@on_loop
async def test_tcp_check_connects_and_tells_why_it_cannot(codec: type[Codec]) -> None:
    stage = await clinic(codec, TCP)
    stage.app().call(end=True)
    await stage.run()
    assert (stage.verdicts, stage.server.knocks) == ([PASSED], 1)
    stage.server.refusing = ConnectionRefusedError(111, "Connection refused")
    await pass_time(stage, 16)
    assert stage.verdicts == [FAILED]
    assert stage.endpoint(ADDRESS).finding == f"TCP {ADDRESS}: Connection refused"
    stage.server.refusing = None
    stage.server.hanging = True
    await pass_time(stage, 6.5)
    assert stage.endpoint(ADDRESS).finding == "no answer to its health check within 1s"


@on_loop
async def test_tcp_check_may_go_to_another_port(codec: type[Codec]) -> None:
    stage = Clinic(codec, HealthCheckSettings(tcp=TcpHealth(port=9000)))
    stage.add_server("10.0.0.1:9000")
    await stage.run()
    assert stage.dispatch.servers["10.0.0.1:9000"].knocks == 1


# === settings and members come and go ===


@on_loop
async def test_reload_can_begin_change_and_end_the_checks(codec: type[Codec]) -> None:
    stage = await clinic(codec, None)
    stage.health.reconfigure(WATCH)
    await stage.run()
    assert stage.verdicts == [AWAITED]
    say(stage.server, SERVING)
    await stage.run()
    stage.health.reconfigure(GET)
    await stage.run()
    assert stage.server.requests[0].reset == h2.CANCEL
    assert stage.server.requests[1].request[b":method"] == b"GET"
    stage.health.reconfigure(GET)
    await stage.run()
    assert len(stage.server.requests) == 2
    stage.health.reconfigure(None)
    await stage.run()
    assert (stage.verdicts, stage.picked) == ([UNCHECKED], [ADDRESS])
    await stage.advance(100)
    assert len(stage.server.requests) == 2
    assert stage.leaks() == []


@on_loop
async def test_endpoint_that_leaves_is_asked_no_more_and_one_that_comes_is(codec: type[Codec]) -> None:
    stage = await clinic(codec, WATCH)
    say(stage.server, SERVING)
    other = stage.add_server("10.0.0.2:50051")
    stage.discover("10.0.0.2:50051")
    await stage.run()
    assert stage.server.connection.lost
    assert stage.verdicts == [AWAITED]
    say(other, SERVING)
    await stage.run()
    assert stage.picked == ["10.0.0.2:50051"]
    assert len(stage.health.checkers) == 1


@on_loop
async def test_nothing_is_asked_after_the_end(codec: type[Codec]) -> None:
    stage = await clinic(codec, CHECK)
    answer(stage.server)
    await stage.run()
    stage.dispatch.close("the test is over")
    await stage.run()
    asked = len(stage.server.requests)
    await stage.advance(1000)
    assert len(stage.server.requests) == asked
