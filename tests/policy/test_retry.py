"""Whether a failure is followed by another attempt, and when: gRFC A6 as vectors (RT-01 to RT-03, RT-09, RT-11)."""

from __future__ import annotations

import random
from typing import Any

import pytest

from sidecar.policy.budget import RetryBudget, RetryThrottle
from sidecar.policy.method_settings import BudgetSettings, RetrySettings, StatusName, ThrottleSettings
from sidecar.policy.retry import Failure, GiveUp, RetryAfter, RetryPolicy
from sidecar.rpc import status as codes

UNAVAILABLE: tuple[StatusName, ...] = ("UNAVAILABLE",)


class Dice:
    """Always the same throw."""

    def __init__(self, throw: float = 0.5) -> None:
        self.throw = throw

    def random(self) -> float:
        return self.throw

    def randrange(self, stop: int, /) -> int:
        return int(self.throw * stop)


def policy(**settings: Any) -> RetryPolicy:
    return RetryPolicy(RetrySettings(**{"codes": UNAVAILABLE, "max_attempts": 4, **settings}))


def decided(
    policy: RetryPolicy,
    *,
    budget: RetryBudget | None = None,
    throttle: RetryThrottle | None = None,
    in_flight: int = 1,
    **failure: Any,
) -> RetryAfter | GiveUp:
    return policy.decide(
        Failure(**{"status": codes.UNAVAILABLE, **failure}),
        in_flight,
        budget or RetryBudget(BudgetSettings()),
        throttle,
        Dice(),
        1000.0,
    )


# === what is retried ===


@pytest.mark.parametrize(
    ("settings", "retried"),
    [
        ({}, []),
        ({"codes": UNAVAILABLE}, [14]),
        ({"idempotent": True}, [14]),
        ({"codes": ("ABORTED", "RESOURCE_EXHAUSTED")}, [8, 10]),
        ({"codes": ("ABORTED",), "idempotent": True}, [10, 14]),
    ],
)
def test_only_the_named_codes_are_retried_and_none_without_opt_in(settings: Any, retried: list[int]) -> None:
    asked = RetryPolicy(RetrySettings(**settings))
    assert [code for code in range(17) if asked.retriable(Failure(status=code))] == retried
    assert asked.useful is bool(retried)


def test_one_attempt_is_no_retry_and_more_than_five_are_five() -> None:
    assert not policy(max_attempts=1).useful
    assert policy(max_attempts=9).max_attempts == 5


def test_attempts_run_out() -> None:
    answers = [decided(policy(max_attempts=3), retries=made) for made in range(3)]
    assert [type(answer) for answer in answers] == [RetryAfter, RetryAfter, GiveUp]
    assert answers[2] == GiveUp("attempts")


def test_an_attempts_own_timeout_is_retried_whatever_the_codes() -> None:
    failure = {"status": codes.DEADLINE_EXCEEDED, "timed_out": True}
    assert isinstance(decided(policy(), **failure), RetryAfter)
    assert decided(policy(), status=codes.DEADLINE_EXCEEDED) == GiveUp("not_retriable")


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        ({"committed": True}, "committed"),
        ({"caller_retries": True}, "caller"),
        ({"pushback": -1}, "pushback"),
        ({"status": codes.NOT_FOUND, "pushback": -1}, "not_retriable"),
        ({"status": codes.NOT_FOUND, "committed": True}, "not_retriable"),
    ],
)
def test_a_failure_that_stands_says_why(failure: dict[str, Any], reason: str) -> None:
    assert decided(policy(), **failure) == GiveUp(reason)


# === when ===


@pytest.mark.parametrize(("step", "delay"), [(0, 0.1), (1, 0.2), (2, 0.4), (3, 0.5), (9, 0.5)])
def test_backoff_doubles_up_to_its_maximum(step: int, delay: float) -> None:
    asked = policy(backoff_base=0.1, backoff_factor=2.0, backoff_max=0.5)
    assert asked.backoff(step, Dice()) == pytest.approx(delay)
    assert asked.backoff(step, Dice(0.0)) == pytest.approx(0.8 * delay)
    assert asked.backoff(step, Dice(0.999999)) == pytest.approx(1.2 * delay, rel=1e-3)


def test_backoff_is_spread_evenly() -> None:
    rng = random.Random(3)
    delays = [policy(backoff_base=1.0, backoff_max=1.0).backoff(0, rng) for _ in range(2000)]
    assert 0.8 <= min(delays) < 0.81
    assert 1.19 < max(delays) <= 1.2
    assert sum(delays) / len(delays) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("milliseconds", [0, 1, 2500])
def test_pushback_is_waited_for_exactly(milliseconds: int) -> None:
    assert decided(policy(), pushback=milliseconds, step=2) == RetryAfter(milliseconds / 1000)


def test_a_wait_that_outlasts_the_deadline_is_not_begun() -> None:
    budget = RetryBudget(BudgetSettings())
    assert decided(policy(backoff_base=0.1), remaining=0.1, budget=budget) == GiveUp("deadline")
    assert decided(policy(), remaining=2.5, pushback=2500, budget=budget) == GiveUp("deadline")
    assert budget.active == 0
    assert isinstance(decided(policy(backoff_base=0.1), remaining=0.11), RetryAfter)


# === how often ===


def test_the_throttle_stops_retries_at_half_of_its_tokens_and_each_success_gives_a_part_back() -> None:
    throttle = RetryThrottle(ThrottleSettings(max_tokens=10, token_ratio=0.5))
    answers = [decided(policy(), throttle=throttle) for _ in range(5)]
    assert [type(answer) for answer in answers] == [RetryAfter] * 4 + [GiveUp]
    assert answers[4] == GiveUp("throttle")
    assert throttle.tokens == 5
    for _ in range(3):
        throttle.succeed()
    assert isinstance(decided(policy(), throttle=throttle), RetryAfter)


def test_what_costs_a_token_is_a_retriable_failure_or_a_plea_not_to_retry() -> None:
    throttle = RetryThrottle(ThrottleSettings(max_tokens=100, token_ratio=0.1))
    decided(policy(), throttle=throttle, status=codes.NOT_FOUND)
    assert throttle.tokens == 100
    decided(policy(), throttle=throttle, status=codes.NOT_FOUND, pushback=-1)
    assert throttle.tokens == 99
    decided(policy(), throttle=throttle, committed=True)
    assert throttle.tokens == 98
    for _ in range(3):
        decided(policy(), throttle=throttle, lost=True)
    assert throttle.tokens == 97


def test_no_place_in_the_budget_is_no_retry() -> None:
    budget = RetryBudget(BudgetSettings(ratio=0.2, floor=1))
    assert isinstance(decided(policy(), budget=budget), RetryAfter)
    assert decided(policy(), budget=budget) == GiveUp("budget")
