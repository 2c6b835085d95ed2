"""What is wrong with a configuration: one sentence with its place, and all of them together as one error.

Nothing here reads a file or knows a setting. Imports stay light: the command line imports this in every run.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

MAX_SHOWN = 100  # a machine-made file may be wrong in every line; nobody reads more


class Place(NamedTuple):
    """A position in a file, both counted from 1."""

    line: int
    column: int


class Problem(NamedTuple):
    """One thing to put right. `source` is a file, a flag or an environment variable; only a file has places."""

    source: str
    place: Place | None
    sentence: str

    def __str__(self) -> str:
        where = f":{self.place.line}:{self.place.column}" if self.place else ""
        return f"{self.source}{where}: {self.sentence}"


class ConfigErrors(Exception):
    """A configuration that cannot be used, with every problem found, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        unique = dict.fromkeys(problems)
        self.problems: tuple[Problem, ...] = tuple(sorted(unique, key=lambda problem: problem.place or Place(0, 0)))
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [str(problem) for problem in self.problems[:MAX_SHOWN]]
        if len(self.problems) > MAX_SHOWN:
            lines.append(f"... and {len(self.problems) - MAX_SHOWN} more problems")
        return "\n".join(lines)


def nearest(word: str, known: Iterable[str]) -> str:
    """`, did you mean 'x'?` for the nearest known word, or nothing."""
    import difflib  # only on the way to an error

    lowered = {each.lower(): each for each in known}
    near = difflib.get_close_matches(word.lower()[:100], lowered, n=1, cutoff=0.6)
    return f", did you mean '{lowered[near[0]]}'?" if near else ""


def guess(word: str, known: Iterable[str]) -> str:
    """As `nearest`; all the known words when none is near."""
    words = list(known)
    return nearest(word, words) or f"; known here: {', '.join(words)}"
