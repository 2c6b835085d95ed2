"""Weights from reports: A58's formula and clocks, what stands in for a missing weight, and the shares (LB-03)."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from sidecar.policy.cluster import Cluster
from sidecar.policy.endpoint import CONNECTING, READY, TRANSIENT_FAILURE, Endpoint
from sidecar.policy.settings import LoadReportSettings
from sidecar.policy.snapshot import Member, Snapshot
from sidecar.policy.weighted_round_robin import FARTHEST, WeightedRoundRobin
from sidecar.rpc.load_report import LoadReport

START = 1000.0


class Stage:
    """Connected endpoints under weighted_round_robin."""

    def __init__(self, count: int, weights: tuple[int, ...] = (), **settings: object) -> None:
        self.balancer = WeightedRoundRobin(random.Random(1), LoadReportSettings(**settings))  # type: ignore[arg-type]
        self.cluster = Cluster("orders", self.balancer)
        weights = weights or (1,) * count
        members = tuple(Member(address=f"10.0.0.{n}:80", weight=weight) for n, weight in enumerate(weights))
        self.cluster.apply(Snapshot(service="orders", members=members, source="static"), START)
        for endpoint in self.endpoints:
            self.cluster.set_connectivity(endpoint, READY)

    @property
    def endpoints(self) -> list[Endpoint]:
        return self.cluster.endpoints

    def report(self, place: int, now: float, **values: object) -> None:
        self.balancer.take_report(self.endpoints[place], LoadReport(**values), now)  # type: ignore[arg-type]

    def tell(self, now: float, *weights: float) -> None:
        """Reports that come to these weights, at full utilization."""
        for place, weight in enumerate(weights):
            if weight:
                self.report(place, now, application=1.0, rps=weight)

    def weight(self, now: float, place: int = 0) -> float:
        return self.balancer.weight_of(self.endpoints[place], now)

    def shares(self, now: float, count: int = 100_000) -> list[float]:
        found: Counter[Endpoint] = Counter()
        for _ in range(count):
            endpoint = self.cluster.pick(None, now)
            assert isinstance(endpoint, Endpoint)
            found[endpoint] += 1
        return [found[endpoint] / count for endpoint in self.endpoints]


# === one weight ===


@pytest.mark.parametrize(
    ("values", "weight"),
    [
        ({"application": 0.5, "rps": 100.0}, 200.0),
        ({"application": 0.5, "cpu": 0.1, "rps": 100.0}, 200.0),
        ({"cpu": 0.25, "rps": 100.0}, 400.0),
        ({"application": -1.0, "cpu": 0.25, "rps": 100.0}, 400.0),
        ({"application": math.nan, "cpu": 0.25, "rps": 100.0}, 400.0),
        ({"application": 0.5, "rps": 100.0, "eps": 50.0}, 100.0),
        ({"application": 2.0, "rps": 100.0}, 50.0),
        ({"application": 0.5}, 0.0),
        ({"rps": 100.0}, 0.0),
        ({"application": 0.5, "rps": -1.0}, 0.0),
        ({"application": 0.5, "rps": math.inf}, 0.0),
        ({"application": 0.5, "rps": 100.0, "eps": math.inf}, 0.0),
        ({"application": 0.5, "rps": math.nan}, 0.0),
    ],
)
def test_a_weight_is_requests_over_utilization_and_errors(values: dict[str, float], weight: float) -> None:
    stage = Stage(2, blackout=0.0)
    stage.report(0, START, **values)
    assert stage.weight(START) == weight


def test_errors_weigh_as_much_as_the_penalty_says() -> None:
    stage = Stage(2, blackout=0.0, error_penalty=0.0)
    stage.report(0, START, application=0.5, rps=100.0, eps=50.0)
    assert stage.weight(START) == 200.0


def test_named_values_stand_in_for_the_applications_own_before_the_cpu_does() -> None:
    """gRFC A114: the highest of those that are above 0."""
    stage = Stage(2, blackout=0.0, utilization=("named_metrics.queue", "utilization.disk", "mem_utilization"))
    stage.report(0, START, rps=100.0, cpu=0.9, named={"queue": 0.25}, utilization={"disk": math.nan}, memory=0.2)
    assert stage.weight(START) == 400.0
    stage.report(0, START, rps=100.0, cpu=0.5, named={"queue": -1.0})
    assert stage.weight(START) == 200.0
    stage.report(0, START, rps=100.0, application=1.0, named={"queue": 0.25})
    assert stage.weight(START) == 100.0


def test_a_report_is_not_believed_before_the_blackout_is_over_nor_after_it_expired() -> None:
    stage = Stage(2, blackout=10.0, expiry=180.0)
    stage.tell(START, 100)
    assert stage.weight(START + 9.9) == 0.0
    stage.tell(START + 9.9, 120)
    assert stage.weight(START + 10.0) == 120.0
    assert stage.weight(START + 9.9 + 179.9) == 120.0
    assert stage.weight(START + 9.9 + 180.0) == 0.0
    stage.tell(START + 300, 150)
    assert stage.weight(START + 309.9) == 0.0  # the gap begins another blackout
    assert stage.weight(START + 310.0) == 150.0


def test_a_connection_that_is_lost_takes_its_reports_along() -> None:
    stage = Stage(2, blackout=0.0)
    stage.tell(START, 100, 100)
    stage.cluster.set_connectivity(stage.endpoints[0], CONNECTING)
    stage.cluster.set_connectivity(stage.endpoints[0], READY)
    assert (stage.weight(START), stage.weight(START, 1)) == (0.0, 100.0)


# === shares ===


def test_picks_follow_the_weights_within_one_per_cent() -> None:
    stage = Stage(3, blackout=0.0)
    stage.tell(START, 100, 200, 500)
    assert stage.shares(START + 2) == pytest.approx([0.125, 0.25, 0.625], abs=0.01)


def test_who_has_told_nothing_counts_as_the_mean() -> None:
    stage = Stage(3, blackout=0.0)
    stage.tell(START, 100, 300)
    assert stage.shares(START + 2) == pytest.approx([1 / 6, 3 / 6, 2 / 6], abs=0.01)


@pytest.mark.parametrize("told", [(), (100,)])
def test_with_fewer_than_two_that_told_anything_the_registrys_weights_hold(told: tuple[int, ...]) -> None:
    stage = Stage(3, weights=(1, 1, 2), blackout=0.0)
    stage.tell(START, *told)
    assert stage.shares(START + 2) == pytest.approx([0.25, 0.25, 0.5], abs=0.01)


def test_equal_weights_are_a_plain_round() -> None:
    stage = Stage(4, blackout=0.0)
    stage.tell(START, 70, 70, 70, 70)
    assert stage.shares(START + 2, 400) == [0.25] * 4


def test_a_weight_out_of_all_proportion_is_bounded() -> None:
    stage = Stage(3, blackout=0.0)
    stage.tell(START, 1e-6, 1, 1)
    mean = (1e-6 + 2) / 3
    least = mean / FARTHEST
    assert stage.shares(START + 2)[0] == pytest.approx(least / (least + 2), abs=0.005)


def test_weights_are_reckoned_anew_once_per_interval() -> None:
    stage = Stage(2, blackout=0.0, update_interval=5.0)
    stage.tell(START, 100, 100)
    stage.shares(START, 2)
    stage.tell(START + 1, 300, 100)
    assert stage.shares(START + 4.9, 1000) == [0.5, 0.5]
    assert stage.shares(START + 5.0, 1000) == pytest.approx([0.75, 0.25], abs=0.01)


def test_a_member_that_leaves_or_fails_leaves_the_others_their_weights() -> None:
    stage = Stage(3, blackout=0.0)
    stage.tell(START, 100, 200, 600)
    stage.shares(START + 2, 10)
    stage.cluster.set_connectivity(stage.endpoints[2], TRANSIENT_FAILURE, "connection refused")
    assert stage.shares(START + 2) == pytest.approx([1 / 3, 2 / 3, 0.0], abs=0.01)


def test_what_divides_the_load_between_levels_divides_it_here_too() -> None:
    balancer = WeightedRoundRobin(random.Random(1), LoadReportSettings(blackout=0.0))
    cluster = Cluster("orders", balancer)
    members = tuple(Member(address=f"10.0.{level}.{n}:80", priority=level) for level in range(2) for n in range(4))
    cluster.apply(Snapshot(service="orders", members=members, source="static"), START)
    for endpoint in cluster.endpoints:
        cluster.set_connectivity(endpoint, READY)
        balancer.take_report(endpoint, LoadReport(application=1.0, rps=50.0), START)
    for endpoint in cluster.endpoints[:2]:
        cluster.set_connectivity(endpoint, TRANSIENT_FAILURE, "connection refused")
    found = Counter(cluster.pick(None, START + 2).member.priority for _ in range(10_000))
    assert found[0] / 10_000 == pytest.approx(0.7, abs=0.02)
