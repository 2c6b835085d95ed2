"""What every built-in balancer keeps, and those that look at no latency: LB-01, LB-02, LB-04, LB-06, seeded dice."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.http2.interface import HeaderBlock
from sidecar.policy.aperture import SMALLEST, STAY
from sidecar.policy.balancer import Balancer, PickContext, untried
from sidecar.policy.builtin import BALANCERS
from sidecar.policy.cluster import Cluster
from sidecar.policy.endpoint import EJECTED, HEALTHY, READY, Endpoint
from sidecar.policy.least_request import LeastRequest
from sidecar.policy.rotation import PickFirst, Random, RoundRobin
from sidecar.policy.settings import BalancingSettings
from sidecar.policy.snapshot import Member, Snapshot
from sidecar.rpc.metadata import read_request

HEAD = read_request(HeaderBlock([(b":path", b"/pkg.Greeter/Hello")]))


def made(name: str, seed: int) -> Balancer:
    return BALANCERS[name](random.Random(seed), BalancingSettings())


def ready(balancer: Balancer, weights: Sequence[int]) -> Cluster:
    """A cluster whose endpoints all are connected."""
    cluster = Cluster("orders", balancer)
    members = tuple(Member(address=f"10.0.0.{n}:80", weight=weight) for n, weight in enumerate(weights))
    cluster.apply(Snapshot(service="orders", members=members, source="static"), 0.0)
    for endpoint in cluster.endpoints:
        cluster.set_connectivity(endpoint, READY)
    return cluster


def picked(cluster: Cluster, context: PickContext | None = None, now: float = 0.0) -> Endpoint:
    endpoint = cluster.pick(context, now)
    assert isinstance(endpoint, Endpoint)
    return endpoint


def picks(cluster: Cluster, count: int) -> list[int]:
    """The places of the endpoints picked, none of them ever busy."""
    return [cluster.endpoints.index(picked(cluster)) for _ in range(count)]


@pytest.mark.parametrize("name", BALANCERS)
def test_a_seed_decides_every_pick(name: str) -> None:
    once, again = (picks(ready(made(name, 7), [1] * 40), 100) for _ in range(2))
    assert once == again


@pytest.mark.parametrize("name", BALANCERS)
@given(weights=st.lists(st.integers(1, 100), min_size=1, max_size=20), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)  # maglev's table is large for a test of small clusters
def test_a_pick_is_always_one_of_the_pickable(name: str, weights: list[int], seed: int) -> None:
    cluster = ready(made(name, seed), weights)
    assert all(picked(cluster) in cluster.pickable for _ in range(30))


@pytest.mark.parametrize("name", BALANCERS)
def test_a_retry_avoids_endpoints_that_were_tried_while_another_is_pickable(name: str) -> None:
    cluster = ready(made(name, 3), [5, 1, 1])
    first, second, third = cluster.endpoints
    for _ in range(20):
        assert picked(cluster, PickContext(HEAD, (first, second))) is third
        assert picked(cluster, PickContext(HEAD, (first,))) is not first


@pytest.mark.parametrize("name", BALANCERS)
def test_a_retry_goes_back_to_a_tried_endpoint_rather_than_nowhere(name: str) -> None:
    cluster = ready(made(name, 3), [1])
    assert picked(cluster, PickContext(HEAD, (cluster.endpoints[0],))) is cluster.endpoints[0]


def test_without_earlier_attempts_the_candidates_are_the_very_list() -> None:
    cluster = ready(RoundRobin(random.Random(1)), [1, 1])
    assert untried(cluster.pickable, None) is cluster.pickable
    assert untried(cluster.pickable, PickContext(HEAD, ())) is cluster.pickable


# === round robin ===


def test_round_robin_visits_every_endpoint_once_a_round() -> None:
    sequence = picks(ready(RoundRobin(random.Random(5)), [1] * 7), 70)
    for start in range(0, 70, 7):
        assert sorted(sequence[start : start + 7]) == list(range(7))


def test_round_robin_starts_anywhere() -> None:
    starts = Counter(picks(ready(RoundRobin(random.Random(seed)), [1] * 5), 1)[0] for seed in range(500))
    assert set(starts) == set(range(5))
    assert min(starts.values()) > 50  # of 100 expected


@pytest.mark.parametrize("weights", [[1, 2, 3], [100, 1], [5, 5, 5, 6], [1, 10, 100, 1000], [7] * 9 + [8]])
def test_round_robin_gives_each_weight_its_share_within_one_per_cent(weights: list[int]) -> None:
    count = 100_000
    shares = Counter(picks(ready(RoundRobin(random.Random(11)), weights), count))
    for place, weight in enumerate(weights):
        assert shares[place] / count == pytest.approx(weight / sum(weights), abs=0.01)
        # and no small weight is off by more than one per cent of itself, plus what one round may miss
        assert shares[place] == pytest.approx(count * weight / sum(weights), rel=0.01, abs=2)


def test_round_robin_lets_no_endpoint_wait_longer_than_its_weight_explains() -> None:
    weights = [1, 10, 50]
    sequence = picks(ready(RoundRobin(random.Random(2)), weights), 20_000)
    for place, weight in enumerate(weights):
        turns = [turn for turn, pick in enumerate(sequence) if pick == place]
        longest = max(later - earlier for earlier, later in itertools.pairwise(turns))
        assert longest <= 2 * sum(weights) / weight + len(weights)


def test_round_robin_spreads_a_heavy_weight_instead_of_bunching_it() -> None:
    sequence = picks(ready(RoundRobin(random.Random(2)), [2, 1]), 3000)
    assert not any(sequence[turn : turn + 4] == [0] * 4 for turn in range(2996))


def test_round_robin_takes_over_changed_weights() -> None:
    balancer = RoundRobin(random.Random(1))
    cluster = ready(balancer, [1, 1])
    members = (Member(address="10.0.0.0:80", weight=9), Member(address="10.0.0.1:80", weight=1))
    cluster.apply(Snapshot(service="orders", members=members, source="static"), 1.0)
    assert Counter(picks(cluster, 10_000))[0] == pytest.approx(9000, abs=100)


# === least request ===


def test_least_request_picks_the_endpoint_with_the_fewest_in_flight() -> None:
    cluster = ready(LeastRequest(random.Random(1)), [1, 1, 1, 1])
    for endpoint, load in zip(cluster.endpoints, (3, 2, 1, 2), strict=True):
        endpoint.in_flight = load
    assert set(picks(cluster, 20)) == {2}


def test_least_request_goes_round_among_equals() -> None:
    assert Counter(picks(ready(LeastRequest(random.Random(1)), [1] * 5), 100)) == {place: 20 for place in range(5)}


def test_least_request_fills_endpoints_in_proportion_to_their_weights() -> None:
    cluster = ready(LeastRequest(random.Random(1)), [1, 2, 5])
    for _ in range(800):
        picked(cluster).in_flight += 1
    assert [endpoint.in_flight for endpoint in cluster.endpoints] == pytest.approx([100, 200, 500], rel=0.01)


def test_least_request_never_lets_loads_differ_by_more_than_one_among_few_equals() -> None:
    dice = random.Random(4)
    cluster = ready(LeastRequest(random.Random(1)), [1] * 6)
    for _ in range(500):
        picked(cluster).in_flight += 1
    loads = [endpoint.in_flight for endpoint in cluster.endpoints]
    assert max(loads) - min(loads) <= 1
    for _ in range(5000):
        busy = dice.choice([endpoint for endpoint in cluster.endpoints if endpoint.in_flight])
        busy.in_flight -= 1
        picked(cluster).in_flight += 1
        assert picked(cluster).in_flight == min(endpoint.in_flight for endpoint in cluster.endpoints)


def test_least_request_starves_a_frozen_endpoint_among_many() -> None:
    # Where four are drawn, a busy one is picked only when all four looks fall on it.
    cluster = ready(LeastRequest(random.Random(1)), [1] * 50)
    cluster.endpoints[0].in_flight = cluster.in_flight = 1000
    assert Counter(picks(cluster, 20_000))[0] <= 1


def test_least_request_reaches_everyone_among_many_equals() -> None:
    cluster = ready(LeastRequest(random.Random(9)), [1] * 100)
    cluster.in_flight = 1000
    shares = Counter(picks(cluster, 10_000))
    assert len(shares) == 100
    assert min(shares.values()) > 60 and max(shares.values()) < 150


@pytest.mark.parametrize("name", ["least_request", "peak_ewma"])
def test_lone_rpcs_among_many_equals_reach_everyone_in_time_and_few_at_a_time(name: str) -> None:
    cluster = ready(made(name, 1), [1] * 100)
    shares: Counter[str] = Counter()
    for moment in range(2000):
        now = moment * STAY
        found = Counter(picked(cluster, None, now).address for _ in range(16))
        assert len(found) <= SMALLEST and max(found.values()) <= 4
        shares += found
    assert len(shares) == 100
    assert min(shares.values()) > 240 and max(shares.values()) < 400  # 320 each


@pytest.mark.parametrize("name", ["least_request", "peak_ewma"])
def test_rpcs_at_the_same_time_are_spread_over_as_many_endpoints_as_ever(name: str) -> None:
    cluster = ready(made(name, 1), [1] * 100)
    for _ in range(100):
        cluster.begin_attempt(picked(cluster))
    assert cluster.in_flight == 100
    assert Counter(endpoint.in_flight for endpoint in cluster.endpoints)[1] > 60  # wide open all the time: 66 to 72
    assert max(endpoint.in_flight for endpoint in cluster.endpoints) == 2


@pytest.mark.parametrize("busy", [0, 3])
@pytest.mark.parametrize("weights", [[10, 1], [1, 2, 5], [100, 1, 1, 7], [3] * 5 + [1] * 5])
def test_least_request_gives_each_weight_its_share_whether_idle_or_busy(weights: list[int], busy: int) -> None:
    cluster = ready(LeastRequest(random.Random(1)), weights)
    running: list[Endpoint] = []
    shares: Counter[str] = Counter()
    for _ in range(20_000):
        endpoint = picked(cluster)
        endpoint.in_flight += 1
        shares[endpoint.address] += 1
        running.append(endpoint)
        if len(running) > busy:
            running.pop(0).in_flight -= 1
    for endpoint in cluster.endpoints:
        expected = 20_000 * endpoint.weight / sum(weights)
        # while busy, an idle light one may go before a heavy one that has RPCs in flight
        assert shares[endpoint.address] == pytest.approx(expected, rel=0.6 if busy else 0.01, abs=2)


def test_least_request_sends_no_flood_to_an_endpoint_that_was_left_alone() -> None:
    cluster = ready(LeastRequest(random.Random(1)), [1] * 5)
    cluster.endpoints[0].in_flight = 50
    picks(cluster, 1000)
    cluster.endpoints[0].in_flight = 0
    assert Counter(picks(cluster, 50))[0] in (10, 11)


# === slow start ===

BY_WEIGHT = ["round_robin", "random", "least_request", "peak_ewma"]


def shares_beside_a_newcomer(name: str, now: float, weight: int = 1) -> float:
    """How much of its full share an endpoint gets at `now` that joined four others at 100 s; nothing is ever busy."""
    cluster = ready(made(name, 1), [weight] * 4)
    members = tuple(Member(address=f"10.0.0.{n}:80", weight=weight) for n in range(5))
    (newcomer,) = cluster.apply(Snapshot(service="orders", members=members, source="static"), 100.0).added
    cluster.set_connectivity(newcomer, READY)
    found = [cluster.pick(None, now) for _ in range(5000)].count(newcomer)
    return found * 5 / 5000


@pytest.mark.parametrize("name", BY_WEIGHT)
def test_a_newcomer_begins_with_a_tenth_and_grows_to_its_full_share(name: str) -> None:
    assert shares_beside_a_newcomer(name, 100.0) == pytest.approx(0.12, abs=0.03)
    assert shares_beside_a_newcomer(name, 105.0) == pytest.approx(0.55, abs=0.08)
    assert shares_beside_a_newcomer(name, 110.0, weight=3) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("name", BY_WEIGHT)
def test_an_endpoint_that_comes_back_from_ejection_starts_slowly_too(name: str) -> None:
    cluster = ready(made(name, 1), [1] * 4)
    back = cluster.endpoints[2]
    cluster.set_state(back, EJECTED, "5 failures in a row", 50.0)
    cluster.set_state(back, HEALTHY, "", 60.0)
    assert [cluster.pick(None, 60.0) for _ in range(4000)].count(back) == pytest.approx(130, abs=50)
    assert [cluster.pick(None, 70.0) for _ in range(4000)].count(back) == pytest.approx(1000, abs=100)


@pytest.mark.parametrize("name", BY_WEIGHT)
def test_members_that_were_there_first_start_at_once(name: str) -> None:
    assert max(endpoint.warm_at for endpoint in ready(made(name, 1), [1] * 4).endpoints) == 0.0


def test_slow_start_can_be_switched_off() -> None:
    settings = BalancingSettings(slow_start=0.0)
    cluster = Cluster("orders", LeastRequest(random.Random(1)), settings)
    for now, names in ((0.0, "a"), (10.0, "ab")):
        members = tuple(Member(address=f"{name}:1") for name in names)
        cluster.apply(Snapshot(service="orders", members=members, source="static"), now)
    for endpoint in cluster.endpoints:
        cluster.set_connectivity(endpoint, READY)
    assert Counter(cluster.pick(None, 10.0).address for _ in range(100)) == {"a:1": 50, "b:1": 50}


# === random ===


@pytest.mark.parametrize("weights", [[1, 1, 1], [1, 2, 7]])
def test_random_draws_in_proportion_to_the_weights(weights: list[int]) -> None:
    shares = Counter(picks(ready(Random(random.Random(6)), weights), 20_000))
    for place, weight in enumerate(weights):
        assert shares[place] / 20_000 == pytest.approx(weight / sum(weights), abs=0.02)


def test_random_takes_over_changed_weights_and_draws_by_weight_among_the_untried() -> None:
    cluster = ready(Random(random.Random(6)), [1, 1, 1])
    members = tuple(Member(address=f"10.0.0.{n}:80", weight=weight) for n, weight in enumerate((5, 9, 1)))
    cluster.apply(Snapshot(service="orders", members=members, source="static"), 1.0)
    context = PickContext(HEAD, (cluster.endpoints[0],))
    shares = Counter(picked(cluster, context).address for _ in range(10_000))
    assert shares["10.0.0.1:80"] == pytest.approx(9000, abs=200)


# === pick first ===


def test_pick_first_stays_with_one_until_it_cannot_be_picked() -> None:
    cluster = ready(PickFirst(random.Random(1)), [1] * 5)
    first = picked(cluster)
    assert {picked(cluster) for _ in range(50)} == {first}
    cluster.set_saturated(first, True)
    second = picked(cluster)
    assert second is not first
    cluster.set_saturated(first, False)
    assert picked(cluster) is second


def test_pick_first_chooses_differently_in_each_sidecar_and_by_weight() -> None:
    firsts = Counter(picks(ready(PickFirst(random.Random(seed)), [1, 1, 8]), 1)[0] for seed in range(500))
    assert firsts[2] == pytest.approx(400, abs=40)
    assert set(firsts) == {0, 1, 2}


def test_a_balancer_of_ones_own_must_say_how_it_picks() -> None:
    cluster = ready(Balancer(), [1])
    with pytest.raises(NotImplementedError):
        cluster.pick(None, 0.0)
