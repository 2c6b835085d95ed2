"""Which answers are believed: the empty, the shrunken, the withdrawn, and what an outage does to a doubt."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.policy.membership import (
    ABSENCE_HELD,
    BELIEVED,
    EMPTY_HELD,
    GIVEN_UP,
    REMOVAL_HELD,
    UNCHANGED,
    Membership,
)
from sidecar.policy.snapshot import SUSPECT, Member, Snapshot

GRACE = 30.0


def answer(*addresses: str, withdrawn: tuple[str, ...] = ()) -> Snapshot:
    members = tuple(Member(address=address) for address in addresses)
    return Snapshot(service="orders", members=members, source="consul", withdrawn=withdrawn)


def addresses(snapshot: Snapshot | None) -> list[str]:
    assert snapshot is not None
    return [member.address for member in snapshot.members]


def suspects(snapshot: Snapshot | None) -> list[str]:
    assert snapshot is not None
    return [member.address for member in snapshot.members if member.status == SUSPECT]


def membership(*believed: str) -> Membership:
    known = Membership(empty_grace=GRACE, removal_guard=0.5)
    if believed:
        assert known.on_answer(answer(*believed), 0).reason == BELIEVED
    return known


def test_the_first_answer_is_believed_even_if_it_is_empty() -> None:
    decision = membership().on_answer(answer(), 0)
    assert decision.reason == BELIEVED
    assert addresses(decision.snapshot) == []


def test_the_same_answer_again_changes_nothing() -> None:
    assert membership("a:1").on_answer(answer("a:1"), 1).reason == UNCHANGED


def test_an_empty_answer_after_a_full_one_leaves_the_list_as_it_is() -> None:
    known = membership("a:1", "b:1")
    decision = known.on_answer(answer(), 100)
    assert (decision.reason, decision.snapshot) == (EMPTY_HELD, None)
    assert "lists none: 2 instance(s) are kept as they were" in decision.text
    assert known.recheck_at == 130


def test_an_answer_that_stays_empty_for_the_grace_is_believed() -> None:
    known = membership("a:1")
    known.on_answer(answer(), 100)
    known.on_answer(answer(), 120)
    assert known.on_time(129.9).reason == UNCHANGED
    decision = known.on_time(130)
    assert decision.reason == GIVEN_UP
    assert addresses(decision.snapshot) == []
    assert known.recheck_at is None


def test_instances_that_return_within_the_grace_were_never_away() -> None:
    known = membership("a:1")
    known.on_answer(answer(), 100)
    assert known.on_answer(answer("a:1"), 110).reason == UNCHANGED
    assert known.recheck_at is None
    assert known.on_time(200).reason == UNCHANGED


def test_an_outage_begins_the_grace_of_an_empty_answer_anew() -> None:
    known = membership("a:1")
    known.on_answer(answer(), 100)
    known.on_outage()
    assert known.on_time(1000).reason == UNCHANGED
    assert known.on_answer(answer(), 1000).reason == UNCHANGED
    assert known.recheck_at == 1000 + GRACE


def test_who_returns_first_after_an_empty_answer_does_not_push_the_others_out() -> None:
    """An agent that has lost everything is told again by one instance after the other."""
    known = membership("a:1", "b:1", "c:1")
    known.on_answer(answer(), 100)
    for present in (("b:1",), ("b:1", "c:1")):
        assert known.on_answer(answer(*present), 105).reason == UNCHANGED
    decision = known.on_time(130)
    assert (decision.reason, addresses(decision.snapshot)) == (GIVEN_UP, ["b:1", "c:1"])
    assert "1 instance(s) stayed away and are given up, 2 left: a:1" in decision.text


def test_somebody_new_is_welcome_while_the_absent_are_waited_for() -> None:
    known = membership("a:1")
    known.on_answer(answer(), 100)
    assert addresses(known.on_answer(answer("b:1"), 101).snapshot) == ["b:1", "a:1"]


def test_absence_right_after_an_outage_proves_nothing_for_a_grace() -> None:
    known = membership("a:1", "b:1", "c:1")
    known.on_outage()
    decision = known.on_answer(answer("a:1", "b:1"), 100)
    assert (decision.reason, decision.snapshot) == (ABSENCE_HELD, None)
    decision = known.on_time(130)
    assert (decision.reason, addresses(decision.snapshot)) == (GIVEN_UP, ["a:1", "b:1"])


def test_an_outage_that_changed_nothing_leaves_no_doubt() -> None:
    known = membership("a:1", "b:1", "c:1")
    known.on_outage()
    assert known.on_answer(answer("a:1", "b:1", "c:1"), 100).reason == UNCHANGED
    assert addresses(known.on_answer(answer("a:1", "b:1"), 101).snapshot) == ["a:1", "b:1"]


def test_suspects_keep_their_own_time_when_the_answer_turns_empty() -> None:
    known = membership("a:1", "b:1", "c:1")
    known.on_answer(answer("b:1"), 10)
    assert known.on_answer(answer(), 20).reason == EMPTY_HELD
    assert suspects(known.on_time(50).snapshot) == ["a:1", "c:1"]
    assert addresses(known.on_time(70).snapshot) == []


def test_who_comes_and_goes_within_a_doubt_has_a_grace_of_its_own() -> None:
    known = membership("a:1")
    known.on_answer(answer(), 100)
    known.on_answer(answer("b:1"), 110)
    known.on_answer(answer(), 120)
    assert addresses(known.on_time(130).snapshot) == ["b:1"]
    assert addresses(known.on_time(150).snapshot) == []


def test_a_doubt_ends_with_its_grace_however_many_come_and_go() -> None:
    known = membership("a:1", "b:1", "c:1", "d:1")
    known.on_answer(answer(), 100)
    known.on_answer(answer("b:1", "c:1", "d:1"), 110)
    known.on_time(130)
    assert addresses(known.on_answer(answer("c:1", "d:1"), 131).snapshot) == ["c:1", "d:1"]


def test_a_grace_of_zero_believes_an_empty_answer_at_once() -> None:
    known = Membership(empty_grace=0, removal_guard=0.5)
    known.on_answer(answer("a:1", "b:1", "c:1"), 0)
    assert addresses(known.on_answer(answer("a:1"), 1).snapshot) == ["a:1"]
    assert addresses(known.on_answer(answer(), 2).snapshot) == []


def test_a_removal_of_half_is_believed_at_once() -> None:
    decision = membership("a:1", "b:1").on_answer(answer("a:1"), 10)
    assert decision.reason == BELIEVED
    assert addresses(decision.snapshot) == ["a:1"]


def test_a_removal_of_more_than_half_keeps_the_removed_as_a_last_resort() -> None:
    decision = membership("a:1", "b:1", "c:1").on_answer(answer("b:1"), 10)
    assert decision.reason == REMOVAL_HELD
    assert addresses(decision.snapshot) == ["b:1", "a:1", "c:1"]
    assert suspects(decision.snapshot) == ["a:1", "c:1"]
    assert "2 of 3 instance(s) vanished at once" in decision.text


def test_suspects_are_given_up_after_two_graces() -> None:
    known = membership("a:1", "b:1", "c:1")
    known.on_answer(answer("b:1"), 10)
    assert known.recheck_at == 10 + 2 * GRACE
    assert known.on_time(69.9).reason == UNCHANGED
    decision = known.on_time(70)
    assert decision.reason == GIVEN_UP
    assert addresses(decision.snapshot) == ["b:1"]


def test_a_suspect_that_returns_is_trusted_again() -> None:
    known = membership("a:1", "b:1", "c:1")
    known.on_answer(answer("b:1"), 10)
    decision = known.on_answer(answer("a:1", "b:1"), 20)
    assert addresses(decision.snapshot) == ["a:1", "b:1", "c:1"]
    assert suspects(decision.snapshot) == ["c:1"]


def test_suspects_do_not_count_when_the_next_removal_is_judged() -> None:
    known = membership("a:1", "b:1", "c:1", "d:1", "e:1")
    known.on_answer(answer("a:1", "b:1"), 10)
    decision = known.on_answer(answer("a:1"), 11)
    assert suspects(decision.snapshot) == ["c:1", "d:1", "e:1"]
    assert addresses(decision.snapshot)[0] == "a:1"
    assert "b:1" not in addresses(decision.snapshot)


def test_an_outage_stops_the_clock_of_suspects_and_the_next_answer_starts_it_again() -> None:
    known = membership("a:1", "b:1", "c:1")
    known.on_answer(answer("b:1"), 10)
    known.on_outage()
    assert known.recheck_at is None
    assert known.on_time(10_000).reason == UNCHANGED
    known.on_answer(answer("b:1"), 20_000)
    assert known.recheck_at == 20_000 + 2 * GRACE


def test_a_guard_of_one_believes_every_removal_but_the_last() -> None:
    known = Membership(empty_grace=GRACE, removal_guard=1)
    known.on_answer(answer("a:1", "b:1", "c:1"), 0)
    assert suspects(known.on_answer(answer("a:1"), 1).snapshot) == []
    assert known.on_answer(answer(), 2).reason == EMPTY_HELD


def test_maintenance_of_the_only_instance_is_believed_at_once() -> None:
    decision = membership("a:1").on_answer(answer(withdrawn=("a:1",)), 10)
    assert addresses(decision.snapshot) == []


def test_maintenance_of_many_is_no_mass_removal() -> None:
    decision = membership("a:1", "b:1", "c:1").on_answer(answer("c:1", withdrawn=("a:1", "b:1")), 10)
    assert decision.reason == BELIEVED
    assert addresses(decision.snapshot) == ["c:1"]


def test_maintenance_within_a_doubtful_empty_answer_still_removes() -> None:
    known = membership("a:1", "b:1")
    decision = known.on_answer(answer(withdrawn=("a:1",)), 10)
    assert decision.reason == EMPTY_HELD
    assert addresses(decision.snapshot) == ["b:1"]


def test_a_restored_list_is_what_the_first_answer_is_judged_by() -> None:
    known = membership()
    known.restore(answer("a:1"))
    assert known.on_answer(answer(), 0).reason == EMPTY_HELD


SERVERS = [f"{letter}:1" for letter in "abcdefgh"]
LISTS = st.lists(st.sampled_from(SERVERS), unique=True)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("answer"), LISTS, LISTS),
        st.tuples(st.just("outage"), st.just([]), st.just([])),
        st.tuples(st.just("pass"), st.just([]), st.just([])),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(EVENTS, st.lists(st.floats(0, 50), min_size=40, max_size=40), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_whatever_happens_no_member_is_lost_without_its_reason(
    events: list[tuple[str, list[str], list[str]]], pauses: list[float], guard: float
) -> None:
    """What is believed holds all that was answered, nothing twice, nothing withdrawn; none goes without a reason."""
    known = Membership(empty_grace=GRACE, removal_guard=guard)
    believed: list[str] = []
    absent_since: dict[str, float] = {}
    now = 0.0
    for (kind, present, out), pause in zip(events, pauses, strict=False):
        now += pause
        withdrawn = tuple(address for address in out if address not in present)
        if kind == "outage":
            known.on_outage()
            absent_since = {}
            continue
        if kind == "answer":
            decision = known.on_answer(answer(*present, withdrawn=withdrawn), now)
            absent_since = {a: absent_since.get(a, now) for a in believed if a not in present}
        else:
            decision = known.on_time(now)
        if decision.snapshot is not None:
            assert decision.snapshot is known.believed
        before, believed = believed, addresses(known.believed) if known.believed else []
        assert len(believed) == len(set(believed))
        lost = set(before) - set(believed)
        if kind == "answer":
            assert set(present) <= set(believed) and not set(withdrawn) & set(believed)
            assert present or lost <= set(withdrawn), "an empty answer takes away only what was withdrawn"
            assert len(lost - set(withdrawn)) <= guard * len(before), "no answer takes away more than the guard allows"
        else:
            assert all(now - absent_since[address] >= GRACE for address in lost), "time takes away only the long absent"
