"""How delays grow, blur and start again."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.policy.backoff import FULL, Backoff


class Middle(random.Random):
    """Dice that always show the middle, where a two-sided jitter adds nothing."""

    def random(self) -> float:
        return 0.5


def test_delays_grow_by_the_factor_up_to_the_maximum() -> None:
    backoff = Backoff(base=1, factor=2, maximum=5, jitter=0.2)
    assert [backoff.fail(Middle()) for _ in range(5)] == [1, 2, 4, 5, 5]


def test_a_success_starts_from_the_base_again() -> None:
    backoff = Backoff(base=1, factor=2, maximum=8, jitter=0)
    backoff.fail(Middle())
    backoff.fail(Middle())
    assert backoff.failures == 2
    backoff.succeed()
    assert backoff.failures == 0
    assert backoff.fail(Middle()) == 1


@settings(deadline=None)
@given(st.integers(), st.integers(1, 50))
def test_a_partial_jitter_stays_within_its_share_of_the_delay(seed: int, failures: int) -> None:
    rng = random.Random(seed)
    backoff = Backoff(base=0.1, factor=1.6, maximum=10, jitter=0.2)
    for count in range(failures):
        step = min(10, 0.1 * 1.6**count)
        assert 0.8 * step - 1e-9 <= backoff.fail(rng) <= 1.2 * step + 1e-9


def test_full_jitter_spreads_a_crowd_over_the_whole_delay() -> None:
    rng = random.Random(1)
    delays = sorted(Backoff(base=1, jitter=FULL).fail(rng) for _ in range(1000))
    assert delays[0] < 0.02 and delays[-1] > 0.98
    assert 0.4 < delays[500] < 0.6


@pytest.mark.parametrize("wrong", [{"base": 0}, {"base": 20}, {"factor": 0.5}, {"jitter": 1.5}, {"jitter": -0.1}])
def test_numbers_that_make_no_backoff_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="backoff needs"):
        Backoff(**wrong)
