"""The built-in balancers: LB-01, LB-02 and LB-04, with seeded dice."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.http2.interface import HeaderBlock
from sidecar.policy.balancer import BALANCERS, Balancer, LeastRequest, PickContext, RoundRobin, untried
from sidecar.policy.cluster import Cluster
from sidecar.policy.endpoint import READY, Endpoint
from sidecar.policy.snapshot import Member, Snapshot
from sidecar.rpc.metadata import read_request

HEAD = read_request(HeaderBlock([(b":path", b"/pkg.Greeter/Hello")]))


def ready(balancer: Balancer, weights: Sequence[int]) -> Cluster:
    """A cluster whose endpoints all are connected."""
    cluster = Cluster("orders", balancer)
    members = tuple(Member(address=f"10.0.0.{n}:80", weight=weight) for n, weight in enumerate(weights))
    cluster.apply(Snapshot(service="orders", members=members, source="static"), 0.0)
    for endpoint in cluster.endpoints:
        cluster.set_connectivity(endpoint, READY)
    return cluster


def picked(cluster: Cluster, context: PickContext | None = None) -> Endpoint:
    endpoint = cluster.pick(context, 0.0)
    assert isinstance(endpoint, Endpoint)
    return endpoint


def picks(cluster: Cluster, count: int) -> list[int]:
    """The places of the endpoints picked, none of them ever busy."""
    return [cluster.endpoints.index(picked(cluster)) for _ in range(count)]


@pytest.mark.parametrize("name", BALANCERS)
def test_a_seed_decides_every_pick(name: str) -> None:
    once, again = (picks(ready(BALANCERS[name](random.Random(7)), [1] * 40), 100) for _ in range(2))
    assert once == again


@pytest.mark.parametrize("name", BALANCERS)
@given(weights=st.lists(st.integers(1, 100), min_size=1, max_size=20), seed=st.integers(0, 1000))
@settings(max_examples=50)
def test_a_pick_is_always_one_of_the_pickable(name: str, weights: list[int], seed: int) -> None:
    cluster = ready(BALANCERS[name](random.Random(seed)), weights)
    assert all(picked(cluster) in cluster.pickable for _ in range(30))


@pytest.mark.parametrize("name", BALANCERS)
def test_a_retry_avoids_endpoints_that_were_tried_while_another_is_pickable(name: str) -> None:
    cluster = ready(BALANCERS[name](random.Random(3)), [5, 1, 1])
    first, second, third = cluster.endpoints
    for _ in range(20):
        assert picked(cluster, PickContext(HEAD, (first, second))) is third
        assert picked(cluster, PickContext(HEAD, (first,))) is not first


@pytest.mark.parametrize("name", BALANCERS)
def test_a_retry_goes_back_to_a_tried_endpoint_rather_than_nowhere(name: str) -> None:
    cluster = ready(BALANCERS[name](random.Random(3)), [1])
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
    # With n endpoints, a start in turn and three drawn, a busy one is picked only when all four looks fall on it.
    cluster = ready(LeastRequest(random.Random(1)), [1] * 50)
    cluster.endpoints[0].in_flight = 1000
    assert Counter(picks(cluster, 20_000))[0] <= 1


def test_least_request_reaches_everyone_among_many_equals() -> None:
    shares = Counter(picks(ready(LeastRequest(random.Random(9)), [1] * 100), 10_000))
    assert len(shares) == 100
    assert max(shares.values()) - min(shares.values()) <= 1


def test_a_balancer_of_ones_own_must_say_how_it_picks() -> None:
    cluster = ready(Balancer(), [1])
    with pytest.raises(NotImplementedError):
        cluster.pick(None, 0.0)
