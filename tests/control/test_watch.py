"""The watch over a scripted registry: what reaches the cluster, and when; failures, doubts and the list on disk."""

from __future__ import annotations

import asyncio
import logging
import random
import stat
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from sidecar.control.cache import MAX_AGE, MembershipCache
from sidecar.control.registry import Health, Instance, Lease, Registry, RegistryDenied, RegistryError
from sidecar.control.settings import DiscoverySettings, RegistrySettings
from sidecar.control.static import StaticRegistry
from sidecar.control.watch import COALESCE, DENIED_PAUSE, Watch
from sidecar.policy.cluster import Cluster
from sidecar.policy.membership import EMPTY_HELD, REMOVAL_HELD
from sidecar.policy.rotation import RoundRobin
from sidecar.policy.snapshot import Member, Snapshot
from sidecar.telemetry.metrics import RegistryMetrics
from tests.control.waiting import eventually, running

NOW_AND_THEN = DiscoverySettings()


class ScriptedRegistry(Registry):
    """A registry that says what the test puts into it; an exception is raised by the watch that meets it."""

    name = "scripted"
    silence: float | None = 3600.0

    def __init__(self) -> None:
        self.said: asyncio.Queue[Snapshot | Exception] = asyncio.Queue()
        self.watches = 0

    def say(self, *addresses: str, index: int = 1) -> None:
        members = tuple(Member(address=address) for address in addresses)
        self.said.put_nowait(Snapshot(service="orders", members=members, source="scripted", index=index))

    def fail(self, error: Exception | None = None) -> None:
        self.said.put_nowait(error or RegistryError("the registry is on fire"))

    async def watch(self, service: str, discovery: DiscoverySettings) -> AsyncIterator[Snapshot]:
        self.watches += 1
        while True:
            said = await self.said.get()
            if isinstance(said, Exception):
                raise said
            yield said

    async def register(self, instance: Instance, health: Health) -> Lease:
        raise RegistryError("this one is only watched")

    async def close(self) -> None:
        return


class ShortDice(random.Random):
    """Dice that make every full-jitter backoff short."""

    def random(self) -> float:
        return 0.01


class Scene:
    """A registry, a cluster and the watch between them."""

    def __init__(
        self, registry: Registry | None = None, clock: Callable[[], float] = time.monotonic, **settings: object
    ) -> None:
        self.scripted = ScriptedRegistry()
        self.cluster = Cluster("orders", RoundRobin(random.Random(1)))
        self.metrics = RegistryMetrics()
        self.watch = Watch(
            registry or self.scripted,
            "orders",
            NOW_AND_THEN,
            self.cluster,
            RegistrySettings(**settings),  # type: ignore[arg-type]
            metrics=self.metrics,
            clock=clock,
            rng=ShortDice(),
            start_jitter=0,
        )

    @property
    def addresses(self) -> list[str]:
        return [endpoint.address for endpoint in self.cluster.endpoints]

    async def has(self, *addresses: str) -> None:
        await eventually(lambda: self.addresses == list(addresses), f"the cluster has {addresses}")


def test_snapshots_reach_the_cluster_and_kept_endpoints_stay_the_same_objects() -> None:
    async def body() -> None:
        scene = Scene()
        async with running(scene.watch.run()):
            scene.scripted.say("a:1")
            await scene.has("a:1")
            kept = scene.cluster.endpoints[0]
            scene.scripted.say("a:1", "b:1")
            await scene.has("a:1", "b:1")
            assert scene.cluster.endpoints[0] is kept
            assert (scene.cluster.registry_up, scene.metrics.up, scene.metrics.updates) == (True, True, {"orders": 2})

    asyncio.run(body())


def test_changes_close_together_are_applied_as_one() -> None:
    async def body() -> None:
        now = 1000.0
        scene = Scene(clock=lambda: now)
        async with running(scene.watch.run()):
            for count in range(2, 40):
                scene.scripted.say(*(f"a:{port}" for port in range(1, count)), index=count)
            believed = scene.watch.membership
            await eventually(lambda: believed.believed is not None and believed.believed.index == 39, "all were heard")
            assert scene.addresses == ["a:1"]  # the first, at once; the others wait for more
            now += COALESCE
            await eventually(lambda: len(scene.addresses) == 38, "the last one")
            assert scene.metrics.updates["orders"] == 2

    asyncio.run(body())


def test_the_first_change_after_a_quiet_time_is_applied_at_once() -> None:
    async def body() -> None:
        scene = Scene()
        async with running(scene.watch.run()):
            scene.scripted.say("a:1")
            await scene.has("a:1")
            await asyncio.sleep(COALESCE)
            turns = 0
            scene.scripted.say("a:1", "b:1")
            while scene.addresses != ["a:1", "b:1"]:
                turns += 1
                assert turns < 20, "it waited for more changes"
                await asyncio.sleep(0)

    asyncio.run(body())


