"""What speaks against an endpoint, when it is ejected, and who stays: E1, E2, E3, E6, E7, E9, OD-05 to OD-08."""

from __future__ import annotations

import pytest
from msgspec import structs

from sidecar.policy.endpoint import EJECTED, HEALTHY, READY, TRANSIENT_FAILURE
from sidecar.rpc import status as codes
from sidecar.rpc.outcome import CANCELLED, REFUSED
from tests.policy.court import Court

# === failures in a row ===


def test_five_failures_in_a_row_eject_and_the_reason_says_so() -> None:
    court = Court()
    court.fail(0, 4)
    assert (court.states, court.events) == ("hhh", [])
    court.fail(0)
    assert court.states == "ehh"
    (event,) = court.events
    assert (event.kind, event.reason, event.withheld, event.at) == ("ejected", "consecutive_failures", "", court.now)
    assert event.text == "10.0.0.0:80 is ejected for 1.0s: 5 failures in a row, the newest UNAVAILABLE"
    assert court[0].reason == "5 failures in a row, the newest UNAVAILABLE"


def test_one_success_begins_the_row_anew() -> None:
    court = Court(success_rate=0.0)
    for _ in range(10):
        court.fail(0, 4)
        court.answer(0)
    assert court.states == "hhh"


@pytest.mark.parametrize("status", [codes.UNKNOWN, codes.INTERNAL, codes.UNAVAILABLE, codes.DATA_LOSS])
def test_statuses_that_speak_against_the_endpoint(status: int) -> None:
    court = Court()
    court.answer(0, status, 5)
    assert court.states == "ehh"


@pytest.mark.parametrize("status", [1, 3, 5, 6, 7, 8, 9, 10, 11, 12, 16])
def test_statuses_that_are_the_apps_own_affair_never_eject(status: int) -> None:
    court = Court()
    court.answer(0, status, 100)
    assert court.states == "hhh"


def test_the_failing_statuses_can_be_chosen() -> None:
    court = Court(failures=("ABORTED",))
    court.fail(0, 100)
    court.answer(1, codes.ABORTED, 5)
    assert court.states == "heh"


def test_a_reset_by_the_endpoint_counts_whatever_statuses_are_chosen() -> None:
    court = Court(failures=())
    court.reset(0, 5)
    assert court.states == "ehh"


@pytest.mark.parametrize("outcome", [CANCELLED, REFUSED])
def test_what_is_nobodys_fault_is_never_counted(outcome: int) -> None:
    court = Court()
    court.fail(0, 4)
    for _ in range(20):
        court.ignore(0, outcome)
    standing = court[0].standing
    assert standing is not None
    assert (court.states, standing.remote, standing.window.attempts) == ("hhh", 4, 4)
    court.fail(0)
    assert court.states == "ehh"


def test_load_shedding_counts_for_the_rate_where_it_is_chosen_and_never_for_the_row() -> None:
    shed = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
    court = Court(failures=shed, success_rate=0.0)
    court.answer(0, codes.RESOURCE_EXHAUSTED, 100)
    assert court.states == "hhh"
    court = Court(failures=shed)
    court.answer(1, codes.OK, 5)
    court.answer(0, codes.RESOURCE_EXHAUSTED, 5)
    assert court.told == [("ejected", "success_rate", "")]


def test_zero_turns_a_detector_off() -> None:
    court = Court(consecutive_failures=0, consecutive_local_failures=0, success_rate=0.0)
    for _ in range(50):
        court.fail(0)
        court.lose(0)
        court.now += 1
    assert court.states == "hhh"


# === local and remote ===


def test_lost_connections_have_a_counter_and_a_reason_of_their_own() -> None:
    court = Court(success_rate=0.0)
    court.fail(0, 4)
    for _ in range(4):
        court.lose(0)
        court.now += 1
    assert court.states == "hhh"
    court.lose(0)
    assert court.told == [("ejected", "consecutive_local_failures", "")]
    assert court[0].reason == "its connection was lost with RPCs on it 5 times in a row"


def test_an_answer_of_any_kind_shows_that_the_connection_is_sound() -> None:
    court = Court(consecutive_failures=100, success_rate=0.0)
    for _ in range(10):
        for _ in range(4):
            court.lose(0)
            court.now += 1
        court.fail(0)
    assert court.states == "hhh"


