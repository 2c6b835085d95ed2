"""The registrar against a real Consul agent: registered, renewed, repaired, released."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from sidecar.control.consul import ConsulRegistry
from sidecar.control.lease import PASSING, REGISTERED, RELEASED, Registrar
from sidecar.control.registry import Health, Instance, RegistryError, UnknownRegistration
from sidecar.control.settings import (
    CheckSettings,
    ConsulSettings,
    GrpcCheck,
    HttpCheck,
    ServiceSettings,
    TcpCheck,
    WeightSettings,
)
from sidecar.telemetry.metrics import RegistryMetrics
from tests.control.fake_agent import FakeAgent
from tests.control.waiting import Listening, eventually, running
from tests.processes import free_port
from tests.registry_process import ConsulAgent

WELL = Health(status="passing", output="all is well")


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulAgent]:
    with ConsulAgent(tmp_path_factory.mktemp("consul")) as agent:
        yield agent


def registry_of(agent: ConsulAgent) -> ConsulRegistry:
    return ConsulRegistry(ConsulSettings(address=agent.address), {})


def instance_at(port: int, name: str, **more: object) -> Instance:
    more.setdefault("check", CheckSettings(interval=0.05, tcp=TcpCheck()))
    settings = ServiceSettings(name=name, port=port, address="127.0.0.1", **more)  # type: ignore[arg-type]
    return Instance(id=f"{name}-127.0.0.1-{port}", address="127.0.0.1", settings=settings)


def together(agent: ConsulAgent, body: Callable[[ConsulRegistry, Listening], Awaitable[None]]) -> None:
    """Run `body` with a registry at the agent and an app that listens."""

    async def scene() -> None:
        registry = registry_of(agent)
        try:
            with Listening() as app:
                await body(registry, app)
        finally:
            await registry.close()

    asyncio.run(scene())


# === the registrar ===


def test_an_app_that_answers_is_registered_as_passing_with_the_reason(agent: ConsulAgent) -> None:
    async def body(registry: ConsulRegistry, app: Listening) -> None:
        events: list[str] = []
        registrar = Registrar(registry, instance_at(app.port, "happy"), on_event=events.append)
        assert not registrar.ready
        async with running(registrar.run()):
            await eventually(lambda: registrar.state == PASSING, "passing")
            assert registrar.ready
            assert agent.passing("happy") == [f"127.0.0.1:{app.port}"]
            check = agent.checks()[f"service:{registrar.instance.id}"]
            assert check["Output"] == f"TCP 127.0.0.1:{app.port}: connected"
            assert await registrar.release()
            assert registrar.instance.id not in agent.services()
            assert registrar.state == RELEASED
        assert f"{registrar.instance.id} is registered with consul as passing" in events
        assert events[-1] == f"{registrar.instance.id} is deregistered"

    together(agent, body)


def test_an_app_that_does_not_answer_yet_is_not_registered_until_it_does(agent: ConsulAgent) -> None:
    async def body(registry: ConsulRegistry, app: Listening) -> None:
        app.close()
        events: list[str] = []
        registrar = Registrar(registry, instance_at(app.port, "late"), on_event=events.append)
        async with running(registrar.run()):
            await eventually(lambda: events, "a word about the app")
            assert "late does not answer yet" in events[0] and "connection refused" in events[0]
            assert registrar.instance.id not in agent.services()
            app.open()
            await eventually(lambda: agent.passing("late"), "registered")
            await registrar.release()

    together(agent, body)


def test_an_app_that_dies_turns_critical_with_the_reason_and_passes_when_it_is_back(agent: ConsulAgent) -> None:
    async def body(registry: ConsulRegistry, app: Listening) -> None:
        registrar = Registrar(registry, instance_at(app.port, "mortal"))
        check = f"service:{registrar.instance.id}"
        async with running(registrar.run()):
            await eventually(lambda: registrar.state == PASSING, "passing")
            app.close()
            await eventually(lambda: agent.checks()[check]["Status"] == "critical", "critical in Consul")
            assert "connection refused" in agent.checks()[check]["Output"]
            await eventually(lambda: registrar.state == REGISTERED, "the registrar knows it too")
            app.open()
            await eventually(lambda: agent.passing("mortal"), "passing again")
            await registrar.release()

    together(agent, body)


def test_renewals_outlive_the_ttl_and_their_end_turns_it_critical(agent: ConsulAgent) -> None:
    async def body(registry: ConsulRegistry, app: Listening) -> None:
        check = CheckSettings(interval=0.1, tcp=TcpCheck(), ttl=1.0)
        registrar = Registrar(registry, instance_at(app.port, "renewed", check=check))
        identity = f"service:{registrar.instance.id}"
        async with running(registrar.run()):
            await eventually(lambda: registrar.state == PASSING, "passing")
            await asyncio.sleep(2.5 * 1.0)  # of ttls: time itself is what is tested here
            await eventually(lambda: agent.checks()[identity]["Status"] == "passing", "still passing")
        await eventually(lambda: agent.checks()[identity]["Status"] == "critical", "the check expires")
        agent.deregister(registrar.instance.id)

    together(agent, body)


def test_an_agent_that_has_forgotten_everything_is_told_again(agent: ConsulAgent) -> None:
    async def body(registry: ConsulRegistry, app: Listening) -> None:
        metrics, events = RegistryMetrics(), list[str]()
        instance = instance_at(app.port, "forgotten")
        registrar = Registrar(registry, instance, metrics=metrics, on_event=events.append)
        async with running(registrar.run()):
            await eventually(lambda: registrar.state == PASSING, "registered")
            await asyncio.to_thread(agent.restart)
            await eventually(lambda: agent.passing("forgotten"), "registered again", patience=10)
            await eventually(lambda: metrics.registrations == 2, "counted")
            await registrar.release()
        assert metrics.lost == 1
        assert sum("registered again" in event for event in events) >= 1

    together(agent, body)


@pytest.mark.parametrize("harm", ["deregistered", "check removed", "port changed", "tags changed"])
def test_a_registration_that_somebody_has_harmed_is_repaired(agent: ConsulAgent, harm: str) -> None:
    async def body(registry: ConsulRegistry, app: Listening) -> None:
        metrics = RegistryMetrics()
        instance = instance_at(app.port, "harmed", tags=("blue",))
        registrar = Registrar(registry, instance, metrics=metrics, reconcile_interval=0.1)
        async with running(registrar.run()):
            await eventually(lambda: registrar.state == PASSING, "registered")
            if harm == "deregistered":
                agent.deregister(instance.id)
            elif harm == "check removed":
                agent.put(f"/v1/agent/check/deregister/service:{instance.id}")
            elif harm == "port changed":
                agent.register("harmed", instance.id, 1)
            else:
                agent.register("harmed", instance.id, app.port, Address="127.0.0.1", Tags=["red"])
            await eventually(lambda: metrics.registrations == 2, "registered again")
            await eventually(lambda: registrar.state == PASSING, "passing again")
            entry = agent.services()[instance.id]
            assert (entry["Port"], entry["Tags"]) == (app.port, ["blue"])
            assert agent.passing("harmed") == [f"127.0.0.1:{app.port}"]
            await registrar.release()

    together(agent, body)


def test_a_registration_that_is_right_is_left_alone(agent: ConsulAgent) -> None:
    async def body(registry: ConsulRegistry, app: Listening) -> None:
        metrics = RegistryMetrics()
        settings: dict[str, object] = {"tags": ("b", "a"), "meta": {"v": "1"}, "weights": WeightSettings(passing=9)}
        registrar = Registrar(
            registry, instance_at(app.port, "right", **settings), metrics=metrics, reconcile_interval=0.01
        )
        async with running(registrar.run()):
            await eventually(lambda: registrar.state == PASSING, "registered")
            before = len(agent.services())
            for _ in range(30):
                await asyncio.sleep(0.01)
            assert (metrics.registrations, metrics.lost, len(agent.services())) == (1, 0, before)
            await registrar.release()

    together(agent, body)


def test_an_agent_that_is_down_at_the_release_is_waited_for_no_longer_than_asked(agent: ConsulAgent) -> None:
    async def body(registry: ConsulRegistry, app: Listening) -> None:
        events: list[str] = []
        registrar = Registrar(registry, instance_at(app.port, "stuck"), on_event=events.append)
        async with running(registrar.run()):
            await eventually(lambda: registrar.state == PASSING, "registered")
            agent.pause()
            try:
                assert not await registrar.release(timeout=0.3)
            finally:
                agent.resume()
            assert registrar.state == RELEASED
            assert "could not be deregistered" in events[-1]

    together(agent, body)


# === what stands in the registry ===


def test_the_entry_carries_weights_meta_and_tags(agent: ConsulAgent) -> None:
    async def body(registry: ConsulRegistry, app: Listening) -> None:
        more: dict[str, object] = {"meta": {"version": "7"}, "tags": ("canary",)}
        more["weights"] = WeightSettings(passing=5, warning=2)
        lease = await registry.register(instance_at(app.port, "rich", **more), WELL)
        entry = agent.services()[lease.instance.id]
        assert entry["Meta"] == {"version": "7", "registered-by": "sidecar"}
        assert (entry["Tags"], entry["Weights"]) == (["canary"], {"Passing": 5, "Warning": 2})
        await lease.release()

    together(agent, body)


def test_an_instance_without_an_address_is_found_at_its_agent(agent: ConsulAgent) -> None:
    async def body(registry: ConsulRegistry, app: Listening) -> None:
        settings = ServiceSettings(name="nowhere", port=app.port)
        lease = await registry.register(Instance(id="nowhere-1", address="", settings=settings), WELL)
        await lease.verify()
        assert agent.passing("nowhere") == [f"127.0.0.1:{app.port}"]
        await lease.release()

    together(agent, body)


def test_our_ghosts_at_the_same_address_are_removed_and_nothing_else(agent: ConsulAgent) -> None:
    async def body(registry: ConsulRegistry, app: Listening) -> None:
        ours = {"Address": "127.0.0.1", "Meta": {"registered-by": "sidecar"}}
        agent.register("haunted", "ghost", app.port, **ours)
        agent.register("haunted", "other-port", app.port + 1, **ours)
        agent.register("haunted", "by-hand", app.port, Address="127.0.0.1")
        agent.register("neighbour", "other-service", app.port, **ours)
        lease = await registry.register(instance_at(app.port, "haunted"), WELL)
        left = agent.services()
        assert "ghost" not in left
        assert {"other-port", "by-hand", "other-service", lease.instance.id} <= set(left)
        await lease.release()
        for identity in ("other-port", "by-hand", "other-service"):
            agent.deregister(identity)

    together(agent, body)


def test_registering_again_leaves_the_operators_maintenance_in_place(agent: ConsulAgent) -> None:
    async def body(registry: ConsulRegistry, app: Listening) -> None:
        instance = instance_at(app.port, "resting")
        lease = await registry.register(instance, WELL)
        agent.maintain(instance.id, True, "an operator works on it")
        await registry.register(instance, WELL)
        assert agent.passing("resting") == []
        await lease.release()

    together(agent, body)


def test_a_node_that_states_no_zone_has_none(agent: ConsulAgent) -> None:
    async def body(registry: ConsulRegistry, _: Listening) -> None:
        assert await registry.locate() == ""

    together(agent, body)


def test_an_agent_that_describes_itself_in_garbage_is_an_error_with_a_sentence() -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response({"Meta": "z9"})

    async def scene() -> None:
        async with FakeAgent(answer) as fake:
            registry = ConsulRegistry(ConsulSettings(address=fake.address), {})
            try:
                with pytest.raises(RegistryError, match="described itself in a form that makes no sense"):
                    await registry.locate()
            finally:
                await registry.close()

    asyncio.run(scene())


@pytest.mark.parametrize("trouble", ["refuses", "hangs"])
def test_a_release_whose_notice_comes_to_nothing_deregisters_all_the_same(
    trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.control.consul.NOTICE", 0.01)
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        if "/check/fail/" in request.path:
            if trouble == "hangs":
                await asyncio.Event().wait()
            return web.Response(status=500)
        return web.json_response({})

    async def scene() -> None:
        async with FakeAgent(answer) as fake:
            registry = ConsulRegistry(ConsulSettings(address=fake.address), {})
            try:
                lease = await registry.register(instance_at(1, "unheard"), WELL)
                asked.clear()
                await lease.release()
            finally:
                await registry.close()

    asyncio.run(scene())
    assert [path.split("/")[3:5] for path in asked] == [["check", "fail"], ["service", "deregister"]]


def test_a_lease_knows_when_it_is_unknown(agent: ConsulAgent) -> None:
    async def body(registry: ConsulRegistry, app: Listening) -> None:
        lease = await registry.register(instance_at(app.port, "gone"), WELL)
        await lease.renew(Health(status="warning", output="slow"))
        await lease.verify()
        assert agent.checks()[lease.check_id]["Status"] == "warning"
        await lease.release()
        await lease.release()  # already gone is fine
        with pytest.raises(UnknownRegistration, match="does not know"):
            await lease.renew(WELL)
        with pytest.raises(UnknownRegistration, match="does not know"):
            await lease.verify()

    together(agent, body)


def test_an_id_of_strange_letters_is_still_one_id(agent: ConsulAgent) -> None:
    async def body(registry: ConsulRegistry, app: Listening) -> None:
        settings = ServiceSettings(name="strange", port=app.port, check=CheckSettings(tcp=TcpCheck()))
        instance = Instance(id="a/b c%20?d#e=ü", address="127.0.0.1", settings=settings)
        lease = await registry.register(instance, WELL)
        await lease.verify()
        await lease.renew(WELL)
        await lease.release()
        assert instance.id not in agent.services()

    together(agent, body)


def test_a_changed_token_registers_again(agent: ConsulAgent, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("")

    async def scene() -> None:
        registry = ConsulRegistry(ConsulSettings(address=agent.address, token_file=str(file)), {})
        lease = await registry.register(instance_at(1, "tokened"), WELL)
        await lease.verify()
        file.write_text("anything")
        with pytest.raises(UnknownRegistration, match="token has changed"):
            await lease.verify()
        await lease.release()
        await registry.close()

    asyncio.run(scene())


# === checks that the agent runs ===


@pytest.mark.parametrize("kind", ["tcp", "http", "grpc"])
def test_the_agent_probes_where_it_is_asked_to(agent: ConsulAgent, kind: str) -> None:
    checks = {
        "tcp": CheckSettings(by="agent", interval=0.1, tcp=TcpCheck(), failures=1),
        "http": CheckSettings(by="agent", interval=0.1, http=HttpCheck(path="/nothing"), failures=1),
        "grpc": CheckSettings(by="agent", interval=0.1, grpc=GrpcCheck(service="orders.v1"), failures=1),
    }

    async def body(registry: ConsulRegistry, app: Listening) -> None:
        lease = await registry.register(instance_at(app.port, f"probed-{kind}", check=checks[kind]), WELL)
        assert lease.renew_interval == float("inf")
        assert agent.passing(f"probed-{kind}"), "it begins with what our own probe found"
        await lease.renew(WELL)
        app.close()
        await eventually(lambda: agent.checks()[lease.check_id]["Status"] == "critical", "critical by the agent")
        agent.put(f"/v1/agent/check/deregister/{lease.check_id}")
        with pytest.raises(UnknownRegistration, match="another check"):
            await lease.verify()
        await lease.release()

    together(agent, body)


def test_a_registry_that_is_gone_raises_a_sentence_with_its_address() -> None:
    async def scene() -> None:
        registry = ConsulRegistry(ConsulSettings(address=f"127.0.0.1:{free_port()}"), {})
        with pytest.raises(RegistryError, match=r"Consul at 127\.0\.0\.1:\d+ cannot be reached to register"):
            await registry.register(instance_at(1, "lonely"), WELL)
        await registry.close()

    asyncio.run(scene())
