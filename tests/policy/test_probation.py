"""How long an endpoint is out and how it comes back: the table, the growing times, the one RPC (E10, D8, RL-45)."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from sidecar.policy.balancer import PickContext
from sidecar.policy.ejection import EJECT, EXPIRE, FAIL, LIFT, PASS
from sidecar.policy.endpoint import EJECTED, HEALTHY, PROBATION, READY, TRANSIENT_FAILURE
from sidecar.rpc import status as codes
from sidecar.rpc.outcome import CANCELLED
from tests.policy.court import Court

# === the table ===

LEGAL = {
    (HEALTHY, EJECT): EJECTED,
    (EJECTED, EXPIRE): PROBATION,
    (EJECTED, LIFT): HEALTHY,
    (PROBATION, PASS): HEALTHY,
    (PROBATION, FAIL): EJECTED,
    (PROBATION, LIFT): HEALTHY,
}


@pytest.mark.parametrize(
    ("state", "event"), list(itertools.product((HEALTHY, EJECTED, PROBATION), (EJECT, EXPIRE, PASS, FAIL, LIFT)))
)
def test_every_move_is_in_the_table_and_what_is_not_is_an_error(state: int, event: int) -> None:
    court = Court()
    court.cluster.set_state(court[0], state, "told", court.now)
    if (state, event) in LEGAL:
        court.ejection._move(court[0], event, "told", court.now)
        assert court[0].state == LEGAL[state, event]
    else:
        with pytest.raises(RuntimeError, match="cannot take input"):
            court.ejection._move(court[0], event, "told", court.now)


# === for how long ===


def test_second_ejection_lasts_twice_as_long_and_no_later_one_more_than_a_minute() -> None:
    court = Court(consecutive_failures=1)
    court.fail(0)
    lengths = [court.time_out_of(0)]
    for _ in range(9):
        court.pass_time(lengths[-1])
        court.try_once(0, codes.UNAVAILABLE)
        lengths.append(court.time_out_of(0))
    assert lengths == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]


def test_jitter_adds_up_to_a_half() -> None:
    lengths = []
    for seed in range(200):
        court = Court(consecutive_failures=1, jitter=0.5, seed=seed)
        court.fail(0)
        lengths.append(court.time_out_of(0))
    assert 1.0 <= min(lengths) < 1.02
    assert 1.48 < max(lengths) <= 1.5


def test_health_in_between_takes_the_doublings_back_one_in_ten_seconds() -> None:
    court = Court(consecutive_failures=1)
    court.fail(0)
    for _ in range(3):
        court.pass_time(court.time_out_of(0))
        court.try_once(0, codes.UNAVAILABLE)
    assert court.time_out_of(0) == 8
    court.pass_time(8)
    court.try_once(0)
    court.pass_time(25)
    court.fail(0)
    assert court.time_out_of(0) == 4  # 16, less two of them
    court.pass_time(4)
    court.try_once(0)
    court.pass_time(3600)
    court.fail(0)
    assert court.time_out_of(0) == 1


def test_failing_again_right_after_a_trial_is_no_new_beginning() -> None:
    court = Court(consecutive_failures=1)
    for expected in (1, 2, 4, 8):
        court.fail(0)
        assert court.time_out_of(0) == expected
        court.pass_time(expected)
        court.try_once(0)


# === the trial ===


def test_after_its_time_the_next_rpc_goes_there_and_a_success_brings_it_back_slowly() -> None:
    court = Court(slow_start=10.0)
    court.fail(0, 5)
    court.pass_time(0.99)
    assert court.states == "ehh"
    assert court[0] not in [court.cluster.pick(None, court.now) for _ in range(4)]
    court.pass_time(0.01)
    assert court.states == "phh"
    court.try_once(0)
    assert court.states == "hhh"
    assert court[0].warm_at == court.now + 10.0
    assert [kind for kind, _, _ in court.told] == ["ejected", "probation", "returned"]
    assert court.events[1].text == "10.0.0.0:80 was out for 1.0s; one RPC goes there to try it"
    assert court.events[2].text == "10.0.0.0:80 is back: its trial RPC succeeded"


def test_a_failed_trial_puts_it_out_again_and_says_so() -> None:
    court = Court()
    court.fail(0, 5)
    court.pass_time(1)
    court.try_once(0, codes.INTERNAL)
    assert court.told[-1] == ("ejected", "failed_trial", "")
    assert court[0].reason == "its trial RPC failed with INTERNAL"


def test_a_trial_needs_no_cap_and_no_peer_to_fail() -> None:
    court = Court(2)
    court.fail(0, 5)
    court.fail(1, 5)
    court.pass_time(1)
    court.try_once(0, codes.UNAVAILABLE)
    assert court.states == "eh"


def test_only_one_rpc_at_a_time_is_sent_there() -> None:
    court = Court()
    court.fail(0, 5)
    court.pass_time(1)
    assert court.cluster.pick(None, court.now) is court[0]
    court.ejection.begin_trial(court[0], court.now)
    assert court[0] not in [court.cluster.pick(None, court.now) for _ in range(10)]


def test_a_trial_that_the_app_gave_up_on_is_followed_by_another() -> None:
    court = Court()
    court.fail(0, 5)
    court.pass_time(1)
    court.ejection.begin_trial(court[0], court.now)
    court.ignore(0, CANCELLED)
    assert court.states == "phh"
    court.try_once(0)
    assert court.states == "hhh"


def test_a_trial_that_does_not_end_lets_another_begin_after_ten_seconds() -> None:
    """A stream may last for days; its endpoint must not wait for that."""
    court = Court()
    court.fail(0, 5)
    court.pass_time(1)
    court.ejection.begin_trial(court[0], court.now)
    court.pass_time(9.9)
    assert court.cluster.pick(None, court.now) is not court[0]
    court.pass_time(0.1)
    court.try_once(0)
    assert court.states == "hhh"


def test_a_trial_that_lasts_passes_when_the_endpoint_has_begun_to_answer_it() -> None:
    court = Court()
    court.fail(0, 5)
    court.pass_time(1)
    court.ejection.begin_trial(court[0], court.now)
    court.serving.add(court[0])
    court.pass_time(9.9)
    assert court.states == "phh"
    court.pass_time(0.1)
    assert court.states == "hhh"
    assert court.events[-1].text == "10.0.0.0:80 is back: its trial RPC is being answered"


def test_what_began_before_the_ejection_is_no_trial() -> None:
    court = Court()
    began_at = court.now
    court.now += 0.5
    court.fail(0, 5)
    court.answer(0, began_at=began_at)
    assert court.states == "ehh"
    court.pass_time(1)
    court.answer(0, began_at=began_at)
    court.answer(0, codes.UNAVAILABLE, began_at=began_at)
    assert court.states == "phh"


def test_a_timeout_in_the_trial_speaks_against_it_only_if_peers_are_faster() -> None:
    court = Court(2)
    court.answer(1, times=5)
    court.fail(0, 5)
    court.pass_time(1)
    court.ejection.begin_trial(court[0], court.now)
    court.time_out(0)
    assert court.told[-1] == ("ejected", "failed_trial", "")
    court = Court(2)
    court.fail(0, 5)
    court.pass_time(1)
    court.time_out(1, 5)
    court.ejection.begin_trial(court[0], court.now)
    court.time_out(0)
    assert court.states == "ph"  # nothing was learned: the next RPC is a trial again
    assert court[0] in court.cluster.trials


def test_while_it_is_out_nothing_that_comes_from_it_matters() -> None:
    """Panic may have it picked; its time runs on as it was told."""
    court = Court(2)
    court.fail(0, 5)
    court.cluster.set_connectivity(court[1], TRANSIENT_FAILURE, "connection refused")
    assert court.cluster.pickable == [court[0]]
    court.now += 0.5
    court.fail(0, 50)
    court.answer(0, times=50)
    assert (court.states, court.time_out_of(0)) == ("eh", 0.5)


def test_without_traffic_it_waits_in_probation_and_no_timer_runs() -> None:
    court = Court()
    court.fail(0, 5)
    court.pass_time(1)
    assert court.ejection.next_at() is None
    court.pass_time(3600)
    court.try_once(0)
    assert court.states == "hhh"


def test_an_unconnected_endpoint_is_tried_when_it_is_connected() -> None:
    court = Court()
    court.fail(0, 5)
    court.cluster.set_connectivity(court[0], TRANSIENT_FAILURE, "connection refused")
    court.pass_time(1)
    assert (court.states, court.cluster.trials) == ("phh", [])
    court.cluster.set_connectivity(court[0], READY)
    court.try_once(0)
    assert court.states == "hhh"


def test_an_endpoint_that_left_while_it_was_out_is_forgotten() -> None:
    court = Court(4)
    court.fail(3, 5)
    court.discover(3)
    court.pass_time(10)
    assert (court.ejection.out, court.ejection.next_at(), court.cluster.trials) == ([], None, [])
    court.discover(4)
    assert court.states == "hhhh"


def test_several_in_probation_are_tried_one_after_the_other() -> None:
    court = Court(20)
    for index in range(6):
        court.fail(index, 5)
    court.pass_time(1)
    assert court.states == "pppppp" + "h" * 14
    for index in range(6):
        court.try_once(index)
    assert court.states == "h" * 20


# === settings ===


def test_switched_off_everybody_comes_back_at_once() -> None:
    court = Court(20)
    for index in range(3):
        court.fail(index, 5)
    court.pass_time(0.5)
    court.fail(3, 5)
    court.pass_time(0.6)
    assert court.states[:4] == "pppe"
    events = court.ejection.lift(court.now)
    assert [event.kind for event in events] == ["returned"] * 4
    assert (court.states, court.ejection.out, court.ejection.next_at()) == ("h" * 20, [], None)


def test_new_settings_let_those_who_are_out_serve_their_time() -> None:
    court = Court()
    court.fail(0, 5)
    changed = structs.replace(court.settings, consecutive_failures=2, success_rate_window=20.0)
    assert court.ejection.reconfigure(changed, None, court.now) == []
    assert (court.states, court.time_out_of(0)) == ("ehh", 1.0)
    court.fail(1, 2)
    assert court.told[-1] == ("withheld", "consecutive_failures", "cap")


# === whatever happens ===

MOVES = st.lists(
    st.tuples(
        st.sampled_from(
            ("answer", "fail", "time_out", "reset", "lose", "cancel", "wait", "pick", "disconnect", "connect")
        ),
        st.integers(0, 4),
        st.integers(1, 6),
    ),
    max_size=80,
)


@given(MOVES, st.integers(1, 5), st.sampled_from((0, 10, 30, 100)))
@settings(max_examples=150, deadline=None)
def test_whatever_happens_a_healthy_one_is_left_and_the_books_are_right(
    moves: list[tuple[str, int, int]], count: int, cap: int
) -> None:
    court = Court(count, max_ejected=cap, jitter=0.5)
    for what, number, times in moves:
        index = number % count
        if what == "wait":
            court.pass_time(times / 2)
        elif what == "pick":
            picked = court.cluster.pick(PickContext(None, ()), court.now)  # type: ignore[arg-type]
            if picked in court.cluster.endpoints and picked.state == PROBATION and not picked.on_trial:
                court.ejection.begin_trial(picked, court.now)
        elif what in ("connect", "disconnect"):
            court.cluster.set_connectivity(court[index], READY if what == "connect" else TRANSIENT_FAILURE)
        elif what == "cancel":
            court.ignore(index, CANCELLED)
        elif what == "lose":
            court.lose(index)
        else:
            getattr(court, what)(index, times=times)
        out = [endpoint for endpoint in court.cluster.endpoints if endpoint.state != HEALTHY]
        assert out == sorted(court.ejection.out, key=court.cluster.endpoints.index)
        assert len(out) < count, "the last one stays"
        assert 100 * (len(out) - 1) < cap * count or not out
        ready = [e for e in court.cluster.endpoints if e.connectivity == READY]
        assert bool(court.cluster.pickable) == bool(ready)
        assert all(e.state == PROBATION and not e.on_trial for e in court.cluster.trials)
    court.pass_time(200)
    assert not any(endpoint.state == EJECTED for endpoint in court.cluster.endpoints)
    for endpoint in list(court.cluster.endpoints):
        court.cluster.set_connectivity(endpoint, READY)
    for endpoint in list(court.cluster.trials):
        court.try_once(court.cluster.endpoints.index(endpoint))
    assert court.states == "h" * count
