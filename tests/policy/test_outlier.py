"""gRFC A50 to the letter: OD-01 to OD-05, the vectors of OD-09, and 85 % exactly."""

from __future__ import annotations

import pytest
from msgspec import structs

from sidecar.policy.ejection_settings import FailurePercentageSettings, OutlierSettings, SuccessRateSettings
from sidecar.policy.outlier import threshold_of
from tests.policy.court import Court


def court_of(count: int, **rule: object) -> Court:
    """Judged by A50 alone."""
    return Court(
        count,
        consecutive_failures=0,
        consecutive_local_failures=0,
        success_rate=0.0,
        outlier_detection=OutlierSettings(**rule),  # type: ignore[arg-type]
    )


def serve(court: Court, index: int, total: int, failures: int) -> None:
    court.fail(index, failures)
    court.answer(index, times=total - failures)


def test_the_defaults_are_those_of_a50() -> None:
    rule = OutlierSettings()
    assert (rule.interval, rule.base_ejection_time, rule.max_ejection_time, rule.max_ejection_percent) == (
        10.0,
        30.0,
        300.0,
        10,
    )
    rate, percentage = SuccessRateSettings(), FailurePercentageSettings()
    assert (rate.stdev_factor, rate.enforcement, rate.minimum_hosts, rate.request_volume) == (1900, 100, 5, 100)
    assert (percentage.threshold, percentage.enforcement, percentage.minimum_hosts, percentage.request_volume) == (
        85,
        100,
        5,
        50,
    )


# === success rate ===

RATES = [99.5] * 17 + [99.0, 97.0, 80.0]


def test_thresholds_of_the_worked_example() -> None:
    assert threshold_of(RATES, 1900) == pytest.approx(90.30, abs=0.005)
    assert threshold_of(RATES[:-1], 1900) == pytest.approx(98.27, abs=0.005)


def test_twenty_hosts_lose_one_at_each_of_two_judgements_and_then_the_cap_holds() -> None:
    court = court_of(20, success_rate=SuccessRateSettings())

    def interval(rates: list[float]) -> None:
        for index, rate in enumerate(rates):
            if court[index].state == 0:
                serve(court, index, 200, round(200 * (100 - rate) / 100))
        court.pass_time(10)

    interval(RATES)
    assert court.states == "h" * 19 + "e"
    assert court[19].reason == "80.0% of its RPCs succeeded, less than 90.3%, by 20 instances"
    interval(RATES)
    assert court.states == "h" * 18 + "ee"
    assert "less than 98.3%" in court[18].reason
    interval([99.5] * 17 + [50.0, 97.0, 80.0])
    assert court.states == "h" * 18 + "ee"
    assert court.told[-1] == ("withheld", "outlier_success_rate", "cap")


def test_alike_endpoints_are_no_outliers_however_bad() -> None:
    court = court_of(6, success_rate=SuccessRateSettings())
    for index in range(6):
        serve(court, index, 100, 50)
    court.pass_time(10)
    assert court.states == "hhhhhh"


