"""ring_hash and maglev: XXH64 on its published vectors, who keeps what, weights, limits (LB-05, D6)."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from sidecar.http2.interface import HeaderBlock
from sidecar.policy.affinity import LIGHT
from sidecar.policy.balancer import PickContext
from sidecar.policy.builtin import BALANCERS
from sidecar.policy.cluster import Cluster
from sidecar.policy.endpoint import READY, TRANSIENT_FAILURE, Endpoint
from sidecar.policy.maglev import fill
from sidecar.policy.ring_hash import MAX_RING, MIN_RING, RingHash
from sidecar.policy.settings import BalancingSettings
from sidecar.policy.snapshot import Member, Snapshot
from sidecar.policy.xxh64 import xxh64
from sidecar.rpc.metadata import read_request

NAMES = ["ring_hash", "maglev"]
USER = BalancingSettings(hash_on="x-user", hash_load_limit=0.0)


def cluster_of(name: str, weights: dict[str, int], settings: BalancingSettings = USER, seed: int = 1) -> Cluster:
    cluster = Cluster("orders", BALANCERS[name](random.Random(seed), settings), settings)
    join(cluster, weights)
    return cluster


def join(cluster: Cluster, weights: dict[str, int]) -> None:
    members = tuple(Member(address=address, weight=weight) for address, weight in weights.items())
    for endpoint in cluster.apply(Snapshot(service="orders", members=members, source="static"), 0.0).added:
        cluster.set_connectivity(endpoint, READY)


def equals(count: int) -> dict[str, int]:
    return {f"10.0.0.{n}:80": 1 for n in range(count)}


def rpc(*users: str, path: str = "/pkg.Greeter/Hello", tried: tuple[Endpoint, ...] = ()) -> PickContext:
    block = HeaderBlock([(b":path", path.encode()), *((b"x-user", user.encode()) for user in users)])
    return PickContext(read_request(block), tried, block)


def homes(cluster: Cluster, count: int = 2000) -> dict[int, str]:
    """Where each of so many users' RPCs go."""
    return {user: picked(cluster, rpc(f"user-{user}")).address for user in range(count)}


def picked(cluster: Cluster, context: PickContext) -> Endpoint:
    endpoint = cluster.pick(context, 0.0)
    assert isinstance(endpoint, Endpoint)
    return endpoint


@pytest.mark.parametrize(
    ("data", "seed", "expected"),
    [
        (b"", 0, 0xEF46DB3751D8E999),
        (b"", 2654435761, 0xAC75FDA2929B17EF),
        (b"\x00", 0, 0xE934A84ADB052768),
        (b"a", 0, 0xD24EC4F1A98C6E5B),
        (b"abc", 0, 0x44BC2CF5AD770999),
        (b"test", 0, 0x4FDCCA5DDB678139),
        (b"Call me Ishmael.", 0, 0x6D04390FC9D61A90),
        (b"Nobody inspects the spammish repetition", 0, 0xFBCEA83C8A378BF1),
        (b"Some years ago--never mind how long precisely-", 0, 0x8F26F2B986AFDC52),
    ],
)
def test_xxh64_gives_its_published_values(data: bytes, seed: int, expected: int) -> None:
    assert xxh64(data, seed) == expected


@pytest.mark.parametrize("name", NAMES)
def test_the_same_value_goes_to_the_same_endpoint_from_every_sidecar(name: str) -> None:
    here = homes(cluster_of(name, equals(7), seed=1))
    there = homes(cluster_of(name, dict(reversed(equals(7).items())), seed=2))
    assert here == there
    assert set(here.values()) == set(equals(7))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("weights", [[1, 1, 1, 1, 1], [1, 2, 5]])
