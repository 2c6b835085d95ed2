"""Levels: Envoy's spill at 72 %, who speaks for a level, what each balancer makes of a divided load (D11, LB-07)."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.http2.interface import HeaderBlock
from sidecar.policy.balancer import PickContext
from sidecar.policy.builtin import BALANCERS
from sidecar.policy.cluster import ALL_CONNECTING, Cluster, Refusal
from sidecar.policy.endpoint import (
    AWAITED,
    CONNECTING,
    EJECTED,
    PROBATION,
    READY,
    TRANSIENT_FAILURE,
    Endpoint,
)
from sidecar.policy.level import share_load
from sidecar.policy.settings import BalancingSettings
from sidecar.policy.snapshot import PASSING, SUSPECT, Member, Snapshot
from sidecar.rpc.metadata import read_request


def cluster_of(*sizes: int, balancer: str = "round_robin", weight: int = 1) -> Cluster:
    """A cluster with so many endpoints on each level, all connected."""
    settings = BalancingSettings(hash_on="x-user")
    cluster = Cluster("orders", BALANCERS[balancer](random.Random(1), settings), settings)
    apply(cluster, *sizes, weight=weight)
    for endpoint in cluster.endpoints:
        cluster.set_connectivity(endpoint, READY)
    return cluster


def apply(cluster: Cluster, *sizes: int, weight: int = 1, suspects: int = 0) -> None:
    members = [
        Member(
            address=f"10.0.{level}.{n}:80",
            priority=level,
            weight=weight,
            status=SUSPECT if level == 0 and n < suspects else PASSING,
        )
        for level, size in enumerate(sizes)
        for n in range(size)
    ]
    cluster.apply(Snapshot(service="orders", members=tuple(members), source="consul"), 1.0)


def level(cluster: Cluster, number: int) -> list[Endpoint]:
    return [endpoint for endpoint in cluster.endpoints if endpoint.member.priority == number]


def fail(cluster: Cluster, *endpoints: Endpoint) -> None:
    for endpoint in endpoints:
        cluster.set_connectivity(endpoint, TRANSIENT_FAILURE, "connection refused")


def shares(cluster: Cluster, count: int = 10_000) -> dict[int, float]:
    """What part of the picks each level gets."""
    found: Counter[int] = Counter()
    for user in range(count):
        block = HeaderBlock([(b":path", b"/pkg.Greeter/Hello"), (b"x-user", b"%d" % user)])
        endpoint = cluster.pick(PickContext(read_request(block), (), block), 100.0)
        assert isinstance(endpoint, Endpoint)
        found[endpoint.member.priority] += 1
    return {priority: picks / count for priority, picks in found.items()}


# === the rule ===


@pytest.mark.parametrize(
    ("available", "loads"),
    [  # Envoy's own table, "Priority levels"
        ([1.0, 1.0], [1.0, 0.0]),
        ([0.72, 0.72], [1.0, 0.0]),
        ([0.71, 0.71], [0.994, 0.006]),
        ([0.50, 0.50], [0.7, 0.3]),
        ([0.25, 1.0], [0.35, 0.65]),
        ([0.0, 1.0], [0.0, 1.0]),
        ([0.25, 0.25], [0.5, 0.5]),
        ([0.05, 0.5, 1.0], [0.07, 0.7, 0.23]),
    ],
)
def test_a_level_falls_short_below_72_per_cent_and_the_next_takes_the_rest(
    available: list[float], loads: list[float]
) -> None:
    assert share_load(available) == pytest.approx(loads)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5).filter(lambda available: sum(available) > 0.01))
def test_the_load_is_always_carried_in_full(available: list[float]) -> None:
    loads = share_load(available)
    assert sum(loads) == pytest.approx(1.0)
    assert min(loads) >= 0.0


# === what a cluster makes of it ===


def test_the_first_level_takes_everything_while_it_is_sound() -> None:
    cluster = cluster_of(10, 10)
    fail(cluster, *level(cluster, 0)[:2])
    assert cluster.pickable == level(cluster, 0)[2:]


@pytest.mark.parametrize(
    "balancer", ["round_robin", "random", "least_request", "peak_ewma", "weighted_round_robin", "ring_hash", "maglev"]
)
def test_a_level_that_is_half_down_keeps_seven_tenths_of_the_load(balancer: str) -> None:
    cluster = cluster_of(10, 10, balancer=balancer)
    fail(cluster, *level(cluster, 0)[:5])
    # By hash it is the keys that are divided, and an endpoint's part of them varies.
    within = 0.1 if balancer in ("ring_hash", "maglev") else 0.02
    assert shares(cluster)[0] == pytest.approx(0.7, abs=within)


def test_a_load_divided_between_levels_of_different_sizes_and_weights_is_divided_all_the_same() -> None:
    cluster = cluster_of(10, 2, weight=7)
    fail(cluster, *level(cluster, 0)[:5])
    assert shares(cluster)[0] == pytest.approx(0.7, abs=0.02)
    counts = Counter(cluster.pick(None, 100.0) for _ in range(10_000))
    assert {counts[endpoint] for endpoint in level(cluster, 1)} == {1500}


def test_the_load_comes_back_when_the_level_recovers() -> None:
    cluster = cluster_of(4, 4)
    fail(cluster, *level(cluster, 0))
    assert cluster.pickable == level(cluster, 1)
    for endpoint in level(cluster, 0):
        cluster.set_connectivity(endpoint, READY)
    assert cluster.pickable == level(cluster, 0)
    apply(cluster, 4)
    assert {endpoint.worth for endpoint in cluster.endpoints} == {1.0}


def test_ejected_suspect_and_saturated_members_speak_against_their_level() -> None:
    cluster = cluster_of(4, 4)
    cluster.set_state(level(cluster, 0)[0], EJECTED, "5 failures in a row", 2.0)
    cluster.set_saturated(level(cluster, 0)[1], True)
    assert shares(cluster)[0] == pytest.approx(0.7, abs=0.02)
    apply(cluster, 4, 4, suspects=1)
    assert set(cluster.pickable) == {*level(cluster, 0)[2:], *level(cluster, 1)}


def test_a_level_that_is_saturated_spills_instead_of_queueing() -> None:
    cluster = cluster_of(2, 2)
    for endpoint in level(cluster, 0):
        cluster.set_saturated(endpoint, True)
    assert cluster.pickable == level(cluster, 1)


def test_nobody_panics_while_another_level_can_carry_the_load() -> None:
    cluster = cluster_of(4, 4)
    for endpoint in level(cluster, 0)[:3]:
        cluster.set_state(endpoint, EJECTED, "5 failures in a row", 2.0)
    assert set(cluster.pickable) == {level(cluster, 0)[3], *level(cluster, 1)}
    for endpoint in level(cluster, 1)[:3]:
        cluster.set_state(endpoint, EJECTED, "5 failures in a row", 2.0)
    assert set(cluster.pickable) == set(cluster.endpoints)


def test_with_nobody_available_the_first_level_that_is_connected_takes_all() -> None:
    cluster = cluster_of(2, 2, 2)
    fail(cluster, *level(cluster, 0))
    for endpoint in [*level(cluster, 1), *level(cluster, 2)]:
        cluster.set_state(endpoint, EJECTED, "5 failures in a row", 2.0)
    assert cluster.pickable == level(cluster, 1)


# === instead of a failover timer ===


def test_a_level_that_still_connects_is_waited_for() -> None:
    cluster = cluster_of(2, 2)
    for endpoint in level(cluster, 0):
        cluster.set_connectivity(endpoint, CONNECTING)
    refusal = cluster.pick(None, 100.0)
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, refusal.worth_waiting) == (ALL_CONNECTING, True)


def test_a_level_whose_connects_fail_is_waited_for_no_longer() -> None:
    cluster = cluster_of(2, 2)
    for endpoint in level(cluster, 0):
        cluster.set_connectivity(endpoint, CONNECTING)
    fail(cluster, *level(cluster, 0))
    assert cluster.pickable == level(cluster, 1)


def test_a_lost_connection_speaks_against_its_level_at_once() -> None:
    cluster = cluster_of(2, 2)
    for endpoint in level(cluster, 0):
        endpoint.last_error = "connection reset"
        cluster.set_connectivity(endpoint, CONNECTING)
    assert cluster.pickable == level(cluster, 1)


def test_pick_first_chooses_on_the_first_level() -> None:
    for seed in range(20):
        cluster = Cluster("orders", BALANCERS["pick_first"](random.Random(seed), BalancingSettings()))
        apply(cluster, 2, 5)
        for endpoint in cluster.endpoints:
            cluster.set_connectivity(endpoint, READY)
        fail(cluster, level(cluster, 0)[0])
        assert cluster.pick(None, 0.0) is level(cluster, 0)[1]


# === retries ===


def pick_again(cluster: Cluster, *tried: Endpoint) -> Endpoint:
    """A pick for an RPC that was at `tried`."""
    block = HeaderBlock([(b":path", b"/pkg.Greeter/Hello"), (b"x-user", b"7")])
    endpoint = cluster.pick(PickContext(read_request(block), tried, block), 100.0)
    assert isinstance(endpoint, Endpoint)
    return endpoint


@pytest.mark.parametrize("balancer", BALANCERS)
def test_a_retry_goes_to_the_same_level_then_to_the_next_and_only_then_where_it_was(balancer: str) -> None:
    cluster = cluster_of(2, 2, 1, balancer=balancer)
    ours, next_ones, last = (level(cluster, number) for number in range(3))
    tried = [ours[0]]
    for rest in ([ours[1]], next_ones, next_ones, last):
        tried.append(pick_again(cluster, *tried))
        assert tried[-1] in rest
    assert len(set(tried)) == 5
    assert pick_again(cluster, *tried) in ours


def test_the_next_level_takes_retries_in_turn_and_nothing_else_while_the_first_is_sound() -> None:
    cluster = cluster_of(1, 3)
    only, reserve = level(cluster, 0)[0], level(cluster, 1)
    assert Counter(pick_again(cluster, only) for _ in range(9)) == dict.fromkeys(reserve, 3)
    assert {cluster.pick(None, 100.0) for _ in range(9)} == {only}


def test_a_retry_goes_to_the_least_loaded_in_reserve() -> None:
    cluster = cluster_of(1, 3)
    busy, idle, busier = level(cluster, 1)
    busy.in_flight, busier.in_flight = 1, 2
    assert {pick_again(cluster, level(cluster, 0)[0]) for _ in range(5)} == {idle}


def test_a_retry_does_not_leave_for_one_that_is_not_sound() -> None:
    cluster = cluster_of(1, 6)
    only, (ejected, trial, awaited, full, gone, suspect) = level(cluster, 0)[0], level(cluster, 1)
    cluster.set_state(ejected, EJECTED, "5 failures in a row", 1.0)
    cluster.set_state(trial, PROBATION, "its time is over", 1.0)
    cluster.set_checkup(awaited, AWAITED, "", 1.0)
    cluster.set_saturated(full, True)
    fail(cluster, gone)
    suspect.member = Member(address=suspect.address, priority=1, status=SUSPECT)
    assert pick_again(cluster, only) is only


def test_without_anything_to_pick_a_retry_is_told_why() -> None:
    cluster = cluster_of(1, 1)
    only, reserve = cluster.endpoints
    fail(cluster, only, reserve)
    refusal = cluster.pick(PickContext(head=None, tried=(only,)), 1.0)  # type: ignore[arg-type]
    assert isinstance(refusal, Refusal)
