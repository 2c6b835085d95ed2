"""The sliding window: what it holds at any moment, against a list of all that was ever added."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.window import SLOTS, Window


def held(window: Window) -> tuple[int, int, int]:
    return window.attempts, window.bad, window.late


def test_it_forgets_a_slot_at_a_time() -> None:
    window = Window(10.0, 0.0)
    for second in range(10):
        window.add(True, False, second + 0.5)
    assert held(window) == (10, 10, 0)
    window.turn(10.0)
    assert held(window) == (9, 9, 0)
    window.turn(14.5)
    assert held(window) == (5, 5, 0)
    window.turn(1e9)
    assert held(window) == (0, 0, 0)


def test_cleared_it_goes_on_from_nothing() -> None:
    window = Window(10.0, 0.0)
    window.add(True, True, 0.5)
    window.add(False, False, 3.5)
    window.clear()
    assert held(window) == (0, 0, 0)
    window.add(True, False, 4.5)
    window.turn(8.0)
    assert held(window) == (1, 1, 0)


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans(), st.booleans()), max_size=60), st.integers(0, 200))
def test_it_holds_what_ended_in_this_slot_and_in_the_nine_before_it(
    added: list[tuple[int, bool, bool]], wait: int
) -> None:
    """Steps of a quarter of a slot, so that every moment is exact."""
    window = Window(10.0, 0.0)
    now = 0.0
    everything: list[tuple[float, bool, bool]] = []
    for step, bad, late in added:
        now += step / 4
        window.add(bad, late, now)
        everything.append((now, bad, late))
    now += wait / 4
    window.turn(now)
    recent = [entry for entry in everything if int(entry[0]) > int(now) - SLOTS]
    assert held(window) == (len(recent), sum(bad for _, bad, _ in recent), sum(late for _, _, late in recent))
