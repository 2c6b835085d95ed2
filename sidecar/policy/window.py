"""How the attempts of the last seconds ended, in counts. The present slot is plain fields: counting makes no object."""

from __future__ import annotations

from typing import Final

SLOTS: Final = 10  # a window of 10 s is the present second and the nine before it

_SLOTS: Final = SLOTS


class Window:
    """Counts over `span` seconds. `turn` must be called before they are read at a later moment."""

    def __init__(self, span: float, now: float) -> None:
        self.attempts: int = 0
        self.bad: int = 0  # of these, the ones that speak against the endpoint
        self.late: int = 0  # of these, the ones that ran out of time
        self._width: float = span / SLOTS
        self._ends_at: float = now + self._width  # of the present slot
        # The present slot, and those before it, oldest first. The totals above hold both.
        self._attempts: int = 0
        self._bad: int = 0
        self._late: int = 0
        self._past: list[tuple[int, int, int]] = []

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
        self._past.append((self._attempts, self._bad, self._late))
        self._past += [(0, 0, 0)] * (min(steps, _SLOTS) - 1)
        over = max(0, len(self._past) - _SLOTS + 1)
        for attempts, bad, late in self._past[:over]:
            self.attempts -= attempts
            self.bad -= bad
            self.late -= late
        del self._past[:over]
        self._attempts = self._bad = self._late = 0

    def clear(self) -> None:
        """Forget all of it."""
        self.attempts = self.bad = self.late = 0
        self._attempts = self._bad = self._late = 0
        self._past.clear()

    def __repr__(self) -> str:
        return f"<Window attempts={self.attempts} bad={self.bad} late={self.late}>"
