"""When an RPC is sent elsewhere too: a fixed delay or a learned one, and why it may not be (RT-10, F11)."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.policy.budget import RetryThrottle
from sidecar.policy.hedge import HedgePace, HedgePolicy
from sidecar.policy.method import MethodTable, merged
from sidecar.policy.method_settings import HedgeSettings, MethodSettings, RetrySettings, ThrottleSettings


def pace(**settings: Any) -> HedgePace:
    return HedgePace(HedgePolicy(HedgeSettings(**settings)))


def test_a_fixed_delay_needs_no_learning() -> None:
    assert pace(delay=0.25).delay(0.0) == 0.25


def test_an_unset_delay_is_the_95th_percentile_once_a_hundred_answers_were_seen() -> None:
    learning = pace()
    for number in range(100):
        assert learning.delay(1.0 + number) is None
        learning.observe(0.010 if number % 20 else 1.0, 1.0)
    assert learning.delay(200.0) == pytest.approx(0.010, rel=1 / 8)


def test_what_was_learned_is_forgotten_within_two_windows() -> None:
    learning = pace()
    now = 100.0
    for _ in range(3000):
        learning.observe(0.100, now)
        now += 0.01
    assert learning.delay(now) == pytest.approx(0.100, rel=1 / 8)
    for _ in range(3000):
        learning.observe(0.010, now)
        now += 0.01
    assert learning.delay(now) == pytest.approx(0.010, rel=1 / 8)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [((2, False, False), "attempts"), ((1, True, False), "pushback"), ((1, False, True), "caller")],
)
def test_a_hedge_that_is_not_made_has_a_reason(asked: tuple[int, bool, bool], reason: str) -> None:
    saving = pace(ratio=1.0)
    saving.budget.earn()
    assert saving.refusal(*asked, None) == reason
    assert saving.refusal(1, False, False, None) == ""
    assert saving.refusal(1, False, False, None) == "budget"


def test_the_throttle_of_retries_holds_for_hedges() -> None:
    saving = pace(ratio=1.0)
    saving.budget.earn()
    throttle = RetryThrottle(ThrottleSettings(max_tokens=2))
    throttle.fail()
    assert saving.refusal(1, False, False, throttle) == "throttle"


def test_more_than_five_attempts_are_five() -> None:
    assert HedgePolicy(HedgeSettings(max_attempts=9)).max_attempts == 5


def test_a_method_is_governed_by_what_it_gives_itself() -> None:
    retry, hedge = RetrySettings(idempotent=True), HedgeSettings(delay=0.1)
    assert merged(MethodSettings(retry=retry), MethodSettings(hedge=hedge)) == MethodSettings(hedge=hedge)
    assert merged(MethodSettings(hedge=hedge), MethodSettings(retry=retry)) == MethodSettings(retry=retry)
    assert merged(MethodSettings(hedge=hedge), MethodSettings()) == MethodSettings(hedge=hedge)


def test_one_attempt_turns_hedging_off() -> None:
    own = MethodSettings(hedge=HedgeSettings())
    table = MethodTable(own, {"/a.B/*": MethodSettings(hedge=HedgeSettings(max_attempts=1))})
    assert table.find(b"/a.B/C").hedge is None
    assert table.find(b"/a.C/C").hedge is not None
