"""Results as a table for the terminal, a Markdown page and a JSON file, each with the machine and the command."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.case import Metric
from benchmarks.interleave import Result
from benchmarks.stats import Spread
from benchmarks.subject import DIRECT

DIRECTORY = Path(__file__).parent / "results"
Row = tuple[str, ...]
HEADINGS: Row = ("subject", "median", "min", "max", "n", "baseline / it", "95 % interval", "verdict")


@dataclass(frozen=True)
class Heading:
    """What all results of one invocation have in common."""

    started: str
    command: str
    machine: dict[str, str]
    versions: dict[str, str]
    notes: Sequence[str]


def number(value: float) -> str:
    """Three significant digits, without exponents for the sizes that occur."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def rows(result: Result, metric: Metric) -> list[Row]:
    """One line per subject."""
    table = []
    for name in result.subjects:
        own = result.spread(name, metric.name)
        if own is None or (metric.difference and name == DIRECT.name):
            continue
        ratio = result.ratio(name, metric) if metric.ratio and name != result.baseline else None
        table.append(
            (name, number(own.median), number(own.minimum), number(own.maximum), str(own.count), *_ratio(ratio))
        )
    return table


def _ratio(ratio: Spread | None) -> Row:
    if ratio is None:
        return ("", "", "")
    return (f"{ratio.median:.3f}", f"{ratio.low:.3f} .. {ratio.high:.3f}", ratio.verdict)


def title(result: Result, metric: Metric) -> str:
    """What a table is about."""
    better = "larger" if metric.larger_is_better else "smaller"
    return (
        f"{result.case.mode} {result.case.name}: {metric.name}, {metric.unit} ({metric.sentence}; {better} is better)"
    )


def remarks(result: Result) -> list[str]:
    """Sentences about what a table does not show."""
    found = [f"{name} is left out: {words.splitlines()[0]}" for name, words in result.failures.items()]
    if result.dropped:
        found.append(f"{result.dropped} of {len(result.rounds)} rounds do not count: the machine was not quiet.")
    return found


def text(results: Iterable[Result]) -> str:
    """For the terminal."""
    lines: list[str] = []
    for result in results:
        for metric in result.case.metrics:
            table = rows(result, metric)
            if table:
                headings = (*HEADINGS[:5], f"{result.baseline} / it", *HEADINGS[6:])
                lines += ["", title(result, metric), *_align([headings, *table])]
        lines += ["  " + remark for remark in remarks(result)]
    return "\n".join(lines)


def _align(table: list[Row]) -> list[str]:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if n else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    ]


def markdown(heading: Heading, results: Iterable[Result]) -> str:
    """The page that goes with the JSON."""
    lines = [f"# Benchmark of {heading.started}", "", f"`{heading.command}`", ""]
    lines += [f"* {key}: {value}" for key, value in heading.machine.items()]
    lines += [f"* {name}: {version}" for name, version in heading.versions.items()]
    lines += [
        "",
        "Ratios are medians of per-round ratios with a 95 % bootstrap interval; a claim needs it on one side of 1.",
    ]
    lines += heading.notes
    for result in results:
        for metric in result.case.metrics:
            table = rows(result, metric)
            if table:
                headings = (*HEADINGS[:5], f"{result.baseline} / it", *HEADINGS[6:])
                lines += ["", f"## {title(result, metric)}", ""]
                lines += [_markdown_row(headings), "|" + " --- |" * len(headings), *map(_markdown_row, table)]
        lines += [f"\n{remark}" for remark in remarks(result)]
    return "\n".join(lines) + "\n"


def _markdown_row(row: Row) -> str:
    return "| " + " | ".join(row) + " |"


def document(heading: Heading, results: Iterable[Result]) -> dict[str, object]:
    """Everything, each run included."""
    return {**asdict(heading), "results": [_result(result) for result in results]}


def _result(result: Result) -> dict[str, object]:
    metrics = {}
    for metric in result.case.metrics:
        spreads = {name: result.spread(name, metric.name) for name in result.subjects}
        ratios = {name: result.ratio(name, metric) for name in result.subjects if name != result.baseline}
        metrics[metric.name] = {
            "unit": metric.unit,
            "subjects": {name: asdict(value) for name, value in spreads.items() if value},
            "ratios": {name: asdict(value) for name, value in ratios.items() if value and metric.ratio},
        }
    return {
        "mode": result.case.mode,
        "case": result.case.name,
        "baseline": result.baseline,
        "metrics": metrics,
        "rounds": [
            {"counts": entry.counts, "runs": [asdict(run) for run in entry.runs.values()]} for entry in result.rounds
        ],
        "failures": result.failures,
    }


def write(name: str, heading: Heading, results: list[Result]) -> list[Path]:
    """Both files; returns their paths."""
    DIRECTORY.mkdir(exist_ok=True)
    page, data = DIRECTORY / f"{name}.md", DIRECTORY / f"{name}.json"
    page.write_text(markdown(heading, results))
    data.write_text(json.dumps(document(heading, results), indent=1) + "\n")
    return [page, data]
