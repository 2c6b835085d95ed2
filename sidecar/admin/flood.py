"""A guard against floods of one kind of warning, such as an app that sends HTTP/1.1 a thousand times a second.

It looks at the lines themselves and needs no clock: a kind is a logger and a message before its arguments are
filled in. RPCs are left alone, since the access log counts what it does not write, and so is what is no warning.
"""

from __future__ import annotations

import logging
from typing import Final

LINES_PER_SECOND: Final = 50  # of one kind; journald drops a service's lines beyond 10 000 in 30 s
_MOST_KINDS: Final = 200  # remembered from earlier seconds

Kind = tuple[str, str]


class FloodGuard(logging.Filter):
    """Attach it to a handler. What was left out is told by the fields `flood` and `left_out` of lines of that kind."""

    def __init__(self, exempt: str) -> None:
        super().__init__()
        self._exempt = exempt
        self._second = 0
        self._seen: dict[Kind, int] = {}  # in this second
        self._left_out: dict[Kind, int] = {}  # in earlier ones, not told yet

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        if record.name == self._exempt or record.levelno < logging.WARNING:
            return True
        if int(record.created) != self._second:
            self._turn(int(record.created))
        kind = (record.name, str(record.msg))
        seen = self._seen.get(kind, 0) + 1
        self._seen[kind] = seen
        if seen > LINES_PER_SECOND:
            return False
        left_out = self._left_out.pop(kind, 0)
        if left_out:
            record.__dict__["left_out"] = left_out
        if seen == LINES_PER_SECOND:
            record.__dict__["flood"] = "more lines like this one are left out until the next second"
        return True

    def _turn(self, second: int) -> None:
        self._second = second
        for kind, seen in self._seen.items():
            if seen > LINES_PER_SECOND and len(self._left_out) < _MOST_KINDS:
                self._left_out[kind] = self._left_out.get(kind, 0) + seen - LINES_PER_SECOND
        self._seen.clear()
