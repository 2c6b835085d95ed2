"""Membership, tiers and refusals: LB-01, LB-11, LB-12, OD-06, and the words of D18."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.policy.balancer import PickContext
from sidecar.policy.cluster import (
    ALL_CONNECTING,
    ALL_FAILING,
    ALL_SATURATED,
    NEVER_DISCOVERED,
    NO_MEMBERS,
    WORTH_WAITING,
    Change,
    Cluster,
    Refusal,
)
from sidecar.policy.endpoint import (
    CONNECTING,
    EJECTED,
    HEALTHY,
    IDLE,
    PROBATION,
    READY,
    TRANSIENT_FAILURE,
    Endpoint,
)
from sidecar.policy.least_request import LeastRequest
from sidecar.policy.rotation import RoundRobin
from sidecar.policy.settings import BalancingSettings
from sidecar.policy.snapshot import PASSING, SUSPECT, WARNING, Member, Snapshot


def snapshot(*addresses: str, status: str = PASSING, source: str = "consul", index: int = 1) -> Snapshot:
    members = tuple(Member(address=address, status=status) for address in addresses)
    return Snapshot(service="orders", members=members, source=source, index=index)


def cluster_of(*addresses: str, connectivity: int = READY, status: str = PASSING) -> Cluster:
    cluster = Cluster("orders", RoundRobin(random.Random(1)))
    cluster.apply(snapshot(*addresses, status=status), 0.0)
    for endpoint in cluster.endpoints:
        cluster.set_connectivity(
            endpoint, connectivity, "connection refused" if connectivity == TRANSIENT_FAILURE else ""
        )
    return cluster


def refused(cluster: Cluster) -> Refusal:
    refusal = cluster.pick(None, 0.0)
    assert isinstance(refusal, Refusal)
    return refusal


# === membership ===


def test_an_endpoint_that_stays_keeps_its_object_counters_and_connection() -> None:
    cluster = cluster_of("a:1", "b:1")
    kept = cluster.endpoints[1]
    kept.successes, kept.in_flight, kept.connections = 5, 2, 1
    change = cluster.apply(snapshot("c:1", "b:1"), 1.0)
    assert [endpoint.address for endpoint in change.added] == ["c:1"]
    assert [endpoint.address for endpoint in change.removed] == ["a:1"]
    assert cluster.endpoints[1] is kept
    assert (kept.successes, kept.in_flight, kept.connections, kept.connectivity) == (5, 2, 1, READY)
    assert not kept.removed


def test_a_removed_endpoint_is_picked_no_more_and_knows_it() -> None:
    cluster = cluster_of("a:1", "b:1")
    gone = cluster.endpoints[0]
    cluster.apply(snapshot("b:1"), 1.0)
    assert gone.removed
    assert {cluster.pick(None, 0.0) for _ in range(10)} == {cluster.endpoints[0]}


def test_an_endpoint_that_comes_back_starts_clean() -> None:
    cluster = cluster_of("a:1", "b:1")
    before = cluster.endpoints[0]
    cluster.set_state(before, EJECTED, "5 failures in a row", 0.5)
    cluster.apply(snapshot("b:1"), 1.0)
    cluster.apply(snapshot("a:1", "b:1"), 2.0)
    after = cluster.endpoints[0]
    assert after is not before
    assert (after.state, after.connectivity, after.successes, after.added_at) == (HEALTHY, IDLE, 0, 2.0)


def test_news_of_a_member_that_stays_are_taken_over() -> None:
    cluster = cluster_of("a:1")
    member = Member(address="a:1", id="orders-1", weight=7, status=WARNING)
    cluster.apply(Snapshot(service="orders", members=(member,), source="file", index=9), 5.0)
    endpoint = cluster.endpoints[0]
    assert (endpoint.member, endpoint.weight, endpoint.source) == (member, 7, "file")
    assert (cluster.source, cluster.index, cluster.confirmed_at) == ("file", 9, 5.0)


def test_an_address_listed_twice_is_one_endpoint_and_the_first_entry_holds() -> None:
    cluster = Cluster("orders", RoundRobin(random.Random(1)))
    members = (Member(address="a:1", id="one"), Member(address="a:1", id="two"))
    cluster.apply(Snapshot(service="orders", members=members, source="consul"), 0.0)
    assert [endpoint.member.id for endpoint in cluster.endpoints] == ["one"]


def test_observers_hear_each_change_before_the_pickable_ones_are_told() -> None:
    cluster = Cluster("orders", RoundRobin(random.Random(1)))
    heard: list[object] = []
    cluster.on_members.append(heard.append)
    cluster.on_pickable.append(lambda: heard.append("pickable"))
    change = cluster.apply(snapshot("a:1"), 0.0)
    assert heard == [change, "pickable"]


ADDRESSES = st.lists(st.sampled_from([f"{name}:1" for name in "abcdefgh"]), unique=True)


@given(st.lists(ADDRESSES, min_size=1, max_size=8))
@settings(max_examples=100)
def test_any_run_of_snapshots_leaves_exactly_the_last_one_and_tells_every_difference(history: list[list[str]]) -> None:
    cluster = Cluster("orders", RoundRobin(random.Random(1)))
    told: dict[str, Endpoint] = {}

    def follow(change: Change) -> None:
        for endpoint in change.removed:
            assert told.pop(endpoint.address) is endpoint and endpoint.removed
        for endpoint in change.added:
            assert endpoint.address not in told and not endpoint.removed
            told[endpoint.address] = endpoint

    cluster.on_members.append(follow)
    for now, addresses in enumerate(history):
        cluster.apply(snapshot(*addresses), float(now))
        assert [endpoint.address for endpoint in cluster.endpoints] == addresses
        assert all(told[endpoint.address] is endpoint for endpoint in cluster.endpoints)
        assert len(told) == len(addresses)


# === tiers ===


def test_only_connected_endpoints_are_picked() -> None:
    cluster = cluster_of("a:1", "b:1", "c:1", "d:1")
    for endpoint, connectivity in zip(cluster.endpoints, (IDLE, CONNECTING, READY, TRANSIENT_FAILURE), strict=True):
        cluster.set_connectivity(endpoint, connectivity)
    assert cluster.pickable == [cluster.endpoints[2]]


def test_good_news_of_many_is_taken_over_at_once() -> None:
    cluster = cluster_of("a:1", "b:1", "c:1", connectivity=CONNECTING)
    first, second, third = cluster.endpoints
    first.saturated = True
    cluster.set_ready([first, third])
    assert cluster.pickable == [first, third]
    assert second.connectivity == CONNECTING


def test_beginning_to_connect_changes_nothing_that_can_be_picked() -> None:
    cluster = cluster_of("a:1", "b:1", connectivity=IDLE)
    cluster.set_ready([cluster.endpoints[0]])
    before = cluster.pickable
    cluster.set_connectivity(cluster.endpoints[1], CONNECTING)
    assert cluster.pickable is before
    assert cluster.endpoints[1].connectivity == CONNECTING


def test_a_saturated_endpoint_is_left_out_until_a_slot_is_free() -> None:
    cluster = cluster_of("a:1", "b:1")
    cluster.set_saturated(cluster.endpoints[0], True)
    assert cluster.pickable == [cluster.endpoints[1]]
    cluster.set_saturated(cluster.endpoints[0], False)
    assert cluster.pickable == cluster.endpoints


def test_an_ejected_endpoint_is_left_out_while_a_healthy_one_is_ready() -> None:
    cluster = cluster_of("a:1", "b:1")
    cluster.set_state(cluster.endpoints[0], EJECTED, "5 failures in a row", 3.0)
    assert cluster.pickable == [cluster.endpoints[1]]
    assert (cluster.endpoints[0].reason, cluster.endpoints[0].since_at) == ("5 failures in a row", 3.0)


def test_ejection_never_leaves_nothing_to_pick() -> None:
    cluster = cluster_of("a:1", "b:1")
    cluster.set_state(cluster.endpoints[0], EJECTED, "5 failures in a row", 0.0)
    cluster.set_state(cluster.endpoints[1], PROBATION, "one trial", 0.0)
    assert cluster.pickable == cluster.endpoints


def test_an_endpoint_in_probation_gets_one_rpc_and_no_other_before_its_end() -> None:
    cluster = cluster_of("a:1", "b:1", "c:1")
    tried = cluster.endpoints[0]
    cluster.set_state(tried, PROBATION, "its time is over", 1.0)
    assert cluster.pick(None, 1.0) is tried
    cluster.begin_trial(tried)
    assert tried not in [cluster.pick(None, 1.0) for _ in range(6)]
    cluster.end_trial(tried)
    assert cluster.pick(None, 1.0) is tried


def test_attempts_are_counted_for_the_cluster_even_where_their_endpoint_has_left_it() -> None:
    cluster = cluster_of("a:1", "b:1")
    first, second = cluster.endpoints
    for endpoint in (first, first, second):
        cluster.begin_attempt(endpoint)
    assert (first.in_flight, second.in_flight, cluster.in_flight) == (2, 1, 3)
    cluster.apply(snapshot("b:1"), 1.0)
    for endpoint in (first, second, first):
        cluster.end_attempt(endpoint)
    assert (first.in_flight, second.in_flight, cluster.in_flight) == (0, 0, 0)


def test_a_pick_that_came_to_nothing_does_not_use_up_the_trial() -> None:
    cluster = cluster_of("a:1", "b:1")
    cluster.set_state(cluster.endpoints[0], PROBATION, "its time is over", 1.0)
    assert cluster.pick(None, 1.0) is cluster.pick(None, 1.0) is cluster.endpoints[0]


def test_only_a_connected_endpoint_with_a_free_slot_is_on_trial() -> None:
    cluster = cluster_of("a:1", "b:1")
    tried, other = cluster.endpoints
    cluster.set_state(tried, PROBATION, "its time is over", 1.0)
    cluster.set_saturated(tried, True)
    assert cluster.pick(None, 1.0) is other
    cluster.set_saturated(tried, False)
    cluster.set_connectivity(tried, TRANSIENT_FAILURE, "connection refused")
    assert cluster.pick(None, 1.0) is other
    cluster.set_connectivity(tried, READY)
    assert cluster.pick(None, 1.0) is tried


def test_a_retry_is_never_a_trial() -> None:
    cluster = cluster_of("a:1", "b:1", "c:1")
    tried, failed, _ = cluster.endpoints
    cluster.set_state(tried, PROBATION, "its time is over", 1.0)
    context = PickContext(head=None, tried=(failed,))  # type: ignore[arg-type]
    assert tried not in [cluster.pick(context, 1.0) for _ in range(6)]


@pytest.mark.parametrize(("ejected", "pickable"), [(1, 3), (2, 2), (3, 4), (4, 4)])
def test_below_the_panic_threshold_the_ejected_share_the_load(ejected: int, pickable: int) -> None:
    cluster = cluster_of("a:1", "b:1", "c:1", "d:1")
    for endpoint in cluster.endpoints[:ejected]:
        cluster.set_state(endpoint, EJECTED, "5 failures in a row", 0.0)
    assert len(cluster.pickable) == pickable


def test_a_threshold_of_nothing_never_panics_while_one_is_healthy() -> None:
    cluster = cluster_of("a:1", "b:1", "c:1", "d:1")
    cluster.reconfigure(cluster.balancer, BalancingSettings(panic_threshold=0.0))
    for endpoint in cluster.endpoints[:3]:
        cluster.set_state(endpoint, EJECTED, "5 failures in a row", 0.0)
    assert cluster.pickable == cluster.endpoints[3:]


def test_panic_does_not_bring_back_the_suspect() -> None:
    cluster = cluster_of("a:1", "b:1", "c:1", "d:1")
    members = (Member(address="a:1", status=SUSPECT), *(Member(address=f"{name}:1") for name in "bcd"))
    cluster.apply(Snapshot(service="orders", members=members, source="consul"), 1.0)
    for endpoint in cluster.endpoints[1:3]:
        cluster.set_state(endpoint, EJECTED, "5 failures in a row", 0.0)
    assert cluster.pickable == cluster.endpoints[1:]


def test_another_balancer_begins_without_the_notes_of_the_last() -> None:
    cluster = Cluster("orders", LeastRequest(random.Random(1)))
    cluster.apply(snapshot("a:1", "b:1"), 0.0)
    for endpoint in cluster.endpoints:
        cluster.set_connectivity(endpoint, READY)
    for _ in range(1000):
        cluster.pick(None, 0.0)
    cluster.reconfigure(LeastRequest(random.Random(2)), BalancingSettings())
    assert max(endpoint.turn for endpoint in cluster.endpoints) < 10
    assert {cluster.pick(None, 0.0) for _ in range(4)} == set(cluster.endpoints)


def test_a_suspect_endpoint_is_picked_only_when_no_better_healthy_one_is_ready() -> None:
    cluster = cluster_of("a:1", "b:1")
    members = (Member(address="a:1", status=SUSPECT), Member(address="b:1"))
    cluster.apply(Snapshot(service="orders", members=members, source="consul"), 1.0)
    suspect, believed = cluster.endpoints
    assert suspect.suspect and cluster.pickable == [believed]
    cluster.set_connectivity(believed, TRANSIENT_FAILURE, "connection refused")
    assert cluster.pickable == [suspect]


def test_a_healthy_suspect_comes_before_an_ejected_endpoint() -> None:
    cluster = cluster_of("a:1", "b:1")
    members = (Member(address="a:1", status=SUSPECT), Member(address="b:1"))
    cluster.apply(Snapshot(service="orders", members=members, source="consul"), 1.0)
    cluster.set_state(cluster.endpoints[1], EJECTED, "5 failures in a row", 1.0)
    assert cluster.pickable == [cluster.endpoints[0]]


def test_a_warning_is_as_good_as_passing() -> None:
    assert len(cluster_of("a:1", "b:1", status=WARNING).pickable) == 2


@given(
    st.lists(
        st.tuples(
            st.sampled_from(range(4)), st.booleans(), st.sampled_from(range(3)), st.sampled_from((PASSING, SUSPECT))
        ),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=200)
def test_something_is_pickable_exactly_when_something_is_ready_and_free(
    rows: list[tuple[int, bool, int, str]],
) -> None:
    cluster = Cluster("orders", RoundRobin(random.Random(1)))
    members = tuple(Member(address=f"e{n}:1", status=row[3]) for n, row in enumerate(rows))
    cluster.apply(Snapshot(service="orders", members=members, source="consul"), 0.0)
    for endpoint, (connectivity, saturated, state, _) in zip(cluster.endpoints, rows, strict=True):
        cluster.set_connectivity(endpoint, connectivity)
        cluster.set_saturated(endpoint, saturated)
        cluster.set_state(endpoint, state, "told", 0.0)
    free = [endpoint for endpoint in cluster.endpoints if endpoint.connectivity == READY and not endpoint.saturated]
    assert set(cluster.pickable) <= set(free)
    assert bool(cluster.pickable) == bool(free)
    assert isinstance(cluster.pick(None, 0.0), Endpoint if free else Refusal)


# === refusals ===


def test_before_the_first_answer_it_says_that_the_registry_has_not_answered_and_why() -> None:
    cluster = Cluster("orders", RoundRobin(random.Random(1)))
    cluster.note_registry(False, "connection refused", 1.0)
    assert not cluster.discovered
    assert refused(cluster) == Refusal(
        NEVER_DISCOVERED, "orders: the registry has not answered yet (connection refused)"
    )


def test_an_empty_membership_names_who_says_so() -> None:
    cluster = Cluster("orders", RoundRobin(random.Random(1)))
    cluster.apply(snapshot(), 0.0)
    assert cluster.discovered
    assert refused(cluster) == Refusal(NO_MEMBERS, "orders: consul lists no healthy instance of it")


@pytest.mark.parametrize("connectivity", [IDLE, CONNECTING])
def test_while_a_connection_may_come_up_it_says_so(connectivity: int) -> None:
    cluster = cluster_of("a:1", "b:1", connectivity=TRANSIENT_FAILURE)
    cluster.set_connectivity(cluster.endpoints[0], connectivity)
    assert refused(cluster) == Refusal(ALL_CONNECTING, "orders: still connecting to 1 of 2 instance(s)")


def test_when_all_fail_it_names_the_last_error_and_whose_it_is() -> None:
    refusal = refused(cluster_of("a:1", "b:1", connectivity=TRANSIENT_FAILURE))
    assert refusal.reason == ALL_FAILING
    assert refusal.text == "orders: none of its 2 instance(s) can be reached; last error: b:1: connection refused"


def test_when_all_slots_are_taken_it_says_so() -> None:
    cluster = cluster_of("a:1", "b:1")
    cluster.set_saturated(cluster.endpoints[0], True)
    cluster.set_connectivity(cluster.endpoints[1], TRANSIENT_FAILURE, "connection refused")
    refusal = refused(cluster)
    assert refusal.reason == ALL_SATURATED
    assert refusal.text == "orders: all stream slots of the 1 connected of its 2 instance(s) are taken"


def test_a_saturated_endpoint_that_was_lost_is_not_called_saturated() -> None:
    cluster = cluster_of("a:1")
    cluster.set_saturated(cluster.endpoints[0], True)
    cluster.set_connectivity(cluster.endpoints[0], TRANSIENT_FAILURE, "connection reset")
    assert refused(cluster).reason == ALL_FAILING


def test_waiting_is_worth_it_only_while_the_next_moment_may_help() -> None:
    assert {NEVER_DISCOVERED, ALL_CONNECTING, ALL_SATURATED} == WORTH_WAITING
    assert not refused(cluster_of("a:1", connectivity=TRANSIENT_FAILURE)).worth_waiting
    assert refused(cluster_of("a:1", connectivity=CONNECTING)).worth_waiting


def test_a_repeated_failure_is_told_again_so_that_waiting_rpcs_hear_of_it() -> None:
    cluster = cluster_of("a:1", connectivity=TRANSIENT_FAILURE)
    told: list[str] = []
    cluster.on_pickable.append(lambda: told.append(cluster.endpoints[0].last_error))
    cluster.set_connectivity(cluster.endpoints[0], TRANSIENT_FAILURE, "no route to host")
    assert told == ["no route to host"]


# === age ===


def test_the_age_counts_from_the_last_confirmation() -> None:
    cluster = cluster_of("a:1")
    cluster.note_registry(True, "unchanged", 10.0)
    cluster.note_registry(False, "connection refused", 20.0)
    assert cluster.age(25.0) == 15.0
    assert (cluster.registry_up, cluster.registry_detail) == (False, "connection refused")


def test_a_static_membership_never_ages_and_an_unknown_one_has_no_age() -> None:
    cluster = Cluster("orders", RoundRobin(random.Random(1)))
    cluster.note_registry(True, "answers", 1.0)
    assert cluster.age(100.0) == 0.0
    cluster.apply(snapshot("a:1", source="static"), 1.0)
    assert cluster.age(100.0) == 0.0


def test_clusters_and_endpoints_show_themselves() -> None:
    cluster = cluster_of("a:1")
    assert repr(cluster) == "<Cluster orders 1 of 1 pickable, from consul>"
    assert repr(cluster.endpoints[0]) == "<Endpoint a:1 healthy ready in_flight=0 ok=0 failed=0>"
