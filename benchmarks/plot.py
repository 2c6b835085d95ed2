"""Bars of p50, p99 and p99.9 per policy as an SVG, written by hand: no library, a few kilobytes, fit for any browser.

The axis is logarithmic, since what policies differ in is orders of magnitude; each bar carries its number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

WIDTH: Final = 760
LEFT: Final = 190  # of the bars; the names stand there
RIGHT: Final = 70  # for the number of the longest bar
TOP: Final = 64
BAR: Final = 9
GAP: Final = 12  # between policies
COLOURS: Final = ("#9db4c0", "#5c6b73", "#c8553d")
INK: Final = "#253237"


def bars(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[float]]) -> str:
    """`rows` has one value in milliseconds per column, above 0, for each name."""
    values = [value for row in rows.values() for value in row]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)

    def place(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (math.log10(value) - low) / (high - low)

    block = BAR * len(columns) + GAP
    height = TOP + block * len(rows) + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif"'
        f' font-size="11" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="22" font-size="14" font-weight="bold">{escape(title)}</text>',
    ]
    for number, (column, colour) in enumerate(zip(columns, COLOURS, strict=True)):
        parts.append(f'<rect x="{LEFT + 110 * number}" y="34" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{LEFT + 110 * number + 15}" y="43">{escape(column)}</text>')
    for power in range(low, high + 1):
        x = place(10.0**power)
        parts.append(f'<line x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{height - 20}" stroke="#e0e5e8"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 7}" text-anchor="middle">{10.0**power:g} ms</text>')
    for index, (name, row) in enumerate(rows.items()):
        top = TOP + block * index
        middle = top + BAR * len(columns) / 2 + 4
        parts.append(f'<text x="{LEFT - 8}" y="{middle:.1f}" text-anchor="end">{escape(name)}</text>')
        for number, (value, colour) in enumerate(zip(row, COLOURS, strict=True)):
            y, end = top + BAR * number, place(value)
            parts.append(f'<rect x="{LEFT}" y="{y}" width="{end - LEFT:.1f}" height="{BAR - 1}" fill="{colour}"/>')
            parts.append(f'<text x="{end + 4:.1f}" y="{y + BAR - 1}" font-size="9">{value:.4g}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
