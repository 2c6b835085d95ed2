"""The wheel of alarms: pure, so told the time."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from sidecar.proxy.wheel import TICK, Alarm, Wheel


class Bell(Alarm):
    """Writes down when it rang."""

    def __init__(self, rang: list[tuple[object, float]], name: object) -> None:
        super().__init__()
        self.rang = rang
        self.name = name

    def ring(self, now: float) -> None:
        self.rang.append((self.name, now))


def ring_until(wheel: Wheel, rang: list[tuple[object, float]], times: list[float]) -> None:
    for now in times:
        wheel.advance(now)


@given(st.lists(st.floats(0, 10), max_size=30), st.lists(st.floats(0, 12), max_size=30).map(sorted))
def test_alarm_never_rings_early_and_at_most_a_tick_late(due: list[float], times: list[float]) -> None:
    wheel, rang = Wheel(), []  # type: ignore[var-annotated]
    for at in due:
        wheel.set(Bell(rang, at), at)
    ring_until(wheel, rang, times)
    for at, now in rang:
        assert now >= at - 1e-9  # type: ignore[operator]
    last = times[-1] if times else 0.0
    assert {at for at, _ in rang} >= {at for at in due if at + TICK + 1e-9 < last}
    assert len(wheel) == len(due) - len(rang)


def test_alarms_ring_in_the_order_of_their_ticks() -> None:
    wheel, rang = Wheel(), []  # type: ignore[var-annotated]
    due = [n * 0.01 for n in range(100)]
    random.Random(1).shuffle(due)
    for at in due:
        wheel.set(Bell(rang, at), at)
    assert wheel.advance(5.0) == 100
    assert [name for name, _ in rang] == sorted(due)


def test_alarm_that_is_set_anew_rings_only_then() -> None:
    wheel, rang = Wheel(), []  # type: ignore[var-annotated]
    bell = Bell(rang, "bell")
    wheel.set(bell, 1.0)
    wheel.set(bell, 3.0)
    wheel.advance(2.0)
    assert rang == []
    assert bell.is_set
    wheel.advance(3.1)
    assert rang == [("bell", 3.1)]
    assert not bell.is_set


def test_cancelled_alarm_does_not_ring_and_cancelling_twice_is_harmless() -> None:
    wheel, rang = Wheel(), []  # type: ignore[var-annotated]
    bell = Bell(rang, "bell")
    wheel.set(bell, 1.0)
    wheel.cancel(bell)
    wheel.cancel(bell)
    assert wheel.advance(2.0) == 0
    assert wheel.next_at() is None


def test_ring_may_cancel_another_that_is_due_in_the_same_turn() -> None:
    wheel, rang = Wheel(), []  # type: ignore[var-annotated]
    second = Bell(rang, "second")

    class First(Alarm):
        def ring(self, now: float) -> None:
            wheel.cancel(second)

    wheel.set(First(), 1.0)
    wheel.set(second, 1.0)
    assert wheel.advance(2.0) == 1
    assert rang == []
    wheel.set(second, 3.0)
    assert wheel.advance(4.0) == 1
    assert rang == [("second", 4.0)]


def test_ring_may_set_itself_and_rings_again_the_next_time() -> None:
    wheel = Wheel()
    rang: list[float] = []

    class Again(Alarm):
        def ring(self, now: float) -> None:
            rang.append(now)
            wheel.set(self, 0.0)

    wheel.set(Again(), 1.0)
    for now in (2.0, 3.0):
        assert wheel.advance(now) == 1
    assert rang == [2.0, 3.0]


def test_ring_that_fails_does_not_silence_the_others() -> None:
    wheel, rang = Wheel(), []  # type: ignore[var-annotated]

    class Broken(Alarm):
        def ring(self, now: float) -> None:
            raise ZeroDivisionError("a bug")

    wheel.set(Broken(), 1.0)
    wheel.set(Bell(rang, "bell"), 1.0)
    wheel.advance(2.0)
    assert rang == [("bell", 2.0)]


def test_jump_of_the_clock_rings_everything_once() -> None:
    """A suspended machine: every deadline has passed (RL-45)."""
    wheel, rang = Wheel(), []  # type: ignore[var-annotated]
    for n in range(50):
        wheel.set(Bell(rang, n), 100.0 + n)
    assert wheel.advance(1e9) == 50
    assert wheel.advance(1e9) == 0


def test_deadlines_that_are_always_cancelled_leave_nothing_behind() -> None:
    """Most deadlines are hours ahead and cancelled within milliseconds."""
    wheel = Wheel()
    for n in range(10_000):
        alarm = Alarm()
        wheel.set(alarm, 3600.0 + n * 0.01)
        wheel.cancel(alarm)
    assert len(wheel) == 0
    assert len(getattr(wheel, "_ticks", ())) <= 64 + 1
    assert wheel.next_at() is None
