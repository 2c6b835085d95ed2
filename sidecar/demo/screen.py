"""What the user sees: sentences that scroll by and, on a terminal, a table below them, drawn anew again and again.

Without a terminal there are only lines, and the table appears where somebody asks for it with `show_table`.
"""

from __future__ import annotations

import os
import shutil
import textwrap
import time
from collections.abc import Mapping, Sequence
from typing import TextIO

from sidecar.demo.table import BOLD, DIM, paint

NARROWEST = 40  # columns; below this lines are cut rather than the text
PLAIN_WIDTH = 200  # columns of the table where there is no terminal
CLEAR_BELOW = "\x1b[J"


def wants_color(out: TextIO, refused: bool, environment: Mapping[str, str]) -> bool:
    """A terminal that can, and a user who has not said no (https://no-color.org)."""
    able = out.isatty() and environment.get("TERM", "") not in ("", "dumb")
    return able and not refused and not environment.get("NO_COLOR")


class Screen:
    """One stream. `live` redraws."""

    def __init__(self, out: TextIO, *, live: bool, color: bool) -> None:
        self.out = out
        self.live = live
        self.color = color
        self.started_at = time.monotonic()
        self._drawn = 0  # lines of the table that are on the terminal below the sentences

    @property
    def width(self) -> int:
        """Columns."""
        if not self.live:
            return PLAIN_WIDTH
        columns = shutil.get_terminal_size((100, 24)).columns
        return max(NARROWEST, columns - 1)

    def say(self, sentence: str, *, strong: bool = False) -> None:
        """A sentence with the seconds since the start before it."""
        stamp = f"[{time.monotonic() - self.started_at:5.1f} s] "
        lines = sentence.splitlines()
        if self.live:
            lines = [part for line in lines for part in textwrap.wrap(line, self.width - len(stamp)) or [""]]
        shown = [paint(line, BOLD, self.color and strong) for line in lines]
        first, rest = paint(stamp, DIM, self.color) + shown[0], [" " * len(stamp) + line for line in shown[1:]]
        self._write([first, *rest])

    def show_table(self, lines: Sequence[str]) -> None:
        """The table at a moment that matters; on a terminal it is there anyway."""
        if not self.live:
            self._write([f"          {line}" for line in lines])

    def draw(self, lines: Sequence[str]) -> None:
        """The table as it is now, on a terminal."""
        if self.live:
            self._erase()
            self._drawn = len(lines) + 1
            self.out.write("\n" + "".join(f"{line}\n" for line in lines))
            self.out.flush()

    def leave(self, lines: Sequence[str]) -> None:
        """Draw the table for the last time: what is said from now on stands below it."""
        self.draw(lines)
        self._drawn = 0

    def _write(self, lines: Sequence[str]) -> None:
        self._erase()
        self.out.write("".join(f"{line}\n" for line in lines))
        self.out.flush()

    def _erase(self) -> None:
        if self._drawn:
            self.out.write(f"\x1b[{self._drawn}A\r{CLEAR_BELOW}")
            self._drawn = 0


def screen_for(out: TextIO, no_color: bool) -> Screen:
    """The screen that suits `out`."""
    live = out.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
    return Screen(out, live=live, color=wants_color(out, no_color, os.environ))
