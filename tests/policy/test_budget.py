"""How much of the load may be retries and hedges (RT-03, RT-12)."""

from __future__ import annotations

import random

import pytest

from sidecar.policy.budget import HedgeBudget, RetryBudget, RetryThrottle
from sidecar.policy.method_settings import BudgetSettings, ThrottleSettings

NOW = 1000.0


@pytest.mark.parametrize(("in_flight", "allowed"), [(0, 3), (10, 3), (18, 3), (24, 4), (120, 20), (1200, 200)])
def test_retries_are_a_fifth_of_what_is_no_retry_and_never_less_than_the_floor(in_flight: int, allowed: int) -> None:
    budget = RetryBudget(BudgetSettings())
    for _ in range(in_flight):
        budget.begin(NOW)
    assert sum(budget.take(in_flight, NOW) for _ in range(1000)) == allowed
    assert budget.active == allowed


def test_a_place_that_is_given_back_can_be_taken_again() -> None:
    budget = RetryBudget(BudgetSettings(ratio=0.0, floor=1))
    assert budget.take(100, NOW)
    assert not budget.take(100, NOW)
    budget.give_back()
    assert budget.take(100, NOW)


def test_no_floor_and_no_ratio_is_no_retry() -> None:
    assert not RetryBudget(BudgetSettings(ratio=0.0, floor=0)).take(1000, NOW)


@pytest.mark.parametrize(("rate", "seconds"), [(5, 20), (100, 10), (1000, 10)])
def test_where_everything_fails_fast_a_fifth_is_retried_and_ten_a_second(rate: int, seconds: int) -> None:
    budget = RetryBudget(BudgetSettings())
    retries = 0
    for number in range(rate * seconds):
        now = NOW + number / rate
        budget.begin(now)
        while budget.take(1, now):  # it fails, again and again, and each time at once
            budget.give_back()
            retries += 1
    offered = rate * seconds
    assert 0.2 * offered <= retries <= 0.2 * offered + 10 * (seconds + 2)


def test_what_was_saved_up_lasts_for_two_seconds() -> None:
    budget = RetryBudget(BudgetSettings(floor=100))
    for _ in range(1000):
        budget.begin(NOW)
    assert sum(budget.take(1, NOW + 1.9) for _ in range(500)) == 100
    for _ in range(100):
        budget.give_back()
    assert sum(budget.take(1, NOW + 4.0) for _ in range(500)) == 20


def test_tokens_stay_between_nothing_and_their_most() -> None:
    throttle = RetryThrottle(ThrottleSettings(max_tokens=2, token_ratio=0.7))
    throttle.succeed()
    assert throttle.tokens == 2
    for _ in range(5):
        throttle.fail()
    assert throttle.tokens == 0
    throttle.succeed()
    throttle.succeed()
    assert throttle.tokens == pytest.approx(1.4)
    assert throttle.open


def retries_while(throttle: RetryThrottle, failing: float, attempts: int, seed: int = 7) -> float:
    """The share of failed attempts that the throttle lets be retried, while this share of all attempts fails."""
    rng = random.Random(seed)
    failed = allowed = 0
    for _ in range(attempts):
        if rng.random() < failing:
            throttle.fail()
            failed += 1
            allowed += throttle.open
        else:
            throttle.succeed()
    return allowed / failed


def test_a_total_failure_costs_fewer_retries_than_half_of_the_tokens() -> None:
    throttle = RetryThrottle(ThrottleSettings())
    assert retries_while(throttle, 1.0, 10_000) * 10_000 == 9
    assert throttle.most == 20


@pytest.mark.parametrize(
    ("failing", "least", "most"), [(0.2, 1.0, 1.0), (0.4, 0.95, 1.0), (0.6, 0.0, 0.05), (0.8, 0.0, 0.001)]
)
def test_retries_pause_while_more_than_half_of_the_attempts_fail(failing: float, least: float, most: float) -> None:
    assert least <= retries_while(RetryThrottle(ThrottleSettings()), failing, 100_000) <= most


def test_a_ratio_of_a_tenth_pauses_retries_while_more_than_an_eleventh_fails() -> None:
    settings = ThrottleSettings(max_tokens=10, token_ratio=0.1)  # the example of gRFC A6
    assert retries_while(RetryThrottle(settings), 0.05, 100_000) > 0.9
    assert retries_while(RetryThrottle(settings), 0.13, 100_000) < 0.1


def test_eleven_successes_reopen_what_a_total_failure_has_closed() -> None:
    throttle = RetryThrottle(ThrottleSettings())
    retries_while(throttle, 1.0, 1000)
    seen = []
    for _ in range(11):
        throttle.succeed()
        seen.append(throttle.open)
    assert seen == [False] * 10 + [True]


def test_while_retries_pause_it_says_so() -> None:
    throttle = RetryThrottle(ThrottleSettings(max_tokens=4))
    throttle.fail()
    assert throttle.note == ""
    throttle.fail()
    assert throttle.note == (
        "retries and hedges pause, since attempts fail: 2 of 4 tokens are left, and a retry needs more than half"
    )


def test_rpcs_that_are_lost_with_one_connection_are_one_failure() -> None:
    throttle = RetryThrottle(ThrottleSettings())
    for _ in range(500):
        throttle.fail(lost_at=NOW)
    assert throttle.tokens == 19
    throttle.fail(lost_at=NOW + 0.001)
    assert throttle.tokens == 18


def test_the_ratio_keeps_three_decimals() -> None:
    assert RetryThrottle(ThrottleSettings(token_ratio=0.12345)).ratio == 0.123


def test_hedges_are_a_twentieth_of_the_rpcs_however_they_come() -> None:
    budget = HedgeBudget(0.05)
    hedges = 0
    for number in range(10_000):
        budget.earn()
        if number > 1000:  # everything is slow from here on
            hedges += budget.spend()
    assert hedges <= 0.05 * 10_000
    assert hedges >= 0.05 * 9000


def test_a_quiet_hour_saves_no_more_than_ten_hedges() -> None:
    budget = HedgeBudget(0.05)
    for _ in range(100_000):
        budget.earn()
    assert sum(budget.spend() for _ in range(100)) == 10
