"""The simulation of balancers: that it is a fair judge, and what it says of the default."""

from __future__ import annotations

import statistics
from xml.etree import ElementTree

import pytest

from benchmarks.balance import POLICIES, REACH, SITUATIONS, Facts, compare, judge, picture, reached, table, verdict
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
    plan = SITUATIONS["many"]()
    plan = Plan(plan.name, plan.rate, 15, plan.fleets, plan.proxies, judged_from=5)
    results = compare(plan, ["peak_ewma", *REACH], seeds=3)
    assert all(part <= REACH[rival] for rival, part in reached(results).items()), verdict(results)


def facts_of(p99: float) -> Facts:
    return Facts(p50=1, p99=p99, p999=9, in_time=100, failed=0)


def test_the_verdict_names_what_is_reached_and_what_is_missed() -> None:
    results = {
        "peak_ewma": [facts_of(3)],
        "two-choice least request": [facts_of(10)],
        "two-choice peak EWMA": [facts_of(3)],
    }
    assert verdict(results) == (
        "p99 of peak_ewma: 0.30 of two-choice least request's (at most 0.35: reached),"
        " 1.00 of two-choice peak EWMA's (at most 0.85: missed)\n"
    )


def test_a_picture_is_well_formed_and_has_every_policy_with_its_numbers() -> None:
    drawn = picture(Plan("quiet & <small>", 1, 1, []), {"one": [facts_of(2.5)], "two": [facts_of(5)]})
    texts = [element.text for element in ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")]
    assert {"Quiet & <small>", "one", "two", "p50 ms", "p99 ms", "p99.9 ms", "2.5", "5", "9"} <= set(texts)


def test_a_table_has_a_row_per_policy_with_median_and_spread() -> None:
    text = table(Plan("quiet", 1, 1, []), {"one": [facts_of(2), facts_of(3), facts_of(5)]})
    assert "### Quiet" in text
    assert "| one | 1 | 3 (2-5) | 9 | 100 | 0 |" in text
