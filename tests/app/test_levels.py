"""Levels from the file to the socket: a version is preferred, any other stands in, a reload moves no subset (D12)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sidecar.control.file import FileRegistry
from sidecar.control.registry import Health, Instance
from sidecar.control.settings import FileSettings, ServiceSettings
from tests.app.place import Place, running, upstream
from tests.app.socket_peer import SocketServer, until
from tests.proxy.stage import on_loop

WELL = Health(status="passing", output="")


async def register(folder: Path, name: str, port: int, **meta: str) -> None:
    """Write a lease that outlives the test."""
    registry = FileRegistry(FileSettings(path=str(folder), ttl=600))
    settings = ServiceSettings(name="orders", port=port, meta=meta)
    await registry.register(Instance(id=name, address="127.0.0.1", settings=settings), WELL)


def config(folder: Path, **discovery: Any) -> dict[str, Any]:
    return {
        "registry": {"file": {"path": str(folder), "ttl": "600s", "poll_interval": "10ms"}},
        "upstreams": [{"service": "orders", "listen": "127.0.0.1:0", "discovery": discovery}],
    }


def members(place: Place) -> list[tuple[str, int]]:
    cluster = place.sidecar.by_name["orders"].cluster
    return [(endpoint.member.id, endpoint.member.priority) for endpoint in cluster.endpoints]


@on_loop
async def test_the_version_asked_for_is_used_and_any_other_once_it_is_gone(tmp_path: Path) -> None:
    old, new = await SocketServer().start(), await SocketServer().start()
    for name, server, version in (("old", old, "v1"), ("new", new, "v2")):
        await register(tmp_path / "registry", name, int(server.address.rpartition(":")[2]), version=version)
    wanted = config(tmp_path / "registry", meta={"version": "v2"}, failover=[{}])
    async with running(tmp_path, **wanted) as place:
        await until(lambda: members(place) == [("new", 0), ("old", 1)], "both levels")
        cluster = place.sidecar.by_name["orders"].cluster
        await until(lambda: [e.member.id for e in cluster.pickable] == ["new"], "the preferred one")
        new.close()
        for connection in new.connections:
            assert connection.outlet.transport is not None
            connection.outlet.transport.abort()
        await until(lambda: [e.member.id for e in cluster.pickable] == ["old"], "the other one")
    old.close()


@on_loop
async def test_a_reload_leaves_a_subset_as_it_is_and_follows_new_levels(tmp_path: Path) -> None:
    for number in range(30):
        await register(tmp_path / "registry", f"i{number}", 20_000 + number, version="v1")
    async with running(tmp_path, **config(tmp_path / "registry", subset_size=5)) as place:
        await until(lambda: len(members(place)) == 5, "the subset")
        before = members(place)
        place.write(**config(tmp_path / "registry", subset_size=5, failover=[{"meta": {"version": "v9"}}]))
        assert await place.sidecar.reload() == []
        cluster = place.sidecar.by_name["orders"].cluster
        await until(lambda: cluster.registry_up, "an answer for each level")
        assert members(place) == before


@on_loop
async def test_static_endpoints_state_their_level_and_zone(tmp_path: Path) -> None:
    endpoints = [
        {"address": "127.0.0.1:1", "zone": "a"},
        {"address": "127.0.0.1:2", "priority": 1, "meta": {"zone": "b"}},
    ]
    entry = upstream("orders") | {"endpoints": endpoints}
    async with running(tmp_path, upstreams=[entry]) as place:
        await until(lambda: bool(members(place)), "the members")
        found = [endpoint.member for endpoint in place.sidecar.by_name["orders"].cluster.endpoints]
        assert [(member.priority, member.zone) for member in found] == [(0, "a"), (1, "b")]
