"""How much of the load may be retries and hedges (RT-03, RT-12)."""

from __future__ import annotations

import pytest

from sidecar.policy.budget import HedgeBudget, RetryBudget, RetryThrottle
from sidecar.policy.method_settings import BudgetSettings, ThrottleSettings


@pytest.mark.parametrize(("in_flight", "allowed"), [(0, 3), (10, 3), (18, 3), (24, 4), (120, 20), (1200, 200)])
def test_retries_are_a_fifth_of_what_is_no_retry_and_never_less_than_the_floor(in_flight: int, allowed: int) -> None:
    budget = RetryBudget(BudgetSettings())
    assert sum(budget.take(in_flight) for _ in range(1000)) == allowed
    assert budget.active == allowed


def test_a_place_that_is_given_back_can_be_taken_again() -> None:
    budget = RetryBudget(BudgetSettings(ratio=0.0, floor=1))
    assert budget.take(100)
    assert not budget.take(100)
    budget.give_back()
    assert budget.take(100)


def test_no_floor_and_no_ratio_is_no_retry() -> None:
    assert not RetryBudget(BudgetSettings(ratio=0.0, floor=0)).take(1000)


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
