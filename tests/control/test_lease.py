"""The registrar's table and its two loops, over a registry that does what the test says."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import AsyncIterator, Callable

import pytest

from sidecar.control.lease import (
    DRAINING,
    PASSING,
    REGISTERED,
    RELEASED,
    TRANSITIONS,
    UNREGISTERED,
    Registrar,
)
from sidecar.control.registry import (
    Health,
    Instance,
    Lease,
    Registry,
    RegistryDenied,
    RegistryError,
    UnknownRegistration,
)
from sidecar.control.settings import CheckSettings, DiscoverySettings, ServiceSettings
from sidecar.policy.snapshot import Snapshot
from sidecar.telemetry.metrics import RegistryMetrics
from tests.control.waiting import Listening, eventually, running


class ScriptedLease(Lease):
    """A lease that is as well as its registry says."""

    def __init__(self, registry: ScriptedRegistry) -> None:
        self.registry = registry
        self.renew_interval = registry.renew_interval

    async def renew(self, health: Health) -> None:
        await self.registry.meet("renew")
        self.registry.reported.append(health)

    async def verify(self) -> None:
        await self.registry.meet("verify")

    async def release(self) -> None:
        await self.registry.meet("release")
        self.registry.present = False


class ScriptedRegistry(Registry):
    """A registry whose trouble is set by the test: `trouble` is raised, a closed `gate` holds every request."""

    name = "scripted"

    def __init__(self) -> None:
        self.met: list[str] = []
        self.reported: list[Health] = []
        self.trouble: dict[str, RegistryError] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.present = False
        self.renew_interval = 3600.0

    async def meet(self, what: str) -> None:
        self.met.append(what)
        await self.gate.wait()
        if what in self.trouble:
            raise self.trouble[what]

    async def register(self, instance: Instance, health: Health) -> Lease:
        await self.meet("register")
        self.present = True
        self.reported.append(health)
        return ScriptedLease(self)

    async def watch(self, service: str, discovery: DiscoverySettings) -> AsyncIterator[Snapshot]:
        raise RegistryError("this one is only registered with")
        yield

    async def close(self) -> None:
        return


class Scene:
    """An app, a registry and the registrar between them."""

    def __init__(self, app: Listening, reconcile_interval: float = 0.02) -> None:
        self.registry = ScriptedRegistry()
        self.metrics = RegistryMetrics()
        self.events: list[str] = []
        settings = ServiceSettings(name="orders", port=app.port, check=CheckSettings(interval=0.02, failures=2))
        self.registrar = Registrar(
            self.registry,
            Instance(id="orders-1", address="127.0.0.1", settings=settings),
            reconcile_interval=reconcile_interval,
            metrics=self.metrics,
            on_event=self.events.append,
            rng=random.Random(1),
        )

    async def reaches(self, state: str) -> None:
        await eventually(lambda: self.registrar.state == state, f"the registration is {state}")

    async def said(self, words: str) -> None:
        await eventually(lambda: any(words in event for event in self.events), f"{words!r} is said")


def test_the_table_lets_nothing_leave_the_drain_but_the_release() -> None:
    for (state, _), reached in TRANSITIONS.items():
        if state in (DRAINING, RELEASED):
            assert reached in (DRAINING, RELEASED)
    assert {state for state, _ in TRANSITIONS} == {UNREGISTERED, REGISTERED, PASSING, DRAINING, RELEASED}


def test_nothing_is_registered_before_the_app_answers() -> None:
    async def body() -> None:
        with Listening() as app:
            app.close()
            scene = Scene(app)
            async with running(scene.registrar.run()):
                await scene.said("does not answer yet")
                assert (scene.registry.met, scene.registrar.state, scene.registrar.ready) == ([], UNREGISTERED, False)
                app.open()
                await scene.reaches(PASSING)
                assert scene.registrar.ready

    asyncio.run(body())


def test_a_change_of_health_is_reported_at_once_and_no_news_are_not_repeated() -> None:
    async def body() -> None:
        with Listening() as app:
            scene = Scene(app)
            async with running(scene.registrar.run()):
                await scene.reaches(PASSING)
                app.close()
                await scene.reaches(REGISTERED)
                app.open()
                await scene.reaches(PASSING)
                reported = [health for health, _ in itertools.groupby(scene.registry.reported)]
                assert reported == scene.registry.reported
                assert [h.status for h in reported] == ["passing", "passing", "critical", "passing"]
                assert reported[1].output.startswith("1 of 2 probes failed")

    asyncio.run(body())


def test_renewals_come_within_their_interval() -> None:
    async def body() -> None:
        with Listening() as app:
            scene = Scene(app)
            scene.registry.renew_interval = 0.01
            async with running(scene.registrar.run()):
                await eventually(lambda: scene.registry.met.count("renew") >= 5, "renewed again and again")

    asyncio.run(body())


@pytest.mark.parametrize("what", ["renew", "verify"])
def test_a_forgotten_registration_is_made_again(what: str) -> None:
    async def body() -> None:
        with Listening() as app:
            scene = Scene(app)
            scene.registry.renew_interval = 0.02
            async with running(scene.registrar.run()):
                await scene.reaches(PASSING)
                scene.registry.trouble[what] = UnknownRegistration("the registry does not know orders-1 any more")
                await eventually(lambda: scene.metrics.lost, "the loss is noticed")
                del scene.registry.trouble[what]
                await eventually(lambda: scene.metrics.registrations >= 2, "registered again")
                await scene.reaches(PASSING)
        await scene.said("does not know orders-1 any more; registering again")
        await scene.said("orders-1 is registered again with scripted as passing")

    asyncio.run(body())


def test_a_registration_that_is_lost_while_the_app_is_critical_waits_for_the_app() -> None:
    async def body() -> None:
        with Listening() as app:
            scene = Scene(app)
            async with running(scene.registrar.run()):
                await scene.reaches(PASSING)
                app.close()
                await scene.reaches(REGISTERED)
                scene.registry.trouble["verify"] = UnknownRegistration("gone")
                await scene.reaches(UNREGISTERED)
                del scene.registry.trouble["verify"]
                assert "gone; it is registered again once the app answers" in scene.events
                assert scene.metrics.registrations == 1
                app.open()
                await scene.reaches(PASSING)
                assert scene.metrics.registrations == 2

    asyncio.run(body())


def test_an_outage_is_said_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sidecar.control")

    async def body() -> None:
        with Listening() as app:
            scene = Scene(app)
            scene.registry.trouble["register"] = RegistryError("the registry is on fire")
            async with running(scene.registrar.run()):
                await eventually(lambda: scene.metrics.errors >= 3, "tried three times")
                assert not scene.metrics.up
                del scene.registry.trouble["register"]
                await scene.reaches(PASSING)
                assert scene.metrics.up
            assert sum("on fire" in event for event in scene.events) == 1
            assert sum("answers again" in event for event in scene.events) == 1

    asyncio.run(body())
    assert sum("on fire" in record.message for record in caplog.records) == 1


def test_a_refusal_by_acl_is_not_repeated_soon() -> None:
    async def body() -> None:
        with Listening() as app:
            scene = Scene(app)
            scene.registry.trouble["register"] = RegistryDenied("permission denied")
            async with running(scene.registrar.run()):
                await scene.said("permission denied")
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(eventually(lambda: scene.metrics.errors > 1, "never"), 0.3)

    asyncio.run(body())


def test_the_release_ends_the_loops_and_nothing_is_registered_after_it() -> None:
    async def body() -> None:
        with Listening() as app:
            scene = Scene(app)
            work = asyncio.ensure_future(scene.registrar.run())
            await scene.reaches(PASSING)
            assert await scene.registrar.release()
            assert (scene.registrar.state, scene.registry.present) == (RELEASED, False)
            await asyncio.wait_for(work, 10)
            assert scene.registry.met[-1] == "release"
            assert await scene.registrar.release(), "a second release has nothing to do"
            assert scene.registry.met.count("release") == 1

    asyncio.run(body())


def test_a_release_waits_for_the_registration_that_is_under_way() -> None:
    async def body() -> None:
        with Listening() as app:
            scene = Scene(app)
            scene.registry.gate.clear()
            async with running(scene.registrar.run()):
                await eventually(lambda: scene.registry.met == ["register"], "registering")
                release = asyncio.ensure_future(scene.registrar.release())
                await eventually(lambda: scene.registrar.state == DRAINING, "draining")
                scene.registry.gate.set()
                assert await release
                assert scene.registry.met == ["register", "release"]
                assert not scene.registry.present

    asyncio.run(body())


def test_a_release_before_the_app_ever_answered_registers_nothing() -> None:
    async def body() -> None:
        with Listening() as app:
            app.close()
            scene = Scene(app)
            async with running(scene.registrar.run()):
                await scene.said("does not answer yet")
                assert await scene.registrar.release()
            assert (scene.registry.met, scene.registrar.state) == ([], RELEASED)

    asyncio.run(body())


def test_a_release_is_tried_again_until_it_works() -> None:
    async def body() -> None:
        with Listening() as app:
            scene = Scene(app)
            async with running(scene.registrar.run()):
                await scene.reaches(PASSING)
                scene.registry.trouble["release"] = RegistryError("not now")
                release = asyncio.ensure_future(scene.registrar.release(timeout=30))
                await eventually(lambda: scene.registry.met.count("release") >= 2, "tried twice")
                del scene.registry.trouble["release"]
                assert await release

    asyncio.run(body())


@pytest.mark.parametrize("harm", [lambda r: r.gate.clear(), lambda r: r.trouble.update(release=RegistryError("no"))])
def test_a_release_gives_up_in_time_and_says_so(harm: Callable[[ScriptedRegistry], None]) -> None:
    async def body() -> None:
        with Listening() as app:
            scene = Scene(app, reconcile_interval=3600)
            async with running(scene.registrar.run()):
                await scene.reaches(PASSING)
                harm(scene.registry)
                assert not await scene.registrar.release(timeout=0.05)
                assert scene.registrar.state == RELEASED
                assert "could not be deregistered" in scene.events[-1]

    asyncio.run(body())


def test_a_mistake_of_ours_ends_nothing() -> None:
    async def body() -> None:
        with Listening() as app:
            scene = Scene(app)
            scene.registry.trouble["register"] = ZeroDivisionError("ours")  # type: ignore[assignment]
            async with running(scene.registrar.run()) as work:
                await eventually(lambda: scene.registry.met, "the mistake is made")
                del scene.registry.trouble["register"]
                await scene.reaches(PASSING)
                assert not work.done()

    asyncio.run(body())


def test_without_a_registry_the_app_is_only_probed() -> None:
    async def body() -> None:
        with Listening() as app:
            settings = ServiceSettings(name="orders", port=app.port, check=CheckSettings(interval=0.02))
            registrar = Registrar(None, Instance(id="orders-1", address="", settings=settings))
            assert registrar.ready
            async with running(registrar.run()):
                await eventually(lambda: registrar.health.status == "passing", "probed")
                assert registrar.state == UNREGISTERED
                assert await registrar.release()

    asyncio.run(body())
