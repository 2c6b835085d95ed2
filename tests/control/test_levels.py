"""Levels of one upstream: merged in order, none before it is its turn, each with the doubts of its own watch (D11)."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

from sidecar.control.levels import Levels
from sidecar.control.settings import RegistrySettings, Selection
from sidecar.control.watch import Watch
from sidecar.policy.cluster import SUBSET_MISS, Cluster
from sidecar.policy.rotation import RoundRobin
from sidecar.policy.snapshot import SUSPECT, Member, Snapshot
from tests.control.test_watch import ScriptedRegistry, ShortDice
from tests.control.waiting import eventually, running


def answer(*addresses: str, index: int = 1, left_out: int = 0, wanted: str = "") -> Snapshot:
    members = tuple(Member(address=address) for address in addresses)
    return Snapshot(service="orders", members=members, source="consul", index=index, left_out=left_out, wanted=wanted)


def made(count: int, subset_size: int | None = None) -> tuple[Cluster, Levels]:
    cluster = Cluster("orders", RoundRobin(random.Random(1)))
    return cluster, Levels(cluster, count, subset_size, seed=7)


def shown(cluster: Cluster) -> list[tuple[str, int]]:
    return [(endpoint.address, endpoint.member.priority) for endpoint in cluster.endpoints]


def test_levels_become_priorities_in_their_order() -> None:
    cluster, levels = made(2)
    levels.levels[0].apply(answer("a:1"), 1.0)
    levels.levels[1].apply(answer("b:1", "c:1", index=9), 2.0)
    assert shown(cluster) == [("a:1", 0), ("b:1", 1), ("c:1", 1)]
    assert (cluster.source, cluster.index) == ("consul", 1)


def test_a_level_that_answers_first_waits_for_those_before_it() -> None:
    cluster, levels = made(3)
    levels.levels[1].apply(answer("b:1"), 1.0)
    assert not cluster.discovered
    levels.levels[0].apply(answer("a:1"), 2.0)
    assert shown(cluster) == [("a:1", 0), ("b:1", 1)]


def test_a_level_whose_registry_fails_is_waited_for_no_longer() -> None:
    cluster, levels = made(2)
    levels.levels[1].apply(answer("b:1"), 1.0)
    levels.levels[0].note_registry(False, "no path to datacenter", 2.0)
    assert shown(cluster) == [("b:1", 1)]
    assert (cluster.registry_up, cluster.registry_detail) == (False, "no path to datacenter")


def test_an_address_on_two_levels_belongs_to_the_first() -> None:
    cluster, levels = made(2)
    levels.levels[0].apply(answer("a:1"), 1.0)
    levels.levels[1].apply(answer("a:1", "b:1"), 1.0)
    assert shown(cluster) == [("a:1", 0), ("b:1", 1)]
    kept = cluster.endpoints[0]
    levels.levels[0].apply(answer(), 2.0)
    assert shown(cluster) == [("a:1", 1), ("b:1", 1)]
    assert cluster.endpoints[0] is kept  # the same instance: its connections live on


def test_the_registry_is_up_while_it_answers_for_every_level_and_the_detail_says_which_it_does_not() -> None:
    cluster, levels = made(2)
    first, second = levels.levels
    first.apply(answer("a:1"), 1.0)
    first.note_registry(True, "", 1.0)
    second.apply(answer("b:1"), 2.0)
    second.note_registry(True, "", 2.0)
    assert cluster.registry_up
    second.note_registry(False, "timed out", 5.0)
    assert (cluster.registry_up, cluster.registry_detail) == (False, "failover level 1: timed out")
    first.note_registry(True, "", 60.0)
    assert (cluster.age(62.0), first.age(62.0), second.age(62.0)) == (60.0, 2.0, 60.0)


def test_members_of_the_first_level_keep_the_priorities_that_they_state() -> None:
    cluster, levels = made(1)
    members = (Member(address="a:1"), Member(address="b:1", priority=2))
    levels.levels[0].apply(Snapshot(service="orders", members=members, source="static"), 1.0)
    assert shown(cluster) == [("a:1", 0), ("b:1", 2)]


def test_a_subset_is_taken_of_each_level_and_stays_the_same() -> None:
    cluster, levels = made(2, subset_size=3)
    levels.levels[0].apply(answer(*(f"a:{n}" for n in range(1, 30))), 1.0)
    levels.levels[1].apply(answer("b:1", "b:2"), 1.0)
    before = shown(cluster)
    assert [priority for _, priority in before] == [0, 0, 0, 1, 1]
    levels.levels[0].apply(answer(*(f"a:{n}" for n in range(1, 31))), 2.0)
    assert len(set(before) - set(shown(cluster))) <= 1


def test_instances_that_all_lack_what_is_asked_for_have_a_refusal_of_their_own() -> None:
    cluster, levels = made(1)
    levels.levels[0].apply(answer(left_out=3, wanted="the tag canary"), 1.0)
    refusal = cluster.explain()
    assert refusal.reason == SUBSET_MISS and not refusal.worth_waiting
    assert refusal.text == (
        "orders: none of the 3 healthy instance(s) that consul lists has the tag canary, as discovery asks"
    )


def test_what_no_level_finds_is_said_of_each() -> None:
    cluster, levels = made(3)
    levels.levels[0].apply(answer(left_out=3, wanted="the tag canary"), 1.0)
    levels.levels[1].apply(answer(left_out=2, wanted="the tag next"), 1.0)
    levels.levels[2].apply(answer(), 1.0)
    assert "5 healthy instance(s) that consul lists has the tag canary or the tag next," in cluster.explain().text


# === with watches ===

Body = Callable[[Cluster, ScriptedRegistry, ScriptedRegistry], Awaitable[None]]


def watched(body: Body) -> None:
    """Two levels, each watched in a registry of its own."""

    async def run() -> None:
        cluster, levels = made(2)
        registries = [ScriptedRegistry(), ScriptedRegistry()]
        async with contextlib.AsyncExitStack() as stack:
            for level, registry in zip(levels.levels, registries, strict=True):
                watch = Watch(
                    registry, "orders", Selection(), level, RegistrySettings(), rng=ShortDice(), start_jitter=0
                )
                await stack.enter_async_context(running(watch.run()))
            await body(cluster, *registries)

    asyncio.run(run())


def test_an_empty_answer_for_one_level_is_disbelieved_and_the_other_is_not_asked() -> None:
    async def body(cluster: Cluster, home: ScriptedRegistry, away: ScriptedRegistry) -> None:
        home.say("a:1")
        away.say("b:1")
        await eventually(lambda: shown(cluster) == [("a:1", 0), ("b:1", 1)], "both levels")
        home.say(index=2)
        away.say("b:1", "c:1", index=2)
        await eventually(lambda: shown(cluster) == [("a:1", 0), ("b:1", 1), ("c:1", 1)], "the first one kept")

    watched(body)


def test_a_mass_removal_on_one_level_makes_suspects_there_only() -> None:
    async def body(cluster: Cluster, home: ScriptedRegistry, away: ScriptedRegistry) -> None:
        home.say("a:1", "a:2", "a:3")
        away.say("b:1", "b:2")
        await eventually(lambda: len(cluster.endpoints) == 5, "both levels")
        home.say("a:1", index=2)
        await eventually(lambda: sum(endpoint.suspect for endpoint in cluster.endpoints) == 2, "two suspects")
        assert [e.member.status == SUSPECT for e in cluster.endpoints] == [False, True, True, False, False]

    watched(body)


def test_an_outage_of_one_level_takes_nothing_from_either() -> None:
    async def body(cluster: Cluster, home: ScriptedRegistry, away: ScriptedRegistry) -> None:
        home.say("a:1")
        away.say("b:1")
        await eventually(lambda: len(cluster.endpoints) == 2, "both levels")
        home.fail()
        await eventually(lambda: not cluster.registry_up, "the outage")
        away.say("b:2", index=2)
        await eventually(lambda: ("b:2", 1) in shown(cluster), "news of the other level")
        assert ("a:1", 0) in shown(cluster)

    watched(body)
