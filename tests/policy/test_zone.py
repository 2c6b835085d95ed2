"""Zones: what stays at home and what spills, by Envoy's proportional rule (D10)."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.balancer import PickContext
from sidecar.policy.builtin import BALANCERS
from sidecar.policy.cluster import Cluster
from sidecar.policy.endpoint import EJECTED, READY, TRANSIENT_FAILURE, Endpoint
from sidecar.policy.settings import BalancingSettings, ZoneSettings
from sidecar.policy.snapshot import Member, Snapshot
from sidecar.policy.zone import share_zones

AWARE = BalancingSettings(zone_aware=ZoneSettings(), panic_threshold=0.0)


def cluster_of(
    zones: str, settings: BalancingSettings = AWARE, balancer: str = "round_robin", own: str = "a"
) -> Cluster:
    """An endpoint for each letter, which is its zone."""
    cluster = Cluster("orders", BALANCERS[balancer](random.Random(1), settings), settings, own)
    members = tuple(Member(address=f"10.0.0.{n}:80", zone=zone.strip()) for n, zone in enumerate(zones))
    cluster.apply(Snapshot(service="orders", members=members, source="consul"), 0.0)
    for endpoint in cluster.endpoints:
        cluster.set_connectivity(endpoint, READY)
    return cluster


def shares(cluster: Cluster, count: int = 10_000) -> dict[str, float]:
    found: Counter[str] = Counter()
    for _ in range(count):
        endpoint = cluster.pick(None, 100.0)
        assert isinstance(endpoint, Endpoint)
        found[endpoint.member.zone] += 1
    return {zone: picks / count for zone, picks in found.items()}


@pytest.mark.parametrize(
    ("capacity", "zones", "expected"),
    [
        ({"a": 3, "b": 3, "c": 3}, 3, {"a": 1.0}),
        ({"a": 9, "b": 1}, 2, {"a": 1.0}),
        ({"a": 2, "b": 3, "c": 3}, 3, {"a": 0.75, "b": 0.125, "c": 0.125}),
        ({"a": 1, "b": 4, "c": 1}, 3, {"a": 0.5, "b": 0.5}),
        ({"b": 2, "c": 4}, 3, {"c": 1.0}),
        ({"b": 3, "c": 3}, 3, {"b": 0.5, "c": 0.5}),
    ],
)
def test_a_zone_keeps_what_it_can_carry_and_the_rest_goes_where_there_is_room(
    capacity: dict[str, float], zones: int, expected: dict[str, float]
) -> None:
    assert share_zones("a", capacity, zones) == pytest.approx(expected)


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 100), min_size=1))
def test_everything_is_carried_and_with_every_zones_callers_nobody_gets_more_than_its_part(
    capacity: dict[str, float],
) -> None:
    zones = sorted({"a", *capacity})
    carried: Counter[str] = Counter()
    for own in zones:
        shares = share_zones(own, capacity, len(zones))
        assert sum(shares.values()) == pytest.approx(1.0)
        carried.update(shares)
    fair = sum(capacity.values()) / len(zones)
    for zone, load in carried.items():
        assert load * fair == pytest.approx(capacity[zone])


def test_nothing_leaves_a_zone_that_can_carry_its_part() -> None:
    assert shares(cluster_of("aaabbbccc")) == {"a": 1.0}


def test_without_the_switch_zones_are_not_looked_at() -> None:
    assert shares(cluster_of("aaabbbccc", BalancingSettings()))["b"] == pytest.approx(1 / 3, abs=0.01)


def test_a_zone_that_lost_one_of_three_keeps_what_the_others_carry() -> None:
    cluster = cluster_of("aaabbbccc")
    cluster.set_connectivity(cluster.endpoints[0], TRANSIENT_FAILURE, "connection refused")
    assert shares(cluster) == pytest.approx({"a": 0.75, "b": 0.125, "c": 0.125}, abs=0.01)


@pytest.mark.parametrize("balancer", ["random", "least_request", "peak_ewma"])
def test_every_balancer_by_weight_keeps_to_it(balancer: str) -> None:
    cluster = cluster_of("aaabbbccc", balancer=balancer)
    cluster.set_state(cluster.endpoints[0], EJECTED, "5 failures in a row", 1.0)
    assert shares(cluster)["a"] == pytest.approx(0.75, abs=0.02)


def test_with_few_instances_or_an_unknown_zone_all_are_used() -> None:
    assert set(shares(cluster_of("aabbc"))) == {"a", "b", "c"}
    assert set(shares(cluster_of("aabbcc", own=""))) == {"a", "b", "c"}
    few = BalancingSettings(zone_aware=ZoneSettings(min_endpoints=2))
    assert set(shares(cluster_of("ab", few))) == {"a"}


def test_in_panic_zones_are_not_looked_at() -> None:
    cluster = cluster_of("aaabbbccc", BalancingSettings(zone_aware=ZoneSettings(), panic_threshold=1.0))
    cluster.set_state(cluster.endpoints[8], EJECTED, "5 failures in a row", 1.0)
    assert set(shares(cluster)) == {"a", "b", "c"}


def test_an_endpoint_is_foreign_only_in_another_zone_that_is_known() -> None:
    cluster = cluster_of("ab ", BalancingSettings())
    assert [endpoint.foreign for endpoint in cluster.endpoints] == [False, True, False]
    cluster.reconfigure(cluster.balancer, BalancingSettings(), "b")
    assert [endpoint.foreign for endpoint in cluster.endpoints] == [True, False, False]
    cluster.reconfigure(cluster.balancer, BalancingSettings(), "")
    assert not any(endpoint.foreign for endpoint in cluster.endpoints)


def test_switching_it_off_gives_every_member_its_weight_back() -> None:
    cluster = cluster_of("aaabbbccc")
    cluster.set_connectivity(cluster.endpoints[0], TRANSIENT_FAILURE, "connection refused")
    cluster.reconfigure(cluster.balancer, BalancingSettings(), "a")
    assert {endpoint.worth for endpoint in cluster.endpoints} == {1.0}
    assert len(cluster.pickable) == 8


def test_a_retry_leaves_the_zone_rather_than_go_where_it_was() -> None:
    cluster = cluster_of("abc", settings=BalancingSettings(zone_aware=ZoneSettings(min_endpoints=1)))
    (home,) = (endpoint for endpoint in cluster.endpoints if endpoint.member.zone == "a")
    assert cluster.pickable == [home]
    context = PickContext(head=None, tried=(home,))  # type: ignore[arg-type]
    assert Counter(cluster.pick(context, 1.0) for _ in range(6)) == dict.fromkeys(cluster.endpoints[1:], 3)


def test_a_retry_on_another_level_stays_in_the_zone_where_it_can() -> None:
    cluster = cluster_of("a", settings=BalancingSettings(zone_aware=ZoneSettings(min_endpoints=1)))
    zones = [("a", 0), ("b", 1), ("a", 1), ("c", 1)]
    members = tuple(Member(address=f"10.0.0.{n}:80", zone=z, priority=p) for n, (z, p) in enumerate(zones))
    cluster.apply(Snapshot(service="orders", members=members, source="consul"), 0.0)
    for endpoint in cluster.endpoints:
        cluster.set_connectivity(endpoint, READY)
    first, far, near, farther = cluster.endpoints
    context = PickContext(head=None, tried=(first,))  # type: ignore[arg-type]
    assert {cluster.pick(context, 1.0) for _ in range(5)} == {near}
    context = PickContext(head=None, tried=(first, near))  # type: ignore[arg-type]
    assert {cluster.pick(context, 1.0) for _ in range(4)} == {far, farther}
