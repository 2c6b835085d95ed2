"""When the event loop is late: what counts as overload, how much is refused, and that it settles."""

from __future__ import annotations

from itertools import pairwise

from sidecar.policy.shedding import EASING, MOST, STANDING, STEP, OverloadSettings, Shedder


def shedder(max_lag: float = 0.1) -> Shedder:
    return Shedder(OverloadSettings(max_lag=max_lag))


def late(shedding: Shedder, *lags: float) -> float:
    for lag in lags:
        shedding.note(lag)
    return shedding.share


def test_one_long_pause_is_no_overload() -> None:
    shedding = shedder()
    assert late(shedding, 0.0, 0.0, 30.0, 0.0, 0.0) == 0.0
    assert late(shedding, *[5.0] * (STANDING - 1), 0.01) == 0.0
    assert not shedding.active


def test_a_standing_lag_refuses_a_share_that_grows_up_to_a_limit() -> None:
    shedding = shedder()
    assert late(shedding, *[0.2] * STANDING) == STEP
    assert shedding.active
    assert late(shedding, 0.2) == 2 * STEP
    assert late(shedding, *[0.2] * 100) == MOST


def test_the_share_shrinks_step_by_step_and_between_the_two_marks_it_stays() -> None:
    shedding = shedder()
    late(shedding, *[0.2] * (STANDING + 2))
    held = shedding.share
    assert late(shedding, 0.07, 0.09, 0.06) == held
    assert late(shedding, 0.04) == held - EASING
    assert late(shedding, *[0.0] * 5) == 0.0
    assert not shedding.active


def test_the_refused_are_spread_evenly() -> None:
    shedding = shedder()
    late(shedding, *[0.2] * (STANDING + 1))
    refused = [shedding.refuses() for _ in range(100)]
    assert sum(refused) in (19, 20)
    assert not any(first and second for first, second in pairwise(refused))


def test_without_a_limit_nothing_is_ever_refused() -> None:
    assert late(shedder(0.0), *[60.0] * 20) == 0.0


def test_load_above_what_the_loop_can_do_settles_instead_of_swinging() -> None:
    """A loop that can do 100 per heartbeat gets 160: what is left over makes the next heartbeat late."""
    shedding = shedder()
    backlog, shares, lags = 0.0, [], []
    for _ in range(400):
        accepted = sum(not (shedding.active and shedding.refuses()) for _ in range(160))
        backlog = max(0.0, backlog + accepted - 100)
        lags.append(backlog / 400)  # seconds: 100 take a heartbeat of 0.25 s
        shedding.note(lags[-1])
        shares.append(shedding.share)
    assert max(lags[50:]) < 0.35
    assert 0.3 < sum(shares[50:]) / len(shares[50:]) < 0.45  # 60 of 160 must go
