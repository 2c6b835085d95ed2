"""The end of the data path: what runs finishes, what does not finish is cut with a status (RL-02, RL-03)."""

from __future__ import annotations

import asyncio

from sidecar.http2.constants import LARGEST_STREAM_ID, NO_ERROR
from sidecar.http2.interface import Codec
from sidecar.proxy.drain import Drain
from tests.proxy.stage import Stage, on_loop, started


def drain_of(stage: Stage) -> Drain:
    return Drain(stage.engine, [stage.listener], [stage.dispatch])


@on_loop
async def test_fifty_responses_in_flight_are_all_complete(codec: type[Codec]) -> None:
    """linkerd's acceptance test: the shutdown begins after the heads have arrived."""
    stage = await started(codec)
    app = stage.app()
    await stage.run()
    calls = [app.call(end=True) for _ in range(50)]
    await stage.run()
    server = stage.server.connection
    for request in server.streams:
        server.respond(request)
        request.send(b"a" * 8192)
    await stage.run()
    task = asyncio.ensure_future(drain_of(stage).run(60))
    await stage.run()
    assert not task.done()
    for request in server.streams:
        request.send(b"b" * 8192)
        request.end([(b"grpc-status", b"0")])
    await stage.run()
    assert await task == 0
    assert all((len(call.data), call.status) == (16_384, 0) for call in calls)
    await stage.run()
    assert app.lost
    assert server.lost
    assert server.goaways == [(0, NO_ERROR)]
    assert stage.leaks() == []
    assert stage.engine.connections == set()


@on_loop
async def test_drain_of_nothing_ends_at_once(codec: type[Codec]) -> None:
    stage = await started(codec)
    app = stage.app()
    await stage.run()
    task = asyncio.ensure_future(drain_of(stage).run(60))
    await stage.run()
    assert await task == 0
    assert app.goaways == [(LARGEST_STREAM_ID, NO_ERROR), (0, NO_ERROR)]
    assert app.lost


@on_loop
async def test_hurry_cuts_what_runs_with_a_status(codec: type[Codec]) -> None:
    stage = await started(codec)
    app = stage.app()
    await stage.run()
    unanswered, halfway = app.call(), app.call()
    await stage.run()
    server = stage.server.connection
    server.respond(server.streams[1])
    server.streams[1].send(b"half")
    await stage.run()
    drain = drain_of(stage)
    task = asyncio.ensure_future(drain.run(60))
    await stage.run()
    drain.hurry()
    await stage.run()
    assert await task == 2
    await stage.run()
    for call in (unanswered, halfway):
        assert call.status == 14
        assert "the sidecar is shutting down" in call.message
    assert (unanswered.trailers_only, halfway.data) == (True, b"half")
    assert [request.reset for request in server.streams] == [8, 8]
    assert app.lost
    assert server.lost
    assert stage.leaks() == []


@on_loop
async def test_end_of_the_grace_cuts_too(codec: type[Codec]) -> None:
    stage = await started(codec)
    app = stage.app()
    await stage.run()
    call = app.call()
    await stage.run()
    task = asyncio.ensure_future(drain_of(stage).run(0.01))
    while not task.done():
        await stage.run()
        await asyncio.sleep(0.001)  # the grace runs on the loop's own clock
    await stage.run()
    assert task.result() == 1
    assert call.status == 14
    assert app.lost


@on_loop
async def test_reader_that_stands_still_is_cut_with_a_status_too(codec: type[Codec]) -> None:
    """What is held for it is dropped: there is no time left to deliver it."""
    stage = await started(codec)
    app = stage.app()
    app.crediting = False
    await stage.run()
    stalled, complete = app.call(), app.call(end=True)
    await stage.run()
    server = stage.server.connection
    server.respond(server.streams[0])
    server.streams[0].send(b"x" * 400_000)
    server.answer(server.streams[1], b"y" * 300_000)
    await stage.run()
    drain = drain_of(stage)
    task = asyncio.ensure_future(drain.run(60))
    await stage.run()
    drain.hurry()
    await stage.run()
    assert await task == 2
    await stage.run()
    assert (stalled.status, complete.status) == (14, 14)
    assert app.lost
    assert stage.leaks() == []


@on_loop
async def test_rpcs_that_wait_for_an_endpoint_are_answered(codec: type[Codec]) -> None:
    stage = await started(codec, discovered=False)
    app = stage.app()
    await stage.run()
    call = app.call(end=True)
    await stage.run()
    drain = drain_of(stage)
    drain.hurry()
    await asyncio.gather(drain.run(60), stage.run())
    await stage.run()
    assert call.status == 14
    assert stage.leaks() == []


@on_loop
async def test_rpc_that_comes_while_others_finish_is_served(codec: type[Codec]) -> None:
    stage = await started(codec)
    app = stage.app()
    await stage.run()
    app.call()
    await stage.run()
    task = asyncio.ensure_future(drain_of(stage).run(60))
    await stage.run()
    newcomer = stage.app()
    await stage.run()
    late = newcomer.call(end=True)
    await stage.run()
    server = stage.server.connection
    server.answer(server.streams[1])
    await stage.run()
    assert late.status == 0
    server.answer(server.streams[0])
    await stage.run()
    assert await task == 0
