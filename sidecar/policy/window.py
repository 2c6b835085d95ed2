"""How the attempts of the last seconds ended, in counts. The present slot is plain fields: counting makes no object."""

from __future__ import annotations

from typing import Final

SLOTS: Final = 10  # a window of 10 s is the present second and the nine before it

_PAST: Final = SLOTS - 1  # a number of its own, so that the compiled form reckons without objects
_NOTHING = (0,) * (SLOTS - 1)


class Window:
    """Counts over `span` seconds. `turn` must be called before they are read at a later moment."""

    def __init__(self, span: float, now: float) -> None:
        self.attempts: int = 0
        self.bad: int = 0  # of these, the ones that speak against the endpoint
        self.late: int = 0  # of these, the ones that ran out of time
        self._width: float = span / SLOTS
        self._ends_at: float = now + self._width  # of the present slot
        # The present slot, and a ring of those before it. The totals above hold both.
        self._attempts: int = 0
        self._bad: int = 0
        self._late: int = 0
        self._oldest: int = 0  # place in the ring
        self._past_attempts: list[int] = list(_NOTHING)
        self._past_bad: list[int] = list(_NOTHING)
        self._past_late: list[int] = list(_NOTHING)

    def add(self, bad: bool, late: bool, now: float) -> None:
        """Count one attempt."""
        if now >= self._ends_at:
            self.turn(now)
        self.attempts += 1
        self._attempts += 1
        if bad:
            self.bad += 1
            self._bad += 1
        if late:
            self.late += 1
            self._late += 1

    def turn(self, now: float) -> None:
        """Forget what is older than the window."""
        if now < self._ends_at:
            return
        steps = int((now - self._ends_at) / self._width) + 1
        self._ends_at += steps * self._width
        for _ in range(min(steps, _PAST + 1)):
            self._step()

    def _step(self) -> None:
        """The oldest slot falls out, the present one takes its place in the ring."""
        oldest = self._oldest
        self.attempts -= self._past_attempts[oldest]
        self.bad -= self._past_bad[oldest]
        self.late -= self._past_late[oldest]
        self._past_attempts[oldest] = self._attempts
        self._past_bad[oldest] = self._bad
        self._past_late[oldest] = self._late
        self._attempts = self._bad = self._late = 0
        self._oldest = (oldest + 1) % _PAST

    def clear(self) -> None:
        """Forget all of it."""
        self.attempts = self.bad = self.late = 0
        self._attempts = self._bad = self._late = 0
        self._past_attempts = list(_NOTHING)
        self._past_bad = list(_NOTHING)
        self._past_late = list(_NOTHING)

    def __repr__(self) -> str:
        return f"<Window attempts={self.attempts} bad={self.bad} late={self.late}>"