@pytest.mark.parametrize(("hosts", "volume", "ejected"), [(5, 100, 1), (4, 100, 0), (5, 99, 0)])
def test_too_few_hosts_with_the_volume_are_not_judged(hosts: int, volume: int, ejected: int) -> None:
    court = court_of(7, success_rate=SuccessRateSettings(stdev_factor=1000))
    for index in range(hosts):
        serve(court, index, volume, volume // 2 if index == 0 else 0)
    court.pass_time(10)
    assert court.states.count("e") == ejected


# === failure percentage ===


@pytest.mark.parametrize(("failures", "ejected"), [(85, 0), (86, 1), (100, 1), (0, 0)])
def test_more_than_the_threshold_is_too_much_and_the_threshold_itself_is_not(failures: int, ejected: int) -> None:
    court = court_of(5, failure_percentage=FailurePercentageSettings())
    serve(court, 0, 100, failures)
    for index in range(1, 5):
        serve(court, index, 100, 0)
    court.pass_time(10)
    assert court.states.count("e") == ejected
    if ejected:
        assert court.told[0] == ("ejected", "outlier_failure_percentage", "")
        assert court[0].reason == f"{failures} of its 100 RPCs failed, more than 85 %"


def test_without_a_section_neither_runs_and_no_timer_is_set() -> None:
    court = court_of(5)
    for index in range(5):
        serve(court, index, 100, 100 if index == 0 else 0)
    assert court.ejection.next_at() is None
    court.pass_time(60)
    assert court.states == "hhhhh"


def test_enforcement_of_zero_tells_and_does_not() -> None:
    court = court_of(5, failure_percentage=FailurePercentageSettings(enforcement=0))
    for index in range(5):
        serve(court, index, 100, 100 if index == 0 else 0)
    court.pass_time(10)
    assert (court.states, court.told) == ("hhhhh", [("withheld", "outlier_failure_percentage", "enforce")])


def test_the_cap_looks_at_the_share_that_is_out_now_so_one_of_five_can_go() -> None:
    """OD-05: Envoy's form of the rule would let none of fewer than ten go."""
    court = court_of(5, failure_percentage=FailurePercentageSettings())
    for index in range(5):
        serve(court, index, 100, 100 if index < 2 else 0)
    court.pass_time(10)
    assert court.states == "ehhhh"


# === intervals and times ===


def bad_interval(court: Court) -> None:
    for index, endpoint in enumerate(court.cluster.endpoints):
        if endpoint.state == 0:
            serve(court, index, 50, 50 if index == 0 else 0)
    court.pass_time(10)


def test_only_what_ended_since_the_last_judgement_counts() -> None:
    court = court_of(5, failure_percentage=FailurePercentageSettings())
    serve(court, 0, 40, 40)
    for index in range(1, 5):
        serve(court, index, 50, 0)
    court.pass_time(10)
    serve(court, 0, 40, 40)
    court.pass_time(10)
    assert court.states == "hhhhh"


def test_times_are_multiples_of_the_base_and_end_with_a_judgement() -> None:
    court = court_of(5, failure_percentage=FailurePercentageSettings(), base_ejection_time=15.0)
    bad_interval(court)
    assert (court.states, court.time_out_of(0)) == ("ehhhh", 15.0)
    court.pass_time(15)
    assert court.states == "ehhhh"  # over, but nobody looks before the interval ends
    court.pass_time(5)
    assert court.states == "phhhh"
    court.try_once(0)
    bad_interval(court)
    assert court.time_out_of(0) == 30.0


def test_a_failed_trial_goes_on_with_a50s_times() -> None:
    court = court_of(5, failure_percentage=FailurePercentageSettings())
    bad_interval(court)
    court.pass_time(40)
    court.try_once(0, 14)
    assert court.time_out_of(0) == 60.0


def test_no_time_is_longer_than_the_maximum_unless_the_base_is() -> None:
    court = court_of(5, failure_percentage=FailurePercentageSettings(), max_ejection_time=45.0)
    bad_interval(court)
    court.pass_time(40)
    court.try_once(0, 14)
    assert court.time_out_of(0) == 45.0
    court = court_of(5, failure_percentage=FailurePercentageSettings(), max_ejection_time=5.0)
    bad_interval(court)
    assert court.time_out_of(0) == 30.0


def test_each_interval_of_health_takes_one_multiple_back() -> None:
    court = court_of(5, failure_percentage=FailurePercentageSettings())
    bad_interval(court)
    court.pass_time(40)
    court.try_once(0)
    standing = court[0].standing
    assert standing is not None
    assert standing.multiplier == 1
    court.pass_time(10)
    assert standing.multiplier == 0
    court.pass_time(10)
    assert standing.multiplier == 0


# === a reload ===


def test_a_new_interval_counts_from_the_last_judgement() -> None:
    court = court_of(5, failure_percentage=FailurePercentageSettings())
    court.pass_time(4)
    rule = OutlierSettings(failure_percentage=FailurePercentageSettings(), interval=6.0)
    court.ejection.reconfigure(structs.replace(court.settings, outlier_detection=rule), None, court.now)
    assert court.ejection.next_at() == court.now + 2.0


def test_taken_away_it_brings_back_whom_it_put_out_and_forgets_the_multiples() -> None:
    court = court_of(5, failure_percentage=FailurePercentageSettings())
    bad_interval(court)
    events = court.ejection.reconfigure(structs.replace(court.settings, outlier_detection=None), None, court.now)
    assert [event.kind for event in events] == ["returned"]
    standing = court[0].standing
    assert standing is not None
    assert (court.states, standing.multiplier, court.ejection.next_at()) == ("hhhhh", 0, None)
