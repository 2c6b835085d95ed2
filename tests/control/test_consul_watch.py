"""The watch against a real Consul agent: what changes there arrives here, soon and unharmed."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest

from sidecar.control.consul import ConsulRegistry
from sidecar.control.levels import Levels
from sidecar.control.registry import Health, Instance
from sidecar.control.settings import (
    ConsulSettings,
    DiscoverySettings,
    RegistrySettings,
    Selection,
    ServiceSettings,
)
from sidecar.control.watch import Watch
from sidecar.policy.cluster import NO_MEMBERS, SUBSET_MISS, Cluster
from sidecar.policy.endpoint import READY, TRANSIENT_FAILURE, Endpoint
from sidecar.policy.rotation import RoundRobin
from sidecar.policy.snapshot import WARNING
from sidecar.telemetry.metrics import RegistryMetrics
from tests.control.waiting import eventually, running
from tests.registry_process import ConsulAgent

ALL = DiscoverySettings()


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulAgent]:
    with ConsulAgent(tmp_path_factory.mktemp("consul"), "-node-meta=zone:z9") as agent:
        yield agent


class Scene:
    """A real agent, a cluster and the watch between them."""

    def __init__(self, agent: ConsulAgent, service: str, discovery: DiscoverySettings) -> None:
        self.agent = agent
        self.service = service
        self.metrics = RegistryMetrics()
        self.registry = ConsulRegistry(ConsulSettings(address=agent.address), {}, self.metrics)
        self.cluster = Cluster(service, RoundRobin(random.Random(1)))
        self.watch = Watch(
            self.registry,
            service,
            discovery,
            self.cluster,
            RegistrySettings(),
            metrics=self.metrics,
            start_jitter=0,
        )

    @property
    def addresses(self) -> list[str]:
        return [endpoint.address for endpoint in self.cluster.endpoints]

    async def has(self, *ports: int) -> None:
        wanted = [f"127.0.0.1:{port}" for port in ports]
        await eventually(lambda: self.addresses == wanted, f"{self.service} has {wanted}")

    def register(self, identity: str, port: int, **more: object) -> None:
        self.agent.register(self.service, identity, port, Address="127.0.0.1", **more)


def watching(
    agent: ConsulAgent, service: str, body: Callable[[Scene], Awaitable[None]], discovery: DiscoverySettings = ALL
) -> None:
    """Run `body` while a watch follows `service`."""

    async def scene() -> None:
        stage = Scene(agent, service, discovery)
        try:
            async with running(stage.watch.run()):
                await body(stage)
        finally:
            await stage.registry.close()

    asyncio.run(scene())


def test_instances_come_and_go_while_the_others_stay_the_same_objects(agent: ConsulAgent) -> None:
    async def body(scene: Scene) -> None:
        scene.register("one", 1001)
        scene.register("two", 1002)
        await scene.has(1001, 1002)
        kept: Endpoint = scene.cluster.endpoints[1]
        scene.register("three", 1003)
        await scene.has(1001, 1002, 1003)
        agent.deregister("one")
        await scene.has(1002, 1003)
        assert scene.cluster.endpoints[0] is kept
        assert (scene.cluster.source, scene.cluster.registry_up) == ("consul", True)
        assert scene.cluster.index > 0

    watching(agent, "moving", body)


def test_a_new_instance_arrives_far_within_a_second(agent: ConsulAgent) -> None:
    """The median of several, so that one hiccup of the machine proves nothing."""

    async def body(scene: Scene) -> None:
        await eventually(lambda: scene.cluster.discovered, "a first answer")
        delays = []
        for count in range(1, 10):
            began_at = time.monotonic()
            scene.register(f"fast-{count}", 2000 + count)
            await scene.has(*range(2001, 2001 + count))
            delays.append(time.monotonic() - began_at)
        assert sorted(delays)[len(delays) // 2] < 0.5, delays

    watching(agent, "fast", body)


def test_weights_meta_tags_and_the_warning_weight_arrive(agent: ConsulAgent) -> None:
    async def body(scene: Scene) -> None:
        check = {"CheckID": "mood", "Name": "mood", "TTL": "60s", "Status": "passing"}
        weights = {"Passing": 7, "Warning": 2}
        scene.register("rich", 3001, Tags=["eu"], Meta={"zone": "z1"}, Weights=weights, Check=check)
        await scene.has(3001)
        member = scene.cluster.endpoints[0].member
        assert (member.id, member.tags, member.meta, member.zone) == ("rich", ("eu",), {"zone": "z1"}, "z1")
        assert scene.cluster.endpoints[0].weight == 7
        agent.put("/v1/agent/check/warn/mood")
        await eventually(lambda: scene.cluster.endpoints[0].weight == 2, "the warning weight")
        assert scene.cluster.endpoints[0].member.status == WARNING

    watching(agent, "rich", body)


def test_an_instance_that_states_no_zone_is_in_that_of_its_node(agent: ConsulAgent) -> None:
    async def body(scene: Scene) -> None:
        scene.register("quiet", 3101)
        scene.register("own", 3102, Meta={"zone": "z1"})
        await scene.has(3101, 3102)
        assert [endpoint.member.zone for endpoint in scene.cluster.endpoints] == ["z9", "z1"]
        assert await scene.registry.locate() == "z9"

    watching(agent, "zoned", body)


def test_tags_and_filter_choose(agent: ConsulAgent) -> None:
    async def body(scene: Scene) -> None:
        scene.register("right", 4001, Tags=["v2", "eu"], Meta={"tier": "gold"})
        scene.register("no-tag", 4002, Tags=["v2"], Meta={"tier": "gold"})
        scene.register("no-meta", 4003, Tags=["v2", "eu"])
        await scene.has(4001)

    discovery = DiscoverySettings(tags=("v2", "eu"), filter='Service.Meta.tier == "gold"', datacenter="dc1")
    watching(agent, "chosen", body, discovery)


def test_a_version_is_preferred_and_any_other_stands_in(agent: ConsulAgent) -> None:
    """D12: a subset by metadata, with a fallback to any instance as the next level."""

    async def body(scene: Scene) -> None:
        levels = Levels(scene.cluster, 2, None, seed=1).levels
        async with contextlib.AsyncExitStack() as stack:
            for level, selection in zip(levels, (Selection(meta={"version": "v2"}), Selection()), strict=True):
                watch = Watch(scene.registry, scene.service, selection, level, RegistrySettings(), start_jitter=0)
                await stack.enter_async_context(running(watch.run()))
            scene.register("old", 4501, Meta={"version": "v1"})
            scene.register("new", 4502, Meta={"version": "v2"})
            await scene.has(4502, 4501)
            assert [endpoint.member.priority for endpoint in scene.cluster.endpoints] == [0, 1]
            for endpoint in scene.cluster.endpoints:
                scene.cluster.set_connectivity(endpoint, READY)
            assert [endpoint.member.id for endpoint in scene.cluster.pickable] == ["new"]
            agent.deregister("new")
            scene.cluster.set_connectivity(scene.cluster.endpoints[0], TRANSIENT_FAILURE, "connection refused")
            assert [endpoint.member.id for endpoint in scene.cluster.pickable] == ["old"]

    async def scene() -> None:
        stage = Scene(agent, "versions", ALL)
        try:
            await body(stage)
        finally:
            await stage.registry.close()

    asyncio.run(scene())


def test_instances_without_the_metadata_asked_for_are_counted_as_left_out(agent: ConsulAgent) -> None:
    async def body(scene: Scene) -> None:
        scene.register("plain", 4601)
        await eventually(lambda: scene.cluster.explain().reason == SUBSET_MISS, "the miss is named")

    watching(agent, "missed", body, DiscoverySettings(meta={"version": "v2"}))


@pytest.mark.parametrize(
    ("service", "discovery", "wanted"),
    [
        ("untagged", DiscoverySettings(tags=("canary",)), "the tag canary"),
        ("unfit", DiscoverySettings(filter='Service.Meta.tier == "gold"'), "what the filter `"),
    ],
)
def test_nobody_with_the_tag_is_told_apart_from_nobody_at_all(
    agent: ConsulAgent, service: str, discovery: DiscoverySettings, wanted: str
) -> None:
    async def body(scene: Scene) -> None:
        def reason() -> str:
            return scene.cluster.explain().reason

        await eventually(lambda: reason() == NO_MEMBERS, "nobody is there")
        scene.register(f"{service}-plain", 4651)
        await eventually(lambda: reason() == SUBSET_MISS, "the miss is named")
        assert f"none of the 1 healthy instance(s) that consul lists has {wanted}" in scene.cluster.explain().text
        agent.deregister(f"{service}-plain")
        await eventually(lambda: reason() == NO_MEMBERS, "nobody is there again")

    watching(agent, service, body, discovery)


def test_a_datacenter_that_does_not_exist_is_said_so(agent: ConsulAgent) -> None:
    async def body(scene: Scene) -> None:
        await eventually(lambda: "No path to datacenter" in scene.cluster.registry_detail, "Consul's own words")
        assert not scene.cluster.discovered

    watching(agent, "elsewhere", body, DiscoverySettings(datacenter="dc9"))


def test_a_filter_that_makes_no_sense_is_said_so(agent: ConsulAgent) -> None:
    async def body(scene: Scene) -> None:
        await eventually(lambda: "boolean expression" in scene.cluster.registry_detail, "Consul's own words")

    watching(agent, "misfiltered", body, DiscoverySettings(filter="this is none"))


def test_the_last_instance_is_out_as_soon_as_it_is_released_though_an_empty_answer_is_doubted(
    agent: ConsulAgent,
) -> None:
    async def body(scene: Scene) -> None:
        settings = ServiceSettings(name="leaving", port=4701, address="127.0.0.1")
        instance = Instance(id="leaving-4701", address="127.0.0.1", settings=settings)
        lease = await scene.registry.register(instance, Health(status="passing", output="well"))
        await scene.has(4701)
        await lease.release()
        await scene.has()
        assert scene.metrics.held == {}
        assert instance.id not in agent.services()

    watching(agent, "leaving", body)


def test_critical_ones_are_out_and_back_when_they_pass(agent: ConsulAgent) -> None:
    async def body(scene: Scene) -> None:
        check = {"CheckID": "pulse", "Name": "pulse", "TTL": "60s", "Status": "passing"}
        scene.register("sick", 5001, Check=check)
        scene.register("well", 5002)
        await scene.has(5001, 5002)
        agent.put("/v1/agent/check/fail/pulse")
        await scene.has(5002)
        agent.put("/v1/agent/check/pass/pulse")
        await scene.has(5001, 5002)

    watching(agent, "sickly", body)


def test_maintenance_removes_at_once_even_the_only_instance(agent: ConsulAgent) -> None:
    async def body(scene: Scene) -> None:
        scene.register("only", 6001)
        await scene.has(6001)
        agent.maintain("only", True, "a new disk")
        await scene.has()
        agent.maintain("only", False)
        await scene.has(6001)

    watching(agent, "maintained", body)


def test_maintenance_of_the_node_removes_all_of_it_at_once(agent: ConsulAgent) -> None:
    async def body(scene: Scene) -> None:
        scene.register("first", 6101)
        scene.register("second", 6102)
        await scene.has(6101, 6102)
        agent.put("/v1/agent/maintenance?enable=true&reason=x")
        try:
            await scene.has()
        finally:
            agent.put("/v1/agent/maintenance?enable=false")
        await scene.has(6101, 6102)

    watching(agent, "node-maintained", body)


def test_the_last_deregistered_instance_is_kept_for_the_grace(agent: ConsulAgent) -> None:
    async def body(scene: Scene) -> None:
        scene.register("last", 7001)
        await scene.has(7001)
        agent.deregister("last")
        await eventually(lambda: scene.metrics.held, "an answer held back")
        await scene.has(7001)

    watching(agent, "vanishing", body)


def test_a_killed_agent_takes_nothing_away_and_its_return_is_noticed(agent: ConsulAgent) -> None:
    async def body(scene: Scene) -> None:
        scene.register("one", 8001)
        scene.register("two", 8002)
        await scene.has(8001, 8002)
        kept = list(scene.cluster.endpoints)
        agent.kill()
        await eventually(lambda: not scene.cluster.registry_up, "the outage is noticed")
        assert agent.address in scene.cluster.registry_detail
        await asyncio.to_thread(agent.start)
        # It has forgotten everything: the absent are kept while one after the other registers again.
        await eventually(lambda: scene.cluster.registry_up, "the return is noticed")
        scene.register("one", 8001)
        scene.register("three", 8003)
        await scene.has(8001, 8003, 8002)
        assert {scene.cluster.endpoints[0], scene.cluster.endpoints[2]} == set(kept)

    watching(agent, "surviving", body)


def test_a_hanging_agent_is_an_outage(agent: ConsulAgent) -> None:
    async def scene() -> None:
        stage = Scene(agent, "hung", ALL)
        stage.registry = ConsulRegistry(ConsulSettings(address=agent.address, wait=1.0, timeout=0.2), {})
        stage.watch.registry = stage.registry
        try:
            async with running(stage.watch.run()):
                await eventually(lambda: stage.cluster.registry_up, "up")
                agent.pause()
                try:
                    await eventually(lambda: not stage.cluster.registry_up, "the outage is noticed")
                    assert "gave no answer in time" in stage.cluster.registry_detail
                finally:
                    agent.resume()
                await eventually(lambda: stage.cluster.registry_up, "the return is noticed")
        finally:
            await stage.registry.close()

    asyncio.run(scene())