def test_a_registry_that_fails_takes_nothing_away_and_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sidecar.control")

    async def body() -> None:
        scene = Scene()
        async with running(scene.watch.run()):
            scene.scripted.say("a:1")
            await scene.has("a:1")
            for _ in range(3):
                scene.scripted.fail()
            await eventually(lambda: scene.metrics.errors == 3, "three failures")
            assert scene.addresses == ["a:1"]
            assert (scene.cluster.registry_up, scene.metrics.up) == (False, False)
            assert scene.cluster.registry_detail == "the registry is on fire"
            scene.scripted.say("a:1", "b:1")
            await scene.has("a:1", "b:1")
            assert scene.cluster.registry_up and scene.cluster.registry_detail == ""
            assert scene.scripted.watches == 4

    asyncio.run(body())
    assert sum("on fire" in record.message for record in caplog.records) == 1, "a change of state is said once"
    assert any("1 instance(s) known so far stay in use" in record.message for record in caplog.records)
    assert any("answers again" in record.message for record in caplog.records)


def test_the_registry_is_up_while_it_answers_anybody() -> None:
    async def body() -> None:
        good, bad = Scene(), Scene()
        bad.watch.metrics = good.metrics
        async with running(good.watch.run()):
            async with running(bad.watch.run()):
                good.scripted.say("a:1")
                await good.has("a:1")
                bad.scripted.fail()
                await eventually(lambda: good.metrics.errors == 1, "one of the two fails")
                assert good.metrics.up
            good.scripted.fail()
            await eventually(lambda: good.metrics.errors == 2, "the other one too")
            assert not good.metrics.up

    asyncio.run(body())


def test_a_bug_in_a_registry_does_not_end_the_watch() -> None:
    async def body() -> None:
        scene = Scene()
        async with running(scene.watch.run()):
            scene.scripted.fail(ZeroDivisionError("ours"))
            scene.scripted.say("a:1")
            await scene.has("a:1")

    asyncio.run(body())


def test_a_refusal_by_acl_is_not_repeated_soon() -> None:
    class Denying(ScriptedRegistry):
        async def watch(self, service: str, discovery: DiscoverySettings) -> AsyncIterator[Snapshot]:
            self.watches += 1
            raise RegistryDenied("no")
            yield

    async def body() -> None:
        registry = Denying()
        scene = Scene(registry)
        async with running(scene.watch.run()):
            await eventually(lambda: registry.watches == 1, "asked once")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(eventually(lambda: registry.watches > 1, "never"), 0.3)
        assert DENIED_PAUSE == 10

    asyncio.run(body())


def test_an_empty_answer_keeps_the_list_until_its_grace_is_over() -> None:
    async def body() -> None:
        scene = Scene(empty_grace=0.3)
        async with running(scene.watch.run()):
            scene.scripted.say("a:1")
            await scene.has("a:1")
            scene.scripted.say()
            await eventually(lambda: scene.metrics.held == {EMPTY_HELD: 1}, "held")
            assert scene.addresses == ["a:1"]
            await scene.has()

    asyncio.run(body())


def test_a_mass_removal_keeps_the_removed_as_suspects() -> None:
    async def body() -> None:
        scene = Scene()
        async with running(scene.watch.run()):
            scene.scripted.say("a:1", "b:1", "c:1")
            await scene.has("a:1", "b:1", "c:1")
            scene.scripted.say("c:1")
            await scene.has("c:1", "a:1", "b:1")
            assert [endpoint.suspect for endpoint in scene.cluster.endpoints] == [False, True, True]
            assert scene.metrics.held == {REMOVAL_HELD: 1}

    asyncio.run(body())


def test_a_watch_that_says_nothing_for_too_long_is_rebuilt() -> None:
    async def body() -> None:
        scene = Scene()
        scene.scripted.silence = 0.05
        async with running(scene.watch.run()):
            scene.scripted.say("a:1")
            await eventually(lambda: scene.scripted.watches >= 3, "rebuilt twice")
            assert scene.addresses == ["a:1"]
            assert "has said nothing" in scene.cluster.registry_detail

    asyncio.run(body())


def test_a_list_that_was_not_confirmed_for_long_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        scene = Scene(stale_warning=0.05)
        async with running(scene.watch.run()):
            scene.scripted.say("a:1")
            await scene.has("a:1")
            await asyncio.sleep(0.06)
            for _ in range(4):
                scene.scripted.fail()
            await eventually(lambda: scene.metrics.errors == 4, "four failures")

    asyncio.run(body())
    assert sum("may be stale" in record.message for record in caplog.records) == 1


