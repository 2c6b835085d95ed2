"""What crosses a zone is counted, and only that (D10, P21)."""

from __future__ import annotations

from sidecar.http2.interface import Codec
from sidecar.policy.settings import BalancingSettings
from sidecar.policy.snapshot import Member, Snapshot
from tests.proxy.call import OK
from tests.proxy.stage import Stage, on_loop, started


async def in_zones(codec: type[Codec], *zones: str) -> Stage:
    """A stage in zone a, with a server in each of these."""
    stage = await started(codec, servers=len(zones))
    stage.cluster.reconfigure(stage.cluster.balancer, BalancingSettings(), "a")
    members = tuple(
        Member(address=server.address, zone=zone) for server, zone in zip(stage.servers, zones, strict=True)
    )
    stage.cluster.apply(Snapshot(service="greeter", members=members, source="consul"), stage.loop.now)
    stage.app()
    await stage.run()
    return stage


async def call(stage: Stage) -> None:
    """One RPC of 5 octets up and 7 down."""
    before = {id(ear) for server in stage.servers for ear in server.requests}
    ear = stage.apps[0].call()
    ear.send(b"hello")
    ear.end()
    await stage.run()
    (server, request) = next(
        (server, request) for server in stage.servers for request in server.requests if id(request) not in before
    )
    server.connection.respond(request)
    request.send(b"goodbye")
    request.end(OK)
    await stage.run()
    assert ear.status == 0


@on_loop
async def test_attempts_and_octets_to_another_zone_are_counted(codec: type[Codec]) -> None:
    stage = await in_zones(codec, "a", "b", "b")
    for _ in range(6):
        await call(stage)
    metrics = stage.metrics
    assert (metrics.foreign_attempts, metrics.foreign_up, metrics.foreign_down) == (4, 20, 28)
    assert (metrics.bytes_up, metrics.bytes_down) == (30, 42)


@on_loop
async def test_a_zone_that_is_not_known_is_not_another(codec: type[Codec]) -> None:
    stage = await in_zones(codec, "a", "")
    for _ in range(4):
        await call(stage)
    assert stage.metrics.foreign_attempts == 0
