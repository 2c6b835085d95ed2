"""Routes on the data path: the RPC is placed, counted and limited as one of the upstream that it was led to."""

from __future__ import annotations

from sidecar.http2.interface import Codec
from sidecar.policy.match import HeaderMatch, MatchSettings
from sidecar.policy.route import Router, RouteSettings, TargetSettings
from tests.proxy.pipe import Ear, Peer
from tests.proxy.stage import Stage, on_loop, started

CANARY = (b"x-canary", b"1")


async def with_canary(codec: type[Codec]) -> Stage:
    """A stage whose RPCs with `x-canary` go to an upstream of its own."""
    stage = await started(codec)
    canary = stage.add_upstream("canary", "10.9.0.1:50051")
    route = RouteSettings(
        match=MatchSettings(metadata=(HeaderMatch(name="x-canary"),)), to=(TargetSettings(upstream="canary"),)
    )
    stage.dispatch.router = Router([route], {"canary": canary.dispatch})
    await stage.run()
    return stage


async def answered(stage: Stage, app: Peer, *extra: tuple[bytes, bytes]) -> Ear:
    call = app.call(*extra, end=True)
    await stage.run()
    for server in stage.dispatch.servers.values():
        for peer in server.connections:
            for request in peer.streams:
                if not request.responded:
                    request.responded = True
                    peer.answer(request)
    await stage.run()
    return call


@on_loop
async def test_an_rpc_that_fits_a_route_goes_to_its_target_and_counts_there(codec: type[Codec]) -> None:
    stage = await with_canary(codec)
    app = stage.app()
    await stage.run()
    calls = [await answered(stage, app), await answered(stage, app, CANARY), await answered(stage, app, CANARY)]
    assert [call.status for call in calls] == [0, 0, 0]
    canary = stage.targets["canary"]
    assert (stage.metrics.exchange_started, canary.metrics.exchange_started) == (1, 2)
    assert stage.metrics.routed == {"canary": 2}
    assert len(stage.dispatch.servers["10.9.0.1:50051"].requests) == 2
    assert [record.upstream for record in stage.records] == ["greeter", "canary", "canary"]
    assert (stage.dispatch.in_flight, canary.dispatch.in_flight) == (0, 0)


@on_loop
async def test_a_route_to_an_upstream_that_is_gone_leads_nowhere(codec: type[Codec]) -> None:
    """Only on a connection that outlived its listener: a reload replaces routes before it closes an upstream."""
    stage = await with_canary(codec)
    app = stage.app()
    await stage.run()
    stage.targets["canary"].dispatch.close("no longer configured")
    call = await answered(stage, app, CANARY)
    assert (call.status, stage.metrics.exchange_started) == (0, 1)
    assert stage.leaks() == []
