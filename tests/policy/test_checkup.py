"""Verdicts out of findings (GR-50, GR-52), and what a verdict does to the picks (E11, E14)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.checkup import DENIED, MISSED, PASS, Checkup
from sidecar.policy.cluster import ALL_CONNECTING, Cluster, Refusal
from sidecar.policy.endpoint import AWAITED, EJECTED, FAILED, HEALTHY, PASSED, PROBATION, READY, UNCHECKED
from sidecar.policy.rotation import RoundRobin
from sidecar.policy.snapshot import Member, Snapshot

FINDINGS = (PASS, DENIED, MISSED)


def verdicts(rise: int, fall: int, *findings: int) -> list[int]:
    """The verdict after each finding."""
    checkup = Checkup(rise, fall)
    found = []
    for finding in findings:
        before = checkup.verdict
        assert checkup.record(finding) == (checkup.verdict != before)
        found.append(checkup.verdict)
    return found


def cluster_of(*checkups: int) -> Cluster:
    """Ready endpoints with these verdicts."""
    cluster = Cluster("orders", RoundRobin(random.Random(1)))
    members = tuple(Member(address=f"e{number}:1") for number in range(len(checkups)))
    cluster.apply(Snapshot(service="orders", members=members, source="consul"), 0.0)
    for endpoint, checkup in zip(cluster.endpoints, checkups, strict=True):
        cluster.set_connectivity(endpoint, READY)
        cluster.set_checkup(endpoint, checkup, "told", 0.0)
    return cluster


def picked(cluster: Cluster) -> list[str]:
    return [endpoint.address for endpoint in cluster.pickable]


# === the verdict ===


@pytest.mark.parametrize(("finding", "verdict"), [(PASS, PASSED), (DENIED, FAILED), (MISSED, FAILED)])
def test_first_finding_decides_alone(finding: int, verdict: int) -> None:
    assert verdicts(5, 5, finding) == [verdict]


def test_silence_counts_in_a_row_and_one_pass_forgives_it() -> None:
    assert verdicts(1, 3, PASS, MISSED, MISSED, PASS, MISSED, MISSED, MISSED)[-3:] == [PASSED, PASSED, FAILED]


def test_endpoint_that_says_it_does_not_serve_is_out_at_once() -> None:
    assert verdicts(1, 3, PASS, DENIED) == [PASSED, FAILED]


def test_coming_back_takes_passes_in_a_row() -> None:
    assert verdicts(2, 3, DENIED, PASS, MISSED, PASS, PASS) == [FAILED, FAILED, FAILED, FAILED, PASSED]


def test_after_a_restart_the_next_finding_decides() -> None:
    checkup = Checkup(3, 3)
    checkup.record(DENIED)
    checkup.record(PASS)
    checkup.restart()
    assert checkup.verdict == AWAITED
    assert checkup.record(PASS)
    assert checkup.verdict == PASSED


@given(st.integers(1, 4), st.integers(1, 4), st.lists(st.sampled_from(FINDINGS)))
def test_verdict_is_what_the_newest_findings_say(rise: int, fall: int, findings: list[int]) -> None:
    """Against a plain reading of the rules: look back as far as they ask for."""
    checkup = Checkup(rise, fall)
    expected = AWAITED
    for count, finding in enumerate(findings, 1):
        checkup.record(finding)
        seen = findings[:count]
        if expected == AWAITED:
            expected = PASSED if finding == PASS else FAILED
            start = count
        elif expected == PASSED:
            if finding == DENIED or (len(seen[start:]) >= fall and all(f == MISSED for f in seen[start:][-fall:])):
                expected, start = FAILED, count
        elif len(seen[start:]) >= rise and all(f == PASS for f in seen[start:][-rise:]):
            expected, start = PASSED, count
        assert checkup.verdict == expected


# === the picks ===


def test_endpoint_that_fails_its_check_is_left_out() -> None:
    assert picked(cluster_of(PASSED, FAILED, UNCHECKED)) == ["e0:1", "e2:1"]


def test_endpoint_whose_first_check_is_awaited_is_not_used_even_as_a_last_resort() -> None:
    assert picked(cluster_of(AWAITED, FAILED)) == ["e1:1"]


def test_rpcs_wait_while_every_endpoint_awaits_its_first_check() -> None:
    refusal = cluster_of(AWAITED, AWAITED).pick(None, 0.0)
    assert isinstance(refusal, Refusal) and refusal.worth_waiting
    assert refusal.reason == ALL_CONNECTING
    assert refusal.text == "orders: 2 of 2 instance(s) are connected, and none has passed its health check yet"


def test_below_the_panic_threshold_those_that_fail_share_the_load() -> None:
    assert len(picked(cluster_of(PASSED, FAILED, FAILED))) == 3
    assert len(picked(cluster_of(PASSED, PASSED, FAILED))) == 2


def test_pass_does_not_bring_back_what_ejection_put_out_nor_the_other_way_round() -> None:
    cluster = cluster_of(PASSED, PASSED, PASSED)
    first = cluster.endpoints[0]
    cluster.set_state(first, EJECTED, "5 failures in a row", 1.0)
    cluster.set_checkup(first, FAILED, "NOT_SERVING", 1.0)
    cluster.set_checkup(first, PASSED, "SERVING", 2.0)
    assert first not in cluster.pickable
    cluster.set_checkup(first, FAILED, "NOT_SERVING", 3.0)
    cluster.set_state(first, HEALTHY, "", 3.0)
    assert first not in cluster.pickable
    cluster.set_checkup(first, PASSED, "SERVING", 4.0)
    assert first in cluster.pickable


def test_endpoint_that_fails_its_check_gets_no_trial() -> None:
    cluster = cluster_of(PASSED, FAILED)
    cluster.set_state(cluster.endpoints[1], PROBATION, "its time is over", 1.0)
    assert cluster.trials == []
    cluster.set_checkup(cluster.endpoints[1], PASSED, "SERVING", 2.0)
    assert cluster.trials == [cluster.endpoints[1]]


def test_endpoint_that_comes_back_starts_slowly_and_one_that_passes_for_the_first_time_does_not() -> None:
    cluster = cluster_of(AWAITED, FAILED)
    for endpoint in cluster.endpoints:
        cluster.set_checkup(endpoint, PASSED, "SERVING", 100.0)
    assert [endpoint.warm_at for endpoint in cluster.endpoints] == [0.0, 100.0 + cluster.slow_start]