def test_values_are_spread_by_weight(name: str, weights: list[int]) -> None:
    cluster = cluster_of(name, {f"10.0.0.{n}:80": weight for n, weight in enumerate(weights)})
    shares = Counter(homes(cluster, 5000).values())
    for n, weight in enumerate(weights):
        assert shares[f"10.0.0.{n}:80"] / 5000 == pytest.approx(weight / sum(weights), abs=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_a_member_that_leaves_takes_along_little_but_its_own(name: str) -> None:
    cluster = cluster_of(name, equals(10))
    before = homes(cluster)
    join(cluster, {address: 1 for address in equals(10) if address != "10.0.0.3:80"})
    after = homes(cluster)
    kept = [user for user, address in before.items() if address != "10.0.0.3:80"]
    assert sum(before[user] != after[user] for user in kept) / len(kept) <= 0.12


@pytest.mark.parametrize("name", NAMES)
def test_a_lost_connection_moves_only_what_was_there_and_spreads_it(name: str) -> None:
    cluster = cluster_of(name, equals(10))
    before = homes(cluster)
    lost = cluster.endpoints[3]
    cluster.set_connectivity(lost, TRANSIENT_FAILURE, "connection refused")
    after = homes(cluster)
    moved = {user: address for user, address in after.items() if before[user] != address}
    assert set(moved) == {user for user, address in before.items() if address == lost.address}
    assert max(Counter(moved.values()).values()) <= len(moved) / 2
    cluster.set_connectivity(lost, READY)
    assert homes(cluster) == before


@pytest.mark.parametrize("name", NAMES)
def test_several_values_of_the_header_are_one_key_joined_by_commas(name: str) -> None:
    cluster = cluster_of(name, equals(9))
    for n in range(50):
        assert picked(cluster, rpc(f"a{n}", "b")) is picked(cluster, rpc(f"a{n},b"))


@pytest.mark.parametrize("name", NAMES)
def test_an_rpc_without_the_header_goes_anywhere(name: str) -> None:
    cluster = cluster_of(name, equals(5))
    assert set(Counter(picked(cluster, rpc()).address for _ in range(300))) == set(equals(5))
    assert isinstance(cluster.pick(None, 0.0), Endpoint)


@pytest.mark.parametrize("name", NAMES)
def test_unless_told_otherwise_a_method_has_its_endpoint(name: str) -> None:
    cluster = cluster_of(name, equals(9), BalancingSettings())
    methods = {path: {picked(cluster, rpc(str(n), path=path)) for n in range(20)} for path in ("/a", "/b", "/c", "/d")}
    assert all(len(endpoints) == 1 for endpoints in methods.values())
    assert len(set.union(*methods.values())) > 1


@pytest.mark.parametrize("name", NAMES)
def test_no_endpoint_is_loaded_above_its_limit_by_one_popular_value(name: str) -> None:
    cluster = cluster_of(name, equals(5), BalancingSettings(hash_on="x-user", hash_load_limit=1.5))
    first = picked(cluster, rpc("everybody"))
    for count in range(1, 301):
        picked(cluster, rpc("everybody")).in_flight += 1
        highest = max(endpoint.in_flight for endpoint in cluster.endpoints)
        assert highest <= max(LIGHT, 1.5 * count / 5 + 1)
    assert first.in_flight == 90


@pytest.mark.parametrize("name", NAMES)
def test_without_a_limit_a_value_stays_whatever_the_load(name: str) -> None:
    cluster = cluster_of(name, equals(5))
    for _ in range(300):
        picked(cluster, rpc("everybody")).in_flight += 1
    assert sorted(endpoint.in_flight for endpoint in cluster.endpoints) == [0, 0, 0, 0, 300]


@pytest.mark.parametrize("name", NAMES)
def test_a_retry_goes_to_the_next_in_order_and_always_to_the_same(name: str) -> None:
    cluster = cluster_of(name, equals(6))
    first = picked(cluster, rpc("me"))
    second = {picked(cluster, rpc("me", tried=(first,))) for _ in range(20)}
    assert len(second) == 1 and first not in second


@pytest.mark.parametrize("name", NAMES)
def test_when_all_but_one_of_many_are_gone_that_one_is_found(name: str) -> None:
    cluster = cluster_of(name, equals(200))
    for endpoint in cluster.endpoints[1:]:
        endpoint.connectivity = TRANSIENT_FAILURE
    cluster.refresh()
    assert set(homes(cluster, 100).values()) == {"10.0.0.0:80"}


@pytest.mark.parametrize("weights", [[1], [1] * 7, [1, 3, 10], [1, 100_000], [1] * 500])
def test_a_ring_has_a_bounded_number_of_entries(weights: list[int]) -> None:
    ring = RingHash(random.Random(1), USER)
    cluster = Cluster("orders", ring)
    join(cluster, {f"10.0.{n // 250}.{n % 250}:80": weight for n, weight in enumerate(weights)})
    assert MIN_RING <= len(ring._owners) <= MAX_RING
    assert list(ring._places) == sorted(ring._places)


def test_a_maglev_table_is_full_and_fair() -> None:
    table = fill(1009, [0, 1, 2], [5, 5, 700], [1, 3, 20], [1.0, 1.0, 0.5])
    assert len(table) == 1009
    assert Counter(table) == {0: pytest.approx(404, abs=2), 1: pytest.approx(404, abs=2), 2: pytest.approx(202, abs=2)}
