"""The simulation of balancers: that it is a fair judge, and what it says of the default."""

from __future__ import annotations

import statistics

import pytest

from benchmarks.balance import POLICIES, SITUATIONS, Facts, compare, judge, table
from benchmarks.simulation import Plan, Server, Simulation
from sidecar.policy.rotation import RoundRobin

pytestmark = pytest.mark.once


def constant(seconds: float) -> Server:
    return Server("10.0.0.1:80", lambda dice, now: seconds, workers=1)


def test_a_queue_before_one_worker_behaves_as_the_formula_says() -> None:
    # M/D/1 at half load: the mean wait is rho / (2 (1 - rho)) services, Pollaczek and Khinchine.
    plan = Plan("one server", rate=50, seconds=400, fleets=[(0, [constant(0.010)])])
    latencies = Simulation(plan, RoundRobin, 1).run().latencies
    assert statistics.mean(latencies) == pytest.approx(0.010 + 0.005, rel=0.05)
    assert len(latencies) == pytest.approx(20_000, rel=0.05)


def test_the_same_seed_is_the_same_day_to_the_last_digit() -> None:
    plan = SITUATIONS["churn"]()
    plan = Plan(plan.name, plan.rate, 3, plan.fleets, plan.proxies)
    once, again = (Simulation(plan, POLICIES["peak_ewma"], 4).run() for _ in range(2))
    assert (once.starts, once.latencies, once.addresses) == (again.starts, again.latencies, again.addresses)


def test_every_rpc_that_was_started_ends_and_no_load_is_left() -> None:
    plan = SITUATIONS["churn"]()
    plan = Plan(plan.name, plan.rate, 8, plan.fleets, plan.proxies)
    simulation = Simulation(plan, POLICIES["least_request"], 4)
    assert len(simulation.run().starts) == pytest.approx(8 * plan.rate, rel=0.05)
    assert all(endpoint.in_flight == 0 for cluster in simulation.clusters for endpoint in cluster.endpoints)


@pytest.mark.parametrize(
    ("policy", "expected", "within"),
    [("round_robin", 95.5, 0.2), ("two-choice least request", 99.5, 0.15), ("peak_ewma", 99.93, 0.04)],
)
def test_the_result_of_2016_is_reproduced(policy: str, expected: float, within: float) -> None:
    plan = SITUATIONS["slow"]()
    assert judge(plan, Simulation(plan, POLICIES[policy], 1).run()).in_time == pytest.approx(expected, abs=within)


def test_with_twenty_sidecars_peak_ewma_beats_the_defaults_of_others() -> None:
    policies = ["peak_ewma", "two-choice least request", "two-choice peak EWMA"]
    plan = SITUATIONS["many"]()
    plan = Plan(plan.name, plan.rate, 15, plan.fleets, plan.proxies, judged_from=5)
    p99 = {
        name: statistics.median(facts.p99 for facts in runs) for name, runs in compare(plan, policies, seeds=3).items()
    }
    assert p99["peak_ewma"] <= 0.35 * p99["two-choice least request"]
    assert p99["peak_ewma"] <= 0.85 * p99["two-choice peak EWMA"]


def test_a_table_has_a_row_per_policy_with_median_and_spread() -> None:
    def facts(p99: float) -> Facts:
        return Facts(p50=1, p99=p99, p999=9, in_time=100, failed=0)

    text = table(Plan("quiet", 1, 1, []), {"one": [facts(2), facts(3), facts(5)]})
    assert "### Quiet" in text
    assert "| one | 1 | 3 (2-5) | 9 | 100 | 0 |" in text