def test_a_lost_connection_is_one_failure_however_many_rpcs_it_carried() -> None:
    court = Court()
    for _ in range(100):
        court.lose(0)
    standing = court[0].standing
    assert standing is not None
    assert (court.states, standing.local, standing.window.attempts, standing.window.bad) == ("hhh", 1, 1, 1)


# === the rate over a window ===


def test_less_than_four_of_five_in_ten_seconds_ejects_in_a_cluster_of_any_size() -> None:
    court = Court(2)
    court.answer(1, times=20)
    court.answer(0, times=15)
    for _ in range(3):
        court.fail(0)
        court.answer(0)
    assert court.states == "hh"  # 18 of 21
    court.fail(0)
    court.answer(0)
    court.fail(0)
    assert court.states == "eh"  # 19 of 24
    assert court.told == [("ejected", "success_rate", "")]
    assert court[0].reason == "19 of 24 RPCs in 10s succeeded, less than 80%"


def test_exactly_the_rate_is_enough() -> None:
    court = Court(2)
    court.answer(0, times=4)
    court.fail(0)
    assert court.states == "hh"


def test_fewer_than_five_responses_say_nothing() -> None:
    court = Court(2)
    court.answer(0)
    court.fail(0, 3)
    assert court.states == "hh"


def test_what_is_older_than_the_window_is_forgotten() -> None:
    court = Court(2, consecutive_failures=0)
    court.fail(0, 4)
    court.pass_time(10.1)
    court.answer(0, times=4)
    court.fail(0)
    assert court.states == "hh"


def test_a_rate_that_all_share_ejects_nobody() -> None:
    """The service is ill, not an endpoint of it: putting one out would only load the others (P11)."""
    court = Court(10)
    for _ in range(20):
        for index in range(10):
            court.answer(index)
            court.fail(index)
    assert court.states == "h" * 10
    assert {withheld for _, _, withheld in court.told} == {"peers"}
    assert "the other instances fare no better" in court.events[0].text


def test_idle_peers_do_not_speak_for_a_bad_rate() -> None:
    court = Court(2, consecutive_failures=0)
    court.fail(0, 5)
    assert court.states == "eh"


# === timeouts ===


def test_timeouts_that_only_one_endpoint_has_are_its_own_fault() -> None:
    court = Court()
    court.answer(1, times=5)
    court.answer(2, times=5)
    court.time_out(0, 5)
    assert court.told == [("ejected", "consecutive_failures", "")]
    assert "the newest DEADLINE_EXCEEDED" in court[0].reason


def test_timeouts_that_all_endpoints_share_are_nobodys_fault() -> None:
    court = Court()
    for _ in range(50):
        for index in range(3):
            court.time_out(index)
        court.now += 0.1
    assert court.states == "hhh"


def test_a_share_of_timeouts_of_up_to_twice_that_of_the_peers_is_chance() -> None:
    court = Court(2, consecutive_failures=1, success_rate=0.0, timeouts="never")
    court.answer(0, times=51)
    court.time_out(0, 49)
    court.answer(1, times=75)
    court.time_out(1, 25)
    court.ejection.reconfigure(structs.replace(court.settings, timeouts="against_peers"), None, court.now)
    court.time_out(0)  # 50 of 101 are less than twice 25 of 100
    assert court.states == "hh"
    court.time_out(0)  # 51 of 102 are twice as many, and no more
    assert court.states == "hh"
    court.time_out(0)
    assert court.states == "eh"


def test_a_single_endpoint_has_no_peers_and_is_never_blamed_for_timeouts() -> None:
    court = Court(1)
    court.answer(0, times=10)
    court.time_out(0, 100)
    standing = court[0].standing
    assert standing is not None
    assert (standing.remote, standing.window.late, standing.window.bad) == (0, 100, 0)


@pytest.mark.parametrize(("mode", "states"), [("always", "ehh"), ("never", "hhh")])
def test_timeouts_can_be_judged_without_looking_at_peers(mode: str, states: str) -> None:
    court = Court(timeouts=mode)
    court.answer(0)
    court.time_out(0, 5)
    assert court.states == states


# === a classifier of the user's ===


