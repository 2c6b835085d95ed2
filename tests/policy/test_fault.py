"""Faults on purpose: who gets one, how many at a time, and until when."""

from __future__ import annotations

import random

from sidecar.policy.fault import Faults, FaultSettings
from sidecar.policy.match import MatchSettings

GET = b"/shop.Orders/Get"


def faults(*settings: FaultSettings) -> Faults:
    return Faults(settings, 100.0)


def test_the_first_fault_that_is_meant_decides() -> None:
    both = faults(
        FaultSettings(match=MatchSettings(method="/shop.Orders/Get"), percent=0.0, reset=True),
        FaultSettings(abort="UNAVAILABLE"),
    )
    rng = random.Random(1)
    assert both.choose(GET, [], rng, 101.0) is None
    other = both.choose(b"/shop.Orders/Put", [], rng, 101.0)
    assert other is both.all[1]
    assert other.status == 14


def test_chance_gives_it_to_its_share() -> None:
    some = faults(FaultSettings(percent=2.5, reset=True))
    rng = random.Random(1)
    hit = sum(some.choose(GET, [], rng, 101.0) is not None for _ in range(10_000))
    assert 200 < hit < 300


def test_it_ends_by_itself_when_its_time_is_over() -> None:
    short = faults(FaultSettings(reset=True, lasts=60.0))
    rng = random.Random(1)
    assert short.choose(GET, [], rng, 159.9) is not None
    assert short.choose(GET, [], rng, 160.0) is None
    assert short.all[0].ended(160.0)


def test_only_what_lasts_counts_against_the_cap() -> None:
    slow, quick = faults(FaultSettings(delay=1.0, max_active=2), FaultSettings(abort="INTERNAL", max_active=1)).all
    slow.active = quick.active = 2
    assert (slow.full, quick.full) == (True, False)


def test_it_says_in_words_what_it_does() -> None:
    (fault,) = faults(FaultSettings(percent=12.5, delay=0.2, abort="UNAVAILABLE", bandwidth=1000)).all
    assert str(fault) == "faults[0]: 12.5 % of all RPCs: delay 0.2s, abort UNAVAILABLE, 1000 octets/s"
