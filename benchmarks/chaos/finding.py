"""What a case found: tables for people, claims that hold or do not, and examples of what was said.

Only claims about the sidecar decide the exit code; what a peer does is reported and not judged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Claim:
    """A promise, whether it held, and the figure that shows it."""

    sentence: str
    holds: bool
    found: str


@dataclass(frozen=True)
class Table:
    """Cells are text; the first column names the row."""

    title: str
    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]


@dataclass
class Finding:
    """One case's part of the summary."""

    name: str
    title: str
    tables: list[Table] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def claim(self, sentence: str, holds: bool, found: str) -> None:
        """State a promise and what became of it."""
        self.claims.append(Claim(sentence, holds, found))

    def document(self) -> dict[str, Any]:
        """For the JSON file."""
        return asdict(self)


@dataclass(frozen=True)
class Scale:
    """How long everything lasts: the full protocol, or a look."""

    quick: bool
    rate: float  # RPCs per second of each generator
    before: float  # seconds of load before a fault, during it and after it
    during: float
    after: float

    def of(self, full: float, quick: float) -> float:
        """One of the two."""
        return quick if self.quick else full


FULL = Scale(False, 100, before=3, during=8, after=6)
QUICK = Scale(True, 75, before=1, during=4, after=2)
SMOKE = Scale(True, 60, before=0.5, during=1, after=0.5)

Case = Callable[[Scale], Finding]


def percent(share: float) -> str:
    """Two significant digits."""
    return f"{share * 100:.2g} %"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"


def seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f} s"
