"""The limits of an upstream together: which refuses, what it says, and that a refusal counts against none."""

from __future__ import annotations

import random

from sidecar.policy.admission import Admission
from sidecar.policy.concurrency import Concurrency, ConcurrencySettings
from sidecar.policy.rate import Rate, RateSettings


def rate(per_second: float) -> Rate:
    return Rate(RateSettings(per_second=per_second, burst=1), "methods./shop.Orders/Put.rate")


def test_a_rate_is_refused_as_exhausted_with_the_time_to_come_again() -> None:
    admission, limit = Admission("orders", None), rate(4)
    assert admission.admit(limit, 1, 100.0) is None
    refusal = admission.admit(limit, 2, 100.05)
    assert refusal is not None
    assert (refusal.reason, refusal.status, refusal.pushback) == ("rate_limit", 8, 0.2)
    assert refusal.text == (
        "orders: the limit of 4 RPCs/s (burst 1) is reached (methods./shop.Orders/Put.rate);"
        " come again in 200 ms, or raise the limit"
    )


def test_the_adaptive_limit_refuses_as_unavailable_and_names_itself() -> None:
    adaptive = Concurrency(ConcurrencySettings(max_limit=3, min_limit=1), random.Random(1))
    admission, limit = Admission("orders", adaptive), rate(1)
    refusal = admission.admit(limit, 4, 100.0)
    assert refusal is not None
    assert (refusal.reason, refusal.status) == ("concurrency_limit", 14)
    assert refusal.text.startswith("orders: 3 RPCs are in flight, and it bears no more at present (limits.adaptive")
    assert admission.admit(limit, 3, 100.0) is None  # what was refused has not counted against the rate
