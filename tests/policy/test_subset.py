"""Deterministic subsetting: A68's promise that one endpoint's coming or going changes one member at most (LB-09)."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.snapshot import Member
from sidecar.policy.subset import choose_subset


def members(count: int) -> tuple[Member, ...]:
    return tuple(Member(address=f"10.0.{n // 250}.{n % 250}:80") for n in range(count))


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 2**64 - 1), st.data())
def test_one_that_joins_or_leaves_changes_at_most_one_member(
    count: int, size: int, seed: int, data: st.DataObject
) -> None:
    everybody = members(count)
    gone = data.draw(st.sampled_from(everybody))
    before = set(map(repr, choose_subset(everybody, size, seed)))
    after = set(map(repr, choose_subset(tuple(each for each in everybody if each is not gone), size, seed)))
    assert len(before - after) <= 1 and len(after - before) <= 1
    assert len(before) == min(size, count)


@given(st.permutations(members(12)), st.integers(0, 1000))
def test_the_order_of_the_answer_decides_nothing_but_the_order(shuffled: list[Member], seed: int) -> None:
    chosen = choose_subset(tuple(shuffled), 5, seed)
    assert {each.address for each in chosen} == {each.address for each in choose_subset(members(12), 5, seed)}
    assert list(chosen) == [each for each in shuffled if each in chosen]


def test_a_small_service_is_taken_whole() -> None:
    everybody = members(5)
    assert choose_subset(everybody, 5, 1) is everybody


def test_many_sidecars_together_use_all_members_about_equally() -> None:
    counts = Counter(each.address for seed in range(500) for each in choose_subset(members(100), 20, seed))
    assert len(counts) == 100
    assert min(counts.values()) > 60 and max(counts.values()) < 140  # of 100 expected
