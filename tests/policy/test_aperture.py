"""The aperture: who stands in it, for how long, and how it opens."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.aperture import OPENING, SMALLEST, STAY, Aperture

COUNT = 200


def aperture(seed: int = 1) -> Aperture:
    return Aperture(random.Random(seed))


def standing(it: Aperture, now: float, places: int = SMALLEST) -> list[int]:
    return [it.look(place, COUNT, now) for place in range(places)]


@given(place=st.integers(0, 100_000), count=st.integers(1, 100_000), now=st.floats(0, 1e9), seed=st.integers(0, 1000))
def test_whoever_stands_there_is_one_of_them(place: int, count: int, now: float, seed: int) -> None:
    assert 0 <= aperture(seed).look(place, count, now) < count


def test_every_rpc_in_flight_opens_it_by_as_much() -> None:
    assert [aperture().width(in_flight) for in_flight in (0, 1, 5)] == [
        SMALLEST,
        SMALLEST + OPENING,
        SMALLEST + 5 * OPENING,
    ]


def test_each_place_has_one_endpoint_for_its_time_and_no_longer() -> None:
    it = aperture()
    stays = Counter[int]()
    for place in range(50):
        seen = [it.look(place, 10**9, step * STAY / 100) for step in range(1000)]
        changes = [step for step in range(1, 1000) if seen[step] != seen[step - 1]]
        assert {later - earlier for earlier, later in pairwise(changes)} <= {99, 100, 101}
        stays[len(changes)] += 1
    assert set(stays) <= {9, 10}


def test_the_places_change_one_after_the_other() -> None:
    it = aperture()
    seen = [standing(it, step * STAY / 100) for step in range(1000)]
    changed = [sum(old != new for old, new in zip(*pair, strict=True)) for pair in pairwise(seen)]
    assert max(changed) == 1


def test_all_endpoints_stand_there_equally_often() -> None:
    it = aperture()
    seen = Counter(index for turn in range(5000) for index in standing(it, turn * STAY))
    assert len(seen) == COUNT
    assert min(seen.values()) > 140 and max(seen.values()) < 270  # 200 each; five standard deviations


@pytest.mark.parametrize("other", range(2, 6))
def test_two_sidecars_stand_together_no_more_than_by_chance(other: int) -> None:
    one, two = aperture(1), aperture(other)
    shared = sum(len({*standing(one, turn * STAY)} & {*standing(two, turn * STAY)}) for turn in range(5000))
    assert shared == pytest.approx(5000 * SMALLEST**2 / COUNT, rel=0.1)


def test_the_same_seed_is_the_same_aperture() -> None:
    assert standing(aperture(3), 12.0, 50) == standing(aperture(3), 12.0, 50) != standing(aperture(4), 12.0, 50)


def test_the_compiled_form_and_the_interpreted_one_reckon_alike() -> None:
    assert standing(aperture(0), 1000.0) == [157, 100, 162, 52, 101, 47, 26, 2]
