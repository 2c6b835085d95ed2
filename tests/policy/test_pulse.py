"""Whether a peer that was asked by PING is alive: the verdict, and that nobody who was late gives it (RL-45)."""

from __future__ import annotations

import pytest

from sidecar.policy.pulse import ASKED, DOUBTED, LATE, LOST, TRUSTED, Pulse


def asked(limit: float = 2.0, now: float = 100.0) -> Pulse:
    pulse = Pulse()
    pulse.ask(limit, now)
    return pulse


def test_silence_for_half_the_limit_is_doubt_and_for_all_of_it_the_end() -> None:
    pulse = asked()
    assert (pulse.state, pulse.due_at) == (ASKED, 101.0)
    assert not pulse.ring(101.0)
    assert (pulse.state, pulse.due_at) == (DOUBTED, 102.0)
    assert not pulse.ring(102.0)
    assert pulse.state == LOST


@pytest.mark.parametrize("rings", [0, 1])
def test_answer_restores_trust(rings: int) -> None:
    pulse = asked()
    for _ in range(rings):
        pulse.ring(pulse.due_at)
    pulse.answer()
    assert pulse.state == TRUSTED


def test_trusted_is_not_silent_and_lost_does_not_answer() -> None:
    with pytest.raises(KeyError):
        Pulse().ring(0.0)
    pulse = asked()
    pulse.ring(101.0)
    pulse.ring(102.0)
    with pytest.raises(KeyError):
        pulse.answer()


@pytest.mark.parametrize("rings", [0, 1])
def test_whoever_looks_too_late_asks_again_instead_of_judging(rings: int) -> None:
    pulse = asked()
    for _ in range(rings):
        pulse.ring(pulse.due_at)
    state = pulse.state
    assert pulse.ring(9000.0)
    assert pulse.state == state
    assert pulse.asked_at == 9000.0
    assert pulse.due_at > 9000.5


def test_whoever_is_always_late_comes_to_a_verdict_too() -> None:
    pulse = asked()
    late = LATE * 2
    asked_again = 0
    while pulse.state != LOST:
        asked_again += pulse.ring(pulse.due_at + late)
    assert asked_again == 1


def test_open_question_can_become_urgent() -> None:
    pulse = asked(limit=20.0)
    pulse.hurry(2.0, 101.0)
    assert pulse.due_at == 102.0
    pulse.ring(102.0)
    assert pulse.due_at == 103.0


def test_urgency_never_gives_more_time() -> None:
    pulse = asked(limit=2.0)
    pulse.hurry(2.0, 101.0)
    pulse.ring(101.0)
    assert (pulse.state, pulse.due_at) == (DOUBTED, 102.0)
