"""The table of the demo: one line per instance, from what the client's sidecar says of its endpoints.

A sidecar counts per life of an endpoint; here the lives of an instance are added up, and an instance that has left is
shown a while longer. Nothing here writes to a terminal or asks anybody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sidecar.demo.admin import Endpoint

MOST_GONE = 2  # instances that are shown although they have left
SERVING, OUT, GONE = "serving", "out", "gone"
GREEN, YELLOW, RED, DIM, BOLD = "32", "33", "31", "2", "1"
STATE_COLORS: Final = {SERVING: GREEN, OUT: RED, GONE: DIM}  # what else there is (ejected, probation) is yellow
COLUMNS: Final = ("INSTANCE", "ADDRESS", "RPCS", "ERRORS", "IN FLIGHT", "P50", "P99", "STATE", "WHY")
RIGHT: Final = frozenset(("RPCS", "ERRORS", "IN FLIGHT", "P50", "P99"))
GAP: Final = "  "


@dataclass
class Row:
    """One instance. `earlier_*` are of the lives before the present one."""

    name: str
    endpoint: Endpoint
    earlier_rpcs: int = 0
    earlier_errors: int = 0
    gone: bool = False

    @property
    def rpcs(self) -> int:
        """Attempts on it that ended, of all its lives."""
        return self.earlier_rpcs + self.endpoint.successes + self.endpoint.failures

    @property
    def errors(self) -> int:
        """Those that spoke against it."""
        return self.earlier_errors + self.endpoint.failures

    @property
    def state(self) -> str:
        """In one word."""
        if self.gone:
            return GONE
        if self.endpoint.state != "healthy":
            return self.endpoint.state
        return SERVING if self.endpoint.pickable else OUT

    def cells(self) -> tuple[str, ...]:
        """As text, in the order of the columns."""
        endpoint = self.endpoint
        return (
            self.name,
            endpoint.address,
            str(self.rpcs),
            str(self.errors),
            "-" if self.gone else str(endpoint.in_flight),
            milliseconds(endpoint.latency_p50_seconds),
            milliseconds(endpoint.latency_p99_seconds),
            self.state,
            "the registry does not list it" if self.gone else endpoint.why,
        )


class Board:
    """The rows, in the order in which the instances first appeared."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def update(self, endpoints: Mapping[str, Endpoint]) -> None:
        """What the sidecar says now."""
        for name, endpoint in sorted(endpoints.items(), key=lambda item: (len(item[0]), item[0])):
            row = self.rows.get(name)
            if row is None:
                self.rows[name] = Row(name, endpoint)
                continue
            if endpoint.age_seconds < row.endpoint.age_seconds:
                row.earlier_rpcs, row.earlier_errors = row.rpcs, row.errors
            row.endpoint, row.gone = endpoint, False
        for name, row in self.rows.items():
            row.gone = name not in endpoints
        for name in [name for name, row in self.rows.items() if row.gone][:-MOST_GONE]:
            del self.rows[name]

    def lines(self, color: bool, width: int) -> list[str]:
        """The table, no line longer than `width`."""
        return render([row.cells() for row in self.rows.values()], color, width)


def render(rows: Sequence[tuple[str, ...]], color: bool, width: int) -> list[str]:
    """Rows of cells under the headings, in columns."""
    table = [COLUMNS, *rows]
    widths = [max(len(cells[column]) for cells in table) for column in range(len(COLUMNS))]
    lines = []
    for number, cells in enumerate(table):
        padded = [
            cell.rjust(size) if heading in RIGHT else cell.ljust(size)
            for cell, size, heading in zip(cells, widths, COLUMNS, strict=True)
        ]
        line = GAP.join(padded).rstrip()[:width]
        lines.append(paint(line, BOLD, color) if number == 0 else _paint_state(line, padded, color))
    return lines


def _paint_state(line: str, padded: Sequence[str], color: bool) -> str:
    """The state in its color, where it was not cut off."""
    column = COLUMNS.index("STATE")
    start = sum(len(cell) + len(GAP) for cell in padded[:column])
    word = padded[column].rstrip()
    if line[start : start + len(word)] != word:
        return line
    return line[:start] + paint(word, STATE_COLORS.get(word, YELLOW), color) + line[start + len(word) :]


def paint(text: str, sgr: str, color: bool) -> str:
    """`text` in a color (ECMA-48 SGR), or as it is."""
    return f"\x1b[{sgr}m{text}\x1b[0m" if color else text


def milliseconds(seconds: float) -> str:
    """Three digits, for people."""
    return f"{seconds * 1e3:.3g} ms" if seconds else "-"
