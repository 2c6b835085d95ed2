"""An endpoint that leaves the cluster: no new attempts, the old ones finish or are cut, the others notice nothing."""

from __future__ import annotations

from sidecar.http2.interface import Codec
from sidecar.policy.endpoint import CONNECTING
from sidecar.proxy.settings import ConnectionSettings
from sidecar.proxy.upstream import UpstreamConnection
from tests.proxy.call import calls
from tests.proxy.stage import Stage, on_loop, started

ADDRESS = "10.0.0.1:50051"


@on_loop
async def test_removed_endpoint_gets_no_more_and_finishes_what_it_has(codec: type[Codec]) -> None:
    stage = await started(codec, servers=2)
    made = calls(stage, 2)
    await stage.run()
    gone = stage.server.connection
    kept = stage.servers[1].connection
    stage.discover(stage.servers[1].address)
    later = calls(stage, 4)
    await stage.run()
    assert (len(gone.streams), len(kept.streams)) == (1, 5)
    assert not gone.lost
    gone.answer(gone.streams[0])
    for request in kept.streams:
        kept.answer(request)
    await stage.run()
    assert [call.status for call in [*made, *later]] == [0] * 6
    assert gone.lost
    assert stage.servers[1].dials == 1
    assert stage.metrics.disconnects == {"removed": 1}
    assert stage.leaks() == []


@on_loop
async def test_rpcs_on_a_removed_endpoint_are_cut_after_its_grace(codec: type[Codec]) -> None:
    stage = await started(codec, servers=1, connection=ConnectionSettings(drain_grace=5))
    (call,) = calls(stage, 1)
    await stage.run()
    stage.discover()
    await stage.advance(4)
    assert not call.ended
    await stage.advance(2)
    assert call.status == 14
    assert "its drain grace is over" in call.message
    assert stage.leaks() == []


@on_loop
async def test_endpoint_removed_while_it_is_dialled_is_dialled_no_more(codec: type[Codec]) -> None:
    stage = Stage(codec)
    stage.server.hanging = True
    await stage.run()
    assert stage.server.dialling == 1
    stage.discover()
    await stage.run()
    assert stage.server.dialling == 0
    await stage.advance(100)
    assert stage.server.dials == 1


@on_loop
async def test_churn_leaves_unaffected_connections_alone(codec: type[Codec]) -> None:
    stage = await started(codec, servers=3)
    kept = stage.endpoint(stage.servers[2].address)
    for _ in range(5):
        stage.discover(stage.servers[2].address, stage.servers[0].address)
        await stage.run()
        stage.discover(stage.servers[1].address, stage.servers[2].address)
        await stage.run()
    assert stage.servers[2].dials == 1
    assert stage.endpoint(stage.servers[2].address) is kept
    live = [c for c in stage.engine.connections if isinstance(c, UpstreamConnection)]
    assert len(live) == 2
    assert kept.connectivity != CONNECTING