def test_static_members_are_one_snapshot_without_age() -> None:
    async def body() -> None:
        members = (Member(address="a:1", tags=("v1",)), Member(address="b:1"))
        scene = Scene(StaticRegistry(members))
        async with running(scene.watch.run()):
            await scene.has("a:1", "b:1")
            assert scene.cluster.source == "static"
            assert scene.cluster.age(1e9) == 0
            assert (scene.metrics.up, scene.metrics.updates) == (False, {}), "no registry was asked"

    asyncio.run(body())


# === the list on disk ===


def only_file(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def test_the_list_survives_a_restart_during_an_outage(tmp_path: Path) -> None:
    folder = tmp_path / "cache"

    async def body() -> None:
        before = Scene(cache_dir=str(folder))
        async with running(before.watch.run()):
            before.scripted.say("a:1", "b:1")
            await before.has("a:1", "b:1")
        assert stat.S_IMODE(only_file(folder).stat().st_mode) == 0o600

        after = Scene(cache_dir=str(folder))
        async with running(after.watch.run()):
            after.scripted.fail()
            await after.has("a:1", "b:1")
            assert after.cluster.source == "cache" and not after.cluster.registry_up
            after.scripted.say()
            await eventually(lambda: after.metrics.held == {EMPTY_HELD: 1}, "an empty answer is judged by it")
            assert after.addresses == ["a:1", "b:1"]

    asyncio.run(body())


def test_a_registry_that_hangs_at_start_lets_the_list_on_disk_be_used(tmp_path: Path) -> None:
    async def body() -> None:
        before = Scene(cache_dir=str(tmp_path))
        async with running(before.watch.run()):
            before.scripted.say("a:1")
            await before.has("a:1")
        after = Scene(cache_dir=str(tmp_path))
        async with running(after.watch.run()):
            await after.has("a:1")
            assert after.cluster.source == "cache"

    asyncio.run(body())


def test_a_registry_that_answers_is_believed_before_the_disk(tmp_path: Path) -> None:
    async def body() -> None:
        before = Scene(cache_dir=str(tmp_path))
        async with running(before.watch.run()):
            before.scripted.say("a:1", "b:1")
            await before.has("a:1", "b:1")
        after = Scene(cache_dir=str(tmp_path))
        async with running(after.watch.run()):
            after.scripted.say("c:1")
            await after.has("c:1")
            assert after.cluster.source == "scripted"

    asyncio.run(body())


def cached(folder: Path, age: float = 0.0, content: bytes | None = None) -> tuple[Snapshot, float] | None:
    """What a cache loads that was written `age` seconds ago, or holds `content`."""
    clock = [1000.0]

    async def body() -> tuple[Snapshot, float] | None:
        cache = MembershipCache(str(folder), "consul", "orders", NOW_AND_THEN, wall=lambda: clock[0])
        cache.keep(Snapshot(service="orders", members=(Member(address="a:1"),), source="consul"))
        await cache.settle()
        if content is not None:
            cache.path.write_bytes(content)
        clock[0] += age
        return cache.load()

    return asyncio.run(body())


def test_the_list_on_disk_comes_with_its_age(tmp_path: Path) -> None:
    found = cached(tmp_path, age=60)
    assert found is not None
    assert (found[0].source, found[1]) == ("cache", 60)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 2}', b"\xff"])
def test_a_corrupt_list_on_disk_is_not_used(tmp_path: Path, content: bytes) -> None:
    assert cached(tmp_path, content=content) is None


def test_a_list_of_yesterday_is_not_used(tmp_path: Path) -> None:
    assert cached(tmp_path, age=MAX_AGE + 1) is None


def test_each_choice_of_instances_has_its_own_list(tmp_path: Path) -> None:
    one = MembershipCache(str(tmp_path), "consul", "orders", DiscoverySettings(tags=("a",)))
    other = MembershipCache(str(tmp_path), "consul", "orders", DiscoverySettings(tags=("b",)))
    assert one.path != other.path


def test_a_disk_that_cannot_be_written_is_said_once_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")

    async def body() -> None:
        scene = Scene(cache_dir=str(tmp_path / "taken"))
        async with running(scene.watch.run()):
            scene.scripted.say("a:1")
            await scene.has("a:1")
            scene.scripted.say("a:1", "b:1")
            await scene.has("a:1", "b:1")

    asyncio.run(body())
    assert sum("cannot be kept on disk" in record.message for record in caplog.records) == 1