def test_a_classifier_judges_answers_in_place_of_the_statuses() -> None:
    asked: list[tuple[int, float, bytes]] = []

    def classify(status: int, seconds: float, path: bytes) -> bool | None:
        asked.append((status, seconds, path))
        return {codes.OK: None, codes.NOT_FOUND: True, codes.UNAVAILABLE: False}[status]

    court = Court(classifier=classify)
    court.fail(0, 10)
    court.answer(0)
    standing = court[0].standing
    assert standing is not None
    assert standing.window.attempts == 10  # OK counts for nothing here
    assert asked[0] == (codes.UNAVAILABLE, 0.0, b"/orders.Orders/Get")
    court.answer(1, times=5)
    court.answer(0, codes.NOT_FOUND, 5)
    assert court.states == "ehh"


def test_a_classifier_is_not_asked_for_what_the_endpoint_did_not_answer() -> None:
    court = Court(classifier=lambda status, seconds, path: pytest.fail("asked"))
    court.reset(0)
    court.lose(0)
    court.time_out(0)
    court.ignore(0, CANCELLED)


# === who stays ===


@pytest.mark.parametrize(("endpoints", "most"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (7, 3), (10, 3), (20, 6)])
def test_at_most_the_cap_is_out_by_the_share_that_is_out_already(endpoints: int, most: int) -> None:
    court = Court(endpoints)
    for index in range(endpoints - 1):
        court.fail(index, 5)
    assert court.states.count("e") == (min(most, endpoints - 1))


def test_with_two_endpoints_one_may_go_and_the_last_never() -> None:
    court = Court(2)
    court.fail(0, 5)
    court.fail(1, 50)
    assert court.states == "eh"
    assert court.told == [("ejected", "consecutive_failures", ""), ("withheld", "consecutive_failures", "cap")]
    assert [endpoint.state for endpoint in court.cluster.pickable] == [HEALTHY]


def test_the_only_endpoint_stays_whatever_it_does_and_that_is_said_every_ten_seconds() -> None:
    court = Court(1)
    for _ in range(100):
        court.fail(0)
        court.now += 0.25
    assert court.states == "h"
    assert court.told == [("withheld", "consecutive_failures", "last")] * 3
    assert court.events[0].text == (
        "10.0.0.0:80 would be ejected (5 failures in a row, the newest UNAVAILABLE),"
        " but no other connected instance is known to do better"
    )


def test_nobody_goes_while_all_of_them_fail() -> None:
    court = Court(10)
    for _ in range(20):
        for index in range(10):
            court.fail(index)
    assert court.states == "h" * 10
    assert {withheld for _, _, withheld in court.told} == {"last"}


def test_a_peer_that_is_not_connected_is_no_replacement() -> None:
    court = Court(2)
    court.cluster.set_connectivity(court[1], TRANSIENT_FAILURE, "connection refused")
    court.fail(0, 5)
    assert court.states == "hh"
    court.cluster.set_connectivity(court[1], READY)
    court.now += 1.0
    court.fail(0)
    assert court.states == "eh"


def test_a_cap_of_nothing_ejects_nobody() -> None:
    court = Court(10, max_ejected=0)
    court.fail(0, 50)
    assert court.states == "h" * 10


def test_with_enforce_at_zero_all_stay_and_what_would_be_done_is_told() -> None:
    court = Court(3, enforce=0)
    court.fail(0, 5)
    assert court.states == "hhh"
    assert court.told == [("withheld", "consecutive_failures", "enforce")]
    assert court.events[0].text.endswith("but ejection.enforce is 0 %")


def test_a_part_of_the_ejections_is_carried_out() -> None:
    carried_out = 0
    for seed in range(400):
        court = Court(10, enforce=25, seed=seed)
        court.fail(0, 5)
        carried_out += court[0].state == EJECTED
    assert 80 <= carried_out <= 120


# === time gaps ===


def test_a_gap_in_time_ejects_nobody() -> None:
    """Suspend and resume: every connection is lost at once, and what was in flight with it (RL-45)."""
    court = Court(5)
    for index in range(5):
        court.answer(index, times=20)
    court.pass_time(3600)
    for index in range(5):
        for _ in range(30):
            court.lose(index)
    assert court.states == "hhhhh"
    assert court.events == []


# === members ===


def test_an_endpoint_that_left_is_not_judged_any_more() -> None:
    court = Court(3)
    gone = court[2]
    court.fail(2, 4)
    court.discover(2)
    assert court.ejection.record(gone, 1, 1, codes.UNAVAILABLE, court.now, court.now, b"/") is None
    assert gone.state == HEALTHY
