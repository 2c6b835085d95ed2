"""A connection's own affairs: floods, closing, write pressure. What it is for is tested elsewhere."""

from __future__ import annotations

import pytest

from sidecar.http2.constants import CANCEL, ENHANCE_YOUR_CALM, INTERNAL_ERROR, LARGEST_STREAM_ID, NO_ERROR
from sidecar.http2.interface import Codec
from sidecar.policy.shedding import OverloadSettings
from sidecar.proxy.settings import BufferSettings, Http2Settings
from tests.proxy.stage import Stage, on_loop, started


async def cancel_some(stage: Stage, app: object, count: int) -> None:
    """The app opens RPCs and resets each before it is answered."""
    for _ in range(count):
        call = app.call()  # type: ignore[attr-defined]
        await stage.run()
        call.cancel(CANCEL)
    await stage.run()


@on_loop
async def test_app_that_cancels_now_and_then_keeps_its_connection(codec: type[Codec]) -> None:
    """Cancelling costs a token, and time brings tokens back (SE-04)."""
    stage = await started(codec)
    app = stage.app()
    for _ in range(5):
        await cancel_some(stage, app, 60)
        await stage.advance(10)
    assert app.goaways == []
    assert stage.leaks() == []


@on_loop
async def test_app_that_does_nothing_but_cancel_loses_its_connection(codec: type[Codec]) -> None:
    stage = await started(codec)
    app = stage.app()
    await cancel_some(stage, app, 200)
    assert app.goaways == []
    await cancel_some(stage, app, 1)
    assert app.goaways == [(401, ENHANCE_YOUR_CALM)]
    assert app.lost
    assert stage.leaks() == []


@on_loop
async def test_one_turn_is_one_write(codec: type[Codec]) -> None:
    stage = await started(codec)
    app = stage.app()
    await stage.run()
    calls = [app.call(end=True) for _ in range(20)]
    await stage.run()
    wire = stage.server.connection.pipe
    before = wire.writes
    assert len(stage.server.requests) == 20
    for request in stage.server.requests:
        stage.server.connection.answer(request, b"x")
    written = app.pipe.writes
    await stage.run()
    assert app.pipe.writes == written + 1
    assert wire.writes <= before + 1
    assert all(call.status == 0 for call in calls)


@on_loop
async def test_closing_connection_whose_peer_does_not_read_is_cut_after_the_linger(codec: type[Codec]) -> None:
    """Otherwise its RPCs, its memory and its socket would stay for good (H2-84)."""
    stage = await started(codec)
    app = stage.app()
    call = app.call()
    await stage.run()
    app.reading = False
    app.write(b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00")  # WINDOW_UPDATE by 0: a connection error
    await stage.run()
    assert not app.lost
    await stage.advance(0.5)
    assert not app.lost
    await stage.advance(1.0)
    assert app.lost
    assert stage.server.request.reset == CANCEL
    assert stage.leaks() == []
    assert call.status is None


@on_loop
async def test_closing_connection_whose_peer_reads_is_closed_at_once_and_rings_no_more(codec: type[Codec]) -> None:
    stage = await started(codec)
    app = stage.app()
    await stage.run()
    app.write(b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00")
    await stage.run()
    assert app.lost
    assert app.goaways[-1][1] != NO_ERROR
    assert stage.listener_metrics.protocol_errors
    await stage.advance(5)


@on_loop
async def test_who_speaks_http1_and_does_not_read_the_answer_is_cut_after_the_linger(codec: type[Codec]) -> None:
    stage = await started(codec)
    app = stage.app(speaking=False)
    app.reading = False
    app.write(b"GET / HTTP/1.1\r\n\r\n")
    await stage.advance(1.1)
    assert app.lost
    assert stage.listener_metrics.refused == {"http1": 1}


@on_loop
async def test_mistake_of_ours_costs_one_connection_and_is_said(
    codec: type[Codec], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = await started(codec)
    app, other = stage.app(), stage.app()
    await stage.run()

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    try:
        stage.downstream[0].on_ping_ack = broken  # type: ignore[method-assign]
    except AttributeError:
        pytest.skip("compiled: its methods cannot be replaced")
    stage.downstream[0].codec.send_ping(b"question")
    stage.downstream[0].touch()
    await stage.run()
    assert app.lost
    assert app.goaways == [(0, INTERNAL_ERROR)]
    call = other.call(end=True)
    await stage.run()
    stage.server.connection.answer(stage.server.request)
    await stage.run()
    assert call.status == 0


@on_loop
async def test_connection_that_cannot_be_flushed_does_not_hold_up_the_others(codec: type[Codec]) -> None:
    stage = await started(codec)
    first, second = stage.app(), stage.app()
    await stage.run()
    calls = [first.call(end=True), second.call(end=True)]
    await stage.run()

    def broken(data: object) -> None:
        raise RuntimeError("a transport that is broken")

    first.pipe.write = broken  # type: ignore[method-assign]
    server = stage.server.connection
    for request in stage.server.requests:
        server.answer(request)
    await stage.run()
    assert calls[1].status == 0
    assert first.lost
    call = second.call(end=True)
    await stage.run()
    server.answer(stage.server.requests[-1])
    await stage.run()
    assert call.status == 0
    assert stage.leaks() == []


@on_loop
async def test_peer_that_stops_reading_gets_no_more_data_than_the_buffer_of_its_connection(codec: type[Codec]) -> None:
    stage = await started(codec, buffers=BufferSettings(per_connection=32_768))
    app = stage.app()
    call = app.call(end=True)
    await stage.run()
    app.reading = False
    server = stage.server.connection
    server.respond(stage.server.request)
    stage.server.request.send(b"x" * 200_000)
    stage.server.request.end([(b"grpc-status", b"0")])
    await stage.run()
    assert len(app.pipe.outbox) < 3 * 32_768
    app.reading = True
    await stage.run()
    assert (len(call.data), call.status) == (200_000, 0)
    assert stage.leaks() == []


@on_loop
async def test_idle_app_connection_is_asked_to_go_after_its_timeout(codec: type[Codec]) -> None:
    stage = await started(codec, http2=Http2Settings(idle_timeout=10))
    app = stage.app()
    await stage.run()
    await stage.advance(9)
    assert app.goaways == []
    await stage.advance(2)
    assert app.goaways == [(LARGEST_STREAM_ID, NO_ERROR), (0, NO_ERROR)]
    assert app.lost


@on_loop
async def test_app_connection_with_an_rpc_is_not_idle(codec: type[Codec]) -> None:
    stage = await started(codec, http2=Http2Settings(idle_timeout=10))
    app = stage.app()
    call = app.call(end=True)
    await stage.run()
    for _ in range(5):
        await stage.advance(9)
    assert app.goaways == []
    stage.server.connection.answer(stage.server.request)
    await stage.run()
    assert call.status == 0
    await stage.advance(9)
    assert app.goaways == []
    await stage.advance(11)
    assert app.lost


@on_loop
async def test_idle_timeout_that_a_reload_takes_away_closes_nothing(codec: type[Codec]) -> None:
    stage = await started(codec, http2=Http2Settings(idle_timeout=10))
    app = stage.app()
    await stage.run()
    stage.engine.reconfigure(Http2Settings(idle_timeout=0), BufferSettings(), OverloadSettings())
    await stage.advance(100)
    assert app.goaways == []
