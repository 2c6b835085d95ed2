"""grpc.health.v1 Watch on an upstream connection: every word of the endpoint counts (gRFC A17, E12)."""

from __future__ import annotations

import pytest

from sidecar.http2 import constants as h2
from sidecar.http2.interface import Codec, CodecSettings
from sidecar.policy.endpoint import AWAITED, FAILED, PASSED
from sidecar.policy.event import CHECK_FAILED, CHECK_PASSED
from sidecar.proxy.health_settings import HealthCheckSettings
from sidecar.proxy.settings import ConnectionSettings
from tests.proxy.clinic import ADDRESS, CHECK, NOT_SERVING, SERVING, WATCH, clinic, say
from tests.proxy.stage import on_loop


@on_loop
async def test_watch_is_one_stream_on_which_every_word_counts_at_once(codec: type[Codec]) -> None:
    stage = await clinic(codec, WATCH, servers=3)
    for server in stage.servers:
        say(server, SERVING)
    await stage.run()
    first = stage.servers[0]
    for status, verdict in [(NOT_SERVING, FAILED), (SERVING, PASSED), (3, FAILED), (SERVING, PASSED)]:
        say(first, status)
        await stage.run()
        assert stage.verdicts[0] == verdict
    for _ in range(100):
        await stage.advance(9)
    assert [len(server.requests) for server in stage.servers] == [1, 1, 1]
    assert stage.verdicts == [PASSED] * 3
    assert stage.checks == {"passed": 5, "denied": 2}
    address = first.address
    failed, spared = f"{address} fails its health check: gRPC health:", "; it is spared while others pass"
    passed = f"{address} passes its health check again: gRPC health: SERVING"
    assert [(event.kind, event.text) for event in stage.cluster.events] == [
        (CHECK_FAILED, f"{failed} NOT_SERVING{spared}"),
        (CHECK_PASSED, passed),
        (CHECK_FAILED, f"{failed} SERVICE_UNKNOWN{spared}"),
        (CHECK_PASSED, passed),
    ]


@on_loop
async def test_a_verdict_that_turns_is_logged_with_the_fields_of_every_event(
    codec: type[Codec], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sidecar.proxy")
    stage = await clinic(codec, WATCH)
    for status in (SERVING, NOT_SERVING, SERVING):
        say(stage.server, status)
        await stage.run()
    told = [
        (record.levelname, record.event, record.upstream, record.endpoint, record.reason)
        for record in caplog.records
        if getattr(record, "event", "").startswith("endpoint_check")
    ]
    assert told == [
        ("WARNING", "endpoint_check_failed", "greeter", ADDRESS, "health_check"),
        ("INFO", "endpoint_check_passed", "greeter", ADDRESS, "health_check"),
    ]


@pytest.mark.parametrize("settings", [WATCH, CHECK])
@on_loop
async def test_endpoint_without_the_health_service_is_taken_for_well_and_not_asked_again(
    codec: type[Codec], settings: HealthCheckSettings, caplog: pytest.LogCaptureFixture
) -> None:
    stage = await clinic(codec, settings)
    server = stage.server
    for _ in range(3):
        server.connection.respond(server.requests[-1], (b"grpc-status", b"12"), end=True)
        await stage.run()
        assert (stage.verdicts, stage.picked) == ([PASSED], [ADDRESS])
        asked = len(server.requests)
        await stage.advance(600)
        assert len(server.requests) == asked
        server.connection.hang_up()
        await stage.run()
    assert stage.endpoint(ADDRESS).finding == ""
    assert [record.levelname for record in caplog.records if "no grpc.health.v1" in record.message] == ["ERROR"]


@on_loop
async def test_watch_that_the_endpoint_ends_puts_it_out_and_is_tried_again_after_a_growing_wait(
    codec: type[Codec],
) -> None:
    stage = await clinic(codec, WATCH)
    server = stage.server
    waits = []
    for _ in range(4):
        server.connection.respond(server.requests[-1], (b"grpc-status", b"14"), end=True)
        await stage.run()
        assert stage.verdicts == [FAILED]
        asked, waited = len(server.requests), 0.0
        while len(server.requests) == asked:
            await stage.advance(0.1)
            waited += 0.1
        waits.append(waited)
    for wait, middle in zip(waits, [1, 1.6, 2.56, 4.1], strict=True):
        assert middle * 0.8 - 0.11 <= wait <= middle * 1.2 + 0.11
    say(server, SERVING)
    await stage.run()
    assert stage.verdicts == [PASSED]
    server.requests[-1].end([(b"grpc-status", b"14")])
    await stage.run()
    assert stage.verdicts == [FAILED]
    await stage.advance(1.3)  # a word was heard, so the wait begins anew
    assert not server.requests[-1].closed


@on_loop
async def test_watch_moves_to_the_next_connection_and_the_verdict_is_asked_anew(codec: type[Codec]) -> None:
    stage = await clinic(codec, WATCH)
    say(stage.server, SERVING)
    await stage.run()
    stage.server.connection.codec.send_goaway(h2.LARGEST_STREAM_ID, h2.NO_ERROR)
    await stage.run()
    await stage.advance(1)
    assert (stage.server.dials, len(stage.server.requests)) == (2, 2)
    assert (stage.verdicts, stage.picked) == ([AWAITED], [])
    say(stage.server, SERVING)
    await stage.run()
    assert stage.picked == [ADDRESS]
    assert stage.checks == {"passed": 2}  # the end of a connection says nothing of health


@on_loop
async def test_verdict_stands_while_a_connection_is_replaced(codec: type[Codec]) -> None:
    stage = await clinic(codec, WATCH, connection=ConnectionSettings(max_age=100))
    say(stage.server, SERVING)
    await stage.run()
    await stage.advance(120)
    assert stage.server.dials == 2
    assert len(stage.server.requests) == 2
    assert (stage.verdicts, stage.picked) == ([PASSED], [ADDRESS])


@on_loop
async def test_more_connections_of_an_endpoint_need_no_more_watches(codec: type[Codec]) -> None:
    settings = CodecSettings(max_concurrent_streams=2, reset_burst=10**9)
    stage = await clinic(codec, WATCH, server_settings=settings)
    say(stage.server, SERVING)
    await stage.run()
    app = stage.app()
    await stage.run()
    for _ in range(4):
        app.call(end=True)
        await stage.run()
    assert stage.server.dials > 1
    watches = [ear for ear in stage.server.requests if b"Health" in ear.request[b":path"]]
    assert len(watches) == 1
