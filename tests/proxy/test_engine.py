"""The engine: turns, the shared flush, the timer, and the byte budget."""

from __future__ import annotations

from sidecar.http2.interface import Codec, CodecSettings
from sidecar.proxy.settings import BufferSettings, Http2Settings
from sidecar.proxy.wheel import Alarm
from tests.proxy.stage import Stage, on_loop, started


@on_loop
async def test_lone_event_is_flushed_before_the_call_returns(codec: type[Codec]) -> None:
    """Which is best for the latency of a single RPC."""
    stage = await started(codec)
    app = stage.app()
    await stage.run()
    app.call(end=True)
    wire = stage.server.connection.pipe
    stage.downstream[0].data_received(app.codec.data_to_send())
    assert wire.outbox


@on_loop
async def test_reads_that_come_in_bunches_share_a_flush(codec: type[Codec]) -> None:
    """Found out by trying every sixteenth time; then ten events of one turn are one write."""
    stage = await started(codec)
    apps = [stage.app() for _ in range(10)]
    await stage.run()
    wire = stage.server.connection.pipe
    writes = []
    for _ in range(8):
        for app in apps:
            app.call(end=True)
        before = wire.writes
        for app, connection in zip(apps, stage.downstream, strict=True):
            connection.data_received(app.codec.data_to_send())
        await stage.run()
        writes.append(wire.writes - before)
    assert writes[-1] == 1
    assert len(stage.server.requests) == 80


@on_loop
async def test_bunching_ends_when_events_come_alone_again(codec: type[Codec]) -> None:
    stage = await started(codec)
    apps = [stage.app() for _ in range(10)]
    await stage.run()
    for _ in range(8):
        for app, connection in zip(apps, stage.downstream, strict=True):
            app.call(end=True)
            connection.data_received(app.codec.data_to_send())
        await stage.run()
    wire = stage.server.connection.pipe
    at_once = []
    for _ in range(4):
        apps[0].call(end=True)
        stage.downstream[0].data_received(apps[0].codec.data_to_send())
        at_once.append(bool(wire.outbox))
        await stage.run()
    assert at_once[-1]


@on_loop
async def test_work_from_outside_the_data_path_is_done_soon(codec: type[Codec]) -> None:
    """A new membership places the RPCs that waited for one, without any octet having come."""
    stage = await started(codec, discovered=False)
    app = stage.app()
    await stage.run()
    call = app.call(end=True)
    await stage.run()
    assert stage.metrics.queued == 1
    stage.discover("10.0.0.1:50051")
    await stage.run()
    stage.server.connection.answer(stage.server.request)
    await stage.run()
    assert call.status == 0


@on_loop
async def test_one_timer_drives_all_alarms(codec: type[Codec]) -> None:
    stage = await started(codec)
    rang: list[int] = []

    class Note(Alarm):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

        def ring(self, now: float) -> None:
            assert now >= 1000 + self.number
            rang.append(self.number)

    for number in (30, 10, 20):
        stage.engine.set_alarm(Note(number), 1000.0 + number)
    live = [timer for timer in stage.loop.timers if not timer.cancelled]
    assert len(live) == 1
    await stage.advance(15)
    assert rang == [10]
    await stage.advance(15.1)
    assert rang == [10, 20, 30]


@on_loop
async def test_closed_engine_has_no_timer(codec: type[Codec]) -> None:
    stage = await started(codec)
    stage.engine.set_alarm(Alarm(), 2000.0)
    stage.engine.close()
    assert [timer for timer in stage.loop.timers if not timer.cancelled] == []


async def stalled(codec: type[Codec], **buffers: int) -> Stage:
    """Streams whose readers stand still, until the soft limit is passed."""
    stage = await started(codec, buffers=BufferSettings(**buffers))
    app = stage.app(CodecSettings(stream_window=65_535, reset_burst=10**9))
    app.crediting = False
    await stage.run()
    for _ in range(4):
        app.call(end=True)
    await stage.run()
    for request in stage.server.requests:
        stage.server.connection.respond(request)
        request.send(b"x" * 250_000)
    await stage.run()
    return stage


@on_loop
async def test_connection_window_is_credited_on_receipt_below_the_soft_limit(codec: type[Codec]) -> None:
    """So that stalled streams do not starve their neighbours (H2-45)."""
    stage = await stalled(codec)
    (upstream,) = [c for c in stage.engine.connections if c not in stage.downstream]
    assert stage.process.buffered == 4 * (250_000 - 65_535)
    assert upstream.codec.receive_window == Http2Settings().connection_window


@on_loop
async def test_above_the_soft_limit_senders_get_credit_only_for_what_was_passed_on(codec: type[Codec]) -> None:
    stage = await stalled(codec, soft_limit=300_000, hard_limit=2**26)
    (upstream,) = [c for c in stage.engine.connections if c not in stage.downstream]
    assert upstream.codec.receive_window < Http2Settings().connection_window
    for ear in stage.apps[0].streams:
        ear.crediting = True
        ear.give_back()
    await stage.run()
    for request in stage.server.requests:
        request.end([(b"grpc-status", b"0")])
    await stage.run()
    assert [len(ear.data) for ear in stage.apps[0].streams] == [250_000] * 4
    assert upstream.codec.receive_window == Http2Settings().connection_window
    assert stage.leaks() == []


@on_loop
async def test_connection_that_comes_up_above_the_soft_limit_is_held_too(codec: type[Codec]) -> None:
    stage = await stalled(codec, soft_limit=300_000, hard_limit=2**26)
    app = stage.app()
    await stage.run()
    call = app.call()
    stage.servers[0].connection.crediting = False
    call.send(b"y" * 400_000)
    await stage.run()
    connection = stage.downstream[-1]
    assert connection.codec.receive_window < Http2Settings().connection_window


@on_loop
async def test_crumbs_are_gathered_before_they_are_kept(codec: type[Codec]) -> None:
    """An octet kept on its own costs forty, and the budget would count one."""
    stage = await started(codec)
    app = stage.app(CodecSettings(stream_window=65_535, reset_burst=10**9))
    app.crediting = False
    await stage.run()
    call = app.call(end=True)
    await stage.run()
    request = stage.server.request
    stage.server.connection.respond(request)
    request.send(b"x" * 65_535)
    await stage.run()
    for n in range(4000):
        request.send(b"%d" % (n % 10))
    await stage.run()
    (exchange,) = stage.downstream[0].exchanges
    assert exchange.response is not None
    assert exchange.response.pending is not None
    assert len(exchange.response.pending) <= 3
    request.end([(b"grpc-status", b"0")])
    call.crediting = True
    call.give_back()
    await stage.run()
    assert call.data == b"x" * 65_535 + b"0123456789" * 400
    assert stage.leaks() == []
