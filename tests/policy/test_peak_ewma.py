"""Peak EWMA on vectors: what a latency, a failure, a cancellation and time do to the price of an endpoint."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.policy.cluster import Cluster
from sidecar.policy.endpoint import READY, Endpoint
from sidecar.policy.peak_ewma import DECAY, MAX_PUSH_BACK, SEED, WORST, PeakEwma
from sidecar.policy.snapshot import Member, Snapshot
from sidecar.rpc.outcome import CANCELLED, FAILURE, REFUSED, RESET, SUCCESS, TIMEOUT


class Stage:
    """A cluster of connected endpoints under one balancer."""

    def __init__(self, *weights: int, seed: int = 1) -> None:
        self.balancer = PeakEwma(random.Random(seed))
        self.cluster = Cluster("orders", self.balancer)
        self.join(weights, 0.0)

    def join(self, weights: tuple[int, ...], now: float) -> None:
        members = tuple(Member(address=f"10.0.0.{n}:80", weight=weight) for n, weight in enumerate(weights))
        for endpoint in self.cluster.apply(Snapshot(service="orders", members=members, source="static"), now).added:
            self.cluster.set_connectivity(endpoint, READY)
        self.endpoints = self.cluster.endpoints

    def done(self, place: int, latency: float, now: float, outcome: int = SUCCESS) -> None:
        self.balancer.done(self.endpoints[place], outcome, latency, now)

    def price(self, place: int, now: float) -> float:
        """In seconds, as it is worth at `now`."""
        return self.endpoints[place].price / math.exp((now - self.balancer._began_at) / DECAY)

    def avoided(self, place: int, now: float) -> str:
        return self.balancer.why_avoided(self.endpoints[place], self.cluster, now)

    def picks(self, count: int, now: float) -> Counter[int]:
        found = Counter[int]()
        for _ in range(count):
            endpoint = self.cluster.pick(None, now)
            assert isinstance(endpoint, Endpoint)
            found[self.endpoints.index(endpoint)] += 1
        return found


# === latency ===


def test_the_first_latency_replaces_the_seed() -> None:
    stage = Stage(1)
    assert stage.price(0, 0.0) == pytest.approx(SEED)
    stage.done(0, 0.002, 1.0)
    assert stage.price(0, 1.0) == pytest.approx(0.002)


def test_a_higher_latency_replaces_the_estimate_at_once() -> None:
    stage = Stage(1)
    stage.done(0, 0.010, 1.0)
    stage.done(0, 2.0, 1.5)
    assert stage.price(0, 1.5) == pytest.approx(2.0)


@pytest.mark.parametrize("wait", [0.1, 1.0, 10.0, 60.0])
def test_a_lower_latency_pulls_the_estimate_down_by_the_time_that_passed(wait: float) -> None:
    stage = Stage(1)
    stage.done(0, 0.100, 1.0)
    stage.done(0, 0.010, 1.0 + wait)
    kept = math.exp(-wait / DECAY)
    assert stage.price(0, 1.0 + wait) == pytest.approx(0.100 * kept + 0.010 * (1 - kept))


def test_an_estimate_that_is_not_renewed_decays_so_that_the_endpoint_is_tried_again() -> None:
    stage = Stage(1, 1)
    stage.done(0, 1.0, 0.0)
    stage.done(1, 0.1, 0.0)
    assert stage.picks(20, 0.0) == {1: 20}
    for tenth in range(300):
        stage.done(1, 0.1, tenth / 10)
    assert stage.price(0, 30.0) == pytest.approx(math.exp(-3))
    assert stage.picks(1, 30.0) == {0: 1}


@given(st.lists(st.tuples(st.floats(0.0001, 50), st.floats(0.0, 20)), min_size=1, max_size=40))
@settings(max_examples=100)
def test_the_growing_scale_gives_what_the_plain_formula_gives(steps: list[tuple[float, float]]) -> None:
    stage = Stage(1)
    now, at, estimate = 0.0, 0.0, 0.0
    for count, (latency, wait) in enumerate(steps):
        now += wait
        stage.done(0, latency, now)
        kept = math.exp((at - now) / DECAY)
        estimate = max(latency, estimate * kept + latency * (1 - kept)) if count else latency
        at = now
        assert stage.price(0, now) == pytest.approx(estimate)


def test_the_scale_starts_over_without_changing_a_price() -> None:
    stage = Stage(1, 1)
    stage.done(0, 0.050, 10.0)
    for hours in range(1, 100):
        now = hours * 3600.0
        stage.cluster.pick(None, now)
        stage.done(0, 0.050, now)
        stage.done(1, 0.100, now)
        assert (stage.price(0, now), stage.price(1, now)) == (pytest.approx(0.050), pytest.approx(0.100))
    assert stage.endpoints[0].price < 1e200


def test_an_attempt_that_ends_a_week_after_the_last_pick_overflows_nothing() -> None:
    stage = Stage(1, 1)
    stage.cluster.pick(None, 0.0)
    stage.done(0, 600_000.0, 600_000.0)
    stage.done(0, 0.010, 600_001.0, FAILURE)
    assert all(math.isfinite(endpoint.price) for endpoint in stage.endpoints)
    assert stage.picks(10, 600_002.0) == {1: 10}


# === load ===


def test_an_endpoint_twice_as_fast_takes_twice_as_many_at_a_time() -> None:
    stage = Stage(1, 1)
    stage.done(0, 0.010, 0.0)
    stage.done(1, 0.020, 0.0)
    for _ in range(300):
        endpoint = stage.cluster.pick(None, 0.0)
        assert isinstance(endpoint, Endpoint)
        endpoint.in_flight += 1
    assert [endpoint.in_flight for endpoint in stage.endpoints] == pytest.approx([200, 100], abs=2)


@pytest.mark.parametrize("weights", [(1, 1, 1), (10, 1), (1, 2, 5)])
def test_idle_equals_share_by_their_weights(weights: tuple[int, ...]) -> None:
    stage = Stage(*weights)
    shares = stage.picks(8000, 0.0)
    for place, weight in enumerate(weights):
        assert shares[place] == pytest.approx(8000 * weight / sum(weights), rel=0.02, abs=2)


def test_among_many_endpoints_a_slow_one_is_all_but_avoided() -> None:
    stage = Stage(*[1] * 60)
    for place in range(60):
        stage.done(place, 1.0 if place == 7 else 0.010, 0.0)
    shares = sum((stage.picks(20, 0.01 * turn) for turn in range(6000)), Counter[int]())  # for a minute
    assert shares[7] == 0 and len(shares) == 59


# === failures ===


@pytest.mark.parametrize("outcome", [FAILURE, TIMEOUT, RESET, REFUSED])
def test_each_failure_doubles_the_price_however_fast_it_came(outcome: int) -> None:
    stage = Stage(1)
    stage.done(0, 0.020, 1.0)
    for count in range(1, 6):
        stage.done(0, 0.0001, 1.0, outcome)
        assert stage.price(0, 1.0) == pytest.approx(0.020 * 2**count)


def test_a_failure_that_took_longer_than_the_estimate_counts_as_a_latency_too() -> None:
    stage = Stage(1)
    stage.done(0, 0.020, 1.0)
    stage.done(0, 3.0, 1.0, TIMEOUT)
    assert stage.price(0, 1.0) == pytest.approx(2 * 3.0)


def test_successes_take_back_what_failures_did() -> None:
    stage = Stage(1)
    stage.done(0, 0.020, 1.0)
    for _ in range(4):
        stage.done(0, 0.001, 1.0, FAILURE)
    for _ in range(4):
        stage.done(0, 0.020, 1.0)
    assert stage.price(0, 1.0) == pytest.approx(0.020)


def test_an_endpoint_that_fails_fast_does_not_look_fast() -> None:
    stage = Stage(*[1] * 10)
    for place in range(10):
        stage.done(place, 0.010, 0.0)
    failed = 0
    for turn in range(5000):
        now = turn / 1000
        endpoint = stage.cluster.pick(None, now)
        assert isinstance(endpoint, Endpoint)
        bad = endpoint is stage.endpoints[3]
        failed += bad
        stage.balancer.done(endpoint, FAILURE if bad else SUCCESS, 0.001 if bad else 0.010, now)
    assert failed <= 3


def test_a_penalty_has_an_end() -> None:
    stage = Stage(1)
    stage.done(0, 0.010, 0.0)
    for _ in range(200):
        stage.done(0, 0.001, 0.0, FAILURE)
    assert stage.endpoints[0].penalty == WORST
    stage.done(0, 0.010, 20 * DECAY)
    assert stage.endpoints[0].penalty == 1.0


def test_a_cancelled_rpc_counts_for_double_the_estimate_at_most() -> None:
    stage = Stage(1)
    stage.done(0, 0.020, 1.0)
    stage.done(0, 0.001, 1.0, CANCELLED)
    assert stage.price(0, 1.0) == pytest.approx(0.020)
    stage.done(0, 0.030, 1.0, CANCELLED)
    assert stage.price(0, 1.0) == pytest.approx(0.030)
    stage.done(0, 3600.0, 1.0, CANCELLED)
    assert stage.price(0, 1.0) == pytest.approx(0.060)


# === pushed back ===


def test_an_overloaded_endpoint_is_dearer_although_it_answered_fast() -> None:
    stage = Stage(1)
    stage.done(0, 0.020, 1.0)
    stage.done(0, 0.001, 1.0)
    before = stage.price(0, 1.0)
    stage.balancer.push_back(stage.endpoints[0], 0.0, 1.0)
    assert stage.price(0, 1.0) == pytest.approx(4 * before)


@pytest.mark.parametrize("asked", [5.0, 60.0])
def test_an_endpoint_that_named_a_time_is_left_alone_for_about_that_time(asked: float) -> None:
    stage = Stage(1, 1)
    for place in range(2):
        stage.done(place, 0.010, 0.0)
    stage.balancer.push_back(stage.endpoints[0], asked, 0.0)
    back = None
    for tenth in range(1, int(asked * 20)):
        now = tenth / 10
        stage.done(1, 0.010, now)
        if stage.picks(1, now)[0]:
            back = now
            break
    assert back == pytest.approx(asked, rel=0.3)


def test_no_pushback_lasts_for_ever() -> None:
    stage = Stage(1)
    before = stage.price(0, 0.0)
    stage.balancer.push_back(stage.endpoints[0], 1e9, 0.0)
    assert stage.price(0, 0.0) == pytest.approx(before * math.exp(MAX_PUSH_BACK / DECAY))


# === avoided ===


def test_a_failing_endpoint_is_avoided_until_its_peers_are_as_dear() -> None:
    stage = Stage(1, 1, 1)
    for place in range(3):
        stage.done(place, 0.010, 0.0)
    assert [stage.avoided(place, 0.0) for place in range(3)] == ["", "", ""]
    stage.done(0, 0.010, 0.0, FAILURE)
    stage.done(0, 0.010, 0.0, FAILURE)
    assert stage.avoided(0, 0.0).startswith(
        "after a failure or pushback an RPC there counts as 40ms, at its peers as 1"
    )
    assert [stage.avoided(place, 0.0) for place in (1, 2)] == ["", ""]
    stage.endpoints[1].in_flight = stage.endpoints[2].in_flight = 4
    assert stage.avoided(0, 0.0) == ""
    assert stage.picks(1, 0.0) == {0: 1}


def test_successes_that_make_up_for_the_failures_end_it() -> None:
    stage = Stage(1, 1)
    for place in range(2):
        stage.done(place, 0.010, 0.0)
    for _ in range(3):
        stage.done(0, 0.010, 0.0, FAILURE)
    seen = []
    for _ in range(3):
        stage.done(0, 0.010, 0.0)
        seen.append(bool(stage.avoided(0, 0.0)))
    assert seen == [True, True, False]


def test_where_all_have_failed_nobody_is_avoided() -> None:
    stage = Stage(1, 1)
    for place, failures in enumerate((1, 6)):
        for _ in range(failures):
            stage.done(place, 0.010, 0.0, FAILURE)
    assert [stage.avoided(place, 0.0) for place in range(2)] == ["", ""]


def test_an_endpoint_that_is_only_slow_is_not_called_avoided() -> None:
    stage = Stage(1, 1)
    stage.done(0, 0.001, 0.0)
    stage.done(1, 9.0, 0.0)
    assert stage.avoided(1, 0.0) == ""


@pytest.mark.parametrize("size", [2, 5, 16])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_what_is_avoided_is_never_picked_before_a_peer_that_did_not_fail(size: int, seed: int) -> None:
    dice = random.Random(seed)
    stage = Stage(*[dice.randrange(1, 4) for _ in range(size)], seed=seed)
    now = 0.0
    for _ in range(10 * size):
        now += dice.random() / 10
        outcome = dice.choice((SUCCESS, SUCCESS, SUCCESS, FAILURE, TIMEOUT))
        place = dice.randrange(size)
        stage.done(place, dice.random() / 10, now, outcome)
        stage.endpoints[dice.randrange(size)].in_flight = dice.randrange(4)
        avoided = {place for place in range(size) if stage.avoided(place, now)}
        ((picked, _),) = stage.picks(1, now).items()
        assert picked not in avoided


def test_where_only_some_are_looked_at_every_sound_peer_must_be_cheaper() -> None:
    stage = Stage(*[1] * 40)
    for place in range(40):
        stage.done(place, 0.2 if place == 1 else 0.010, 0.0)
    for failures in range(1, 7):
        stage.done(0, 0.010, 0.0, FAILURE)
        assert bool(stage.avoided(0, 0.0)) is (0.010 * 2**failures > 0.21)
    assert stage.picks(1000, 0.0)[0] == 0


# === newcomers ===


@pytest.mark.parametrize("count", [3, 16, 40])
def test_lone_rpcs_that_are_quicker_than_the_seed_go_to_every_equal_from_the_start(count: int) -> None:
    stage = Stage(*[1] * count)
    dice = random.Random(1)
    now = 1.0
    found = Counter[int]()
    for _ in range(100 * count):
        ((place, _),) = stage.picks(1, now).items()
        stage.done(place, dice.uniform(0.00019, 0.00021), now + 0.0002)
        found[place] += 1
        now += 0.01
    assert len(found) == count
    assert max(found.values()) < 300


def test_what_is_known_of_one_is_what_is_expected_of_those_of_which_nothing_is() -> None:
    stage = Stage(1, 1, 1)
    stage.done(0, 0.001, 0.0, CANCELLED)
    stage.picks(1, 0.0)
    assert stage.price(1, 0.0) == pytest.approx(SEED)  # that it took so long says little
    stage.done(0, 0.010, 0.0)
    stage.done(0, 0.010, 0.0, FAILURE)
    assert 0 not in stage.picks(1, 0.0)
    assert stage.price(0, 0.0) == pytest.approx(0.020)
    assert stage.price(1, 0.0) == stage.price(2, 0.0) == pytest.approx(0.010)  # its failure is its own affair
    stage.done(1, 0.030, 0.0)
    stage.picks(1, 0.0)
    assert (stage.price(1, 0.0), stage.price(2, 0.0)) == (pytest.approx(0.030), pytest.approx(0.020))


def test_a_newcomer_costs_as_much_as_the_mean_of_those_known() -> None:
    stage = Stage(1, 1)
    stage.done(0, 0.010, 5.0)
    stage.done(1, 0.030, 5.0)
    stage.join((1, 1, 1), 5.0)
    assert stage.price(2, 5.0) == pytest.approx(0.020)
