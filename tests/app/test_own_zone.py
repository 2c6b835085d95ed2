"""The sidecar's own zone where the file does not say it: the registry is asked, and asked again (D10)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from sidecar.policy.cluster import Cluster
from tests.app.place import Place, running, upstream
from tests.app.socket_peer import until
from tests.control.fake_agent import FakeAgent
from tests.proxy.stage import on_loop

AWARE: dict[str, Any] = {"zone_aware": {}}


class Agent(FakeAgent):
    """It knows no service, and its node's zone as the test says; None: it refuses to tell."""

    def __init__(self, zone: str | None) -> None:
        super().__init__(self.tell)
        self.zone = zone
        self.asked = 0

    async def tell(self, request: web.Request) -> web.StreamResponse:
        if request.path != "/v1/agent/self":
            return web.Response(status=500)
        self.asked += 1
        if self.zone is None:
            return web.Response(status=403, text="Permission denied")
        return web.json_response({"Config": {}, "Meta": {"zone": self.zone} if self.zone else None})


def file_of(agent: FakeAgent, **entries: dict[str, Any]) -> dict[str, Any]:
    return {
        "registry": {"consul": {"address": agent.address}},
        "upstreams": [upstream(name, balancing=balancing) for name, balancing in entries.items()],
    }


def cluster(place: Place, name: str) -> Cluster:
    return place.sidecar.by_name[name].cluster


@on_loop
async def test_the_zone_of_consuls_node_is_that_of_every_upstream_that_states_none(tmp_path: Path) -> None:
    async with Agent("a") as agent:
        config = file_of(agent, orders=AWARE, stock={"zone_aware": {"own": "b"}}, plain={})
        async with running(tmp_path, **config) as place:
            await until(lambda: cluster(place, "orders").zone == "a", "the own zone")
            assert [cluster(place, name).zone for name in ("stock", "plain")] == ["b", "a"]
            place.write(**file_of(agent, orders={**AWARE, "slow_start": "1s"}, new=AWARE))
            assert await place.sidecar.reload() == []
            assert [cluster(place, name).zone for name in ("orders", "new")] == ["a", "a"]
            await place.sidecar.own_zone.ask()
            assert agent.asked == 1


@on_loop
async def test_nobody_is_asked_while_no_upstream_needs_to_know(tmp_path: Path) -> None:
    async with (
        Agent("a") as agent,
        running(tmp_path, **file_of(agent, stock={"zone_aware": {"own": "b"}}, plain={})) as place,
    ):
        await place.sidecar.own_zone.ask()
        assert agent.asked == 0
        place.write(**file_of(agent, plain=AWARE))
        assert await place.sidecar.reload() == []
        await place.sidecar.own_zone.ask()
        assert cluster(place, "plain").zone == "a"


@on_loop
async def test_what_keeps_the_zone_unknown_is_said_once_and_it_is_asked_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sidecar.app")
    async with Agent(None) as agent, running(tmp_path, **file_of(agent, orders=AWARE)) as place:
        await until(lambda: "zones are not looked at" in caplog.text, "its first question")
        for zone in (None, "", "", "a"):
            agent.zone = zone
            await place.sidecar.own_zone.ask()
        assert cluster(place, "orders").zone == "a"
    said = [record.getMessage() for record in caplog.records if "zone" in record.getMessage()]
    assert len(said) == 3
    assert "agent:read" in said[0] and said[0].endswith("; until the own zone is known, zones are not looked at")
    assert said[1:] == [
        "consul states no zone of this machine, so zones are not looked at",
        "the own zone is a, says consul",
    ]
