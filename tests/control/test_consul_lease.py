"""The registrar against a real Consul agent: registered, renewed, repaired, released."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from sidecar.control.consul import ConsulRegistry
from sidecar.control.lease import PASSING, REGISTERED, RELEASED, UNREGISTERED, Registrar
from sidecar.control.registry import Health, Instance, RegistryError, UnknownRegistration
from sidecar.control.settings import (
    CheckSettings,
    ConsulSettings,
    HttpCheck,
    ServiceSettings,
    TcpCheck,
    WeightSettings,
)
from sidecar.telemetry.metrics import RegistryMetrics
from tests.control.waiting import Listening, eventually, running
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


def test_an_app_that_answers_is_registered_as_passing_with_the_reason(agent: ConsulAgent) -> None:
    async def body() -> None:
        registry = registry_of(agent)
        async with Listening() as app:
            registrar = Registrar(registry, instance_at(app.port, "happy"))
            async with running(registrar.run()):
                await eventually(lambda: agent.passing("happy"), "passing in Consul")
                assert agent.passing("happy") == [f"127.0.0.1:{app.port}"]
                check = agent.checks()[f"service:{registrar.instance.id}"]
                assert check["Output"] == f"TCP 127.0.0.1:{app.port}: connected"
                assert registrar.state == PASSING and registrar.ready
                assert await registrar.release()
                assert registrar.instance.id not in agent.services()
                assert registrar.state == RELEASED
        await registry.close()

    asyncio.run(body())


def test_an_agent_that_has_forgotten_everything_is_told_again(agent: ConsulAgent) -> None:
    async def body() -> None:
        registry = registry_of(agent)
        async with Listening() as app:
            registrar = Registrar(registry, instance_at(app.port, "forgotten"))
            async with running(registrar.run()):
                await eventually(lambda: registrar.state == PASSING, "registered")
                await asyncio.to_thread(agent.restart)
                await eventually(lambda: agent.passing("forgotten"), "registered again")
                await registrar.release()
        await registry.close()

    asyncio.run(body())
