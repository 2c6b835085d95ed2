"""A limit per second: what passes at once, what passes in time, and what the refused are told."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.rate import Rate, RateSettings


def limit(per_second: float, burst: int = 1) -> Rate:
    return Rate(RateSettings(per_second=per_second, burst=burst), "limits.rate")


def taken(rate: Rate, now: float) -> bool:
    if rate.wait(now):
        return False
    rate.count(now)
    return True


def test_a_burst_passes_at_once_and_then_one_per_interval() -> None:
    rate = limit(10, burst=3)
    assert [taken(rate, 100.0) for _ in range(4)] == [True, True, True, False]
    assert [taken(rate, 100.0 + 0.1 * step) for step in range(1, 4)] == [True, True, True]
    assert not taken(rate, 100.35)


def test_the_refused_are_told_the_moment_at_which_one_passes() -> None:
    rate = limit(4, burst=2)
    assert [taken(rate, 10.0), taken(rate, 10.0)] == [True, True]
    assert rate.wait(10.0) == 0.25
    assert rate.wait(10.1) == 0.25 - (10.1 - 10.0)
    assert taken(rate, 10.25)


def test_a_refused_rpc_uses_nothing_up() -> None:
    rate = limit(1)
    assert taken(rate, 0.0)
    assert not any(taken(rate, 0.5) for _ in range(100))
    assert taken(rate, 1.0)


def test_an_unused_limit_saves_no_more_than_its_burst() -> None:
    rate = limit(100, burst=5)
    assert taken(rate, 0.0)
    assert sum(taken(rate, 3600.0) for _ in range(20)) == 5


@given(st.integers(1, 1000), st.integers(1, 50), st.integers(0, 2**32))
def test_no_stretch_of_time_sees_more_than_its_rate_and_one_burst(per_second: int, burst: int, seed: int) -> None:
    rate, rng = limit(per_second, burst), random.Random(seed)
    now, passed = 50.0, []
    for _ in range(300):
        now += rng.expovariate(per_second * 3)
        if taken(rate, now):
            passed.append(now)
    for index, start in enumerate(passed):
        for further, end in enumerate(passed[index:], 1):
            assert further <= burst + (end - start) * per_second + 1e-3
