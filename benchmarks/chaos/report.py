"""The summary: as text while the cases run, and as a Markdown page and a JSON file with machine and command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chaos.finding import Finding, Table

DIRECTORY = Path(__file__).parent.parent / "results"


@dataclass(frozen=True)
class Heading:
    """What all findings of one invocation have in common."""

    started: str
    command: str
    machine: dict[str, str]
    versions: dict[str, str]
    took: float  # seconds


def text(finding: Finding) -> str:
    """For the terminal."""
    lines: list[str] = [f"== {finding.name}: {finding.title}"]
    for table in finding.tables:
        lines += ["", *_align(table)]
    lines += ["", *_said(finding)]
    return "\n".join(lines)


def _said(finding: Finding) -> list[str]:
    lines = [f"{'holds ' if claim.holds else 'BROKEN'}  {claim.sentence}: {claim.found}" for claim in finding.claims]
    return lines + [f"        {note}" for note in finding.notes]


def _align(table: Table) -> list[str]:
    cells = [table.headings, *table.rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(table.headings))]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]


def markdown(heading: Heading, findings: Sequence[Finding]) -> str:
    """The page that goes with the JSON."""
    lines = [f"# Chaos of {heading.started}", "", f"`{heading.command}`, {heading.took:.0f} s", ""]
    lines += [f"* {key}: {value}" for key, value in {**heading.machine, **heading.versions}.items()]
    for finding in findings:
        lines += ["", f"## {finding.title}"]
        for table in finding.tables:
            lines += ["", _row(table.headings), "|" + " --- |" * len(table.headings), *map(_row, table.rows)]
        if finding.claims:
            lines += ["", "| promise | | found |", "| --- | --- | --- |"]
            for claim in finding.claims:
                lines.append(_row((claim.sentence, "holds" if claim.holds else "**broken**", claim.found)))
        lines += ["", *(f"* {note}" for note in finding.notes)] if finding.notes else []
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def write(name: str, heading: Heading, findings: Sequence[Finding]) -> list[Path]:
    """Both files; returns their paths."""
    DIRECTORY.mkdir(exist_ok=True)
    page, data = DIRECTORY / f"{name}.md", DIRECTORY / f"{name}.json"
    page.write_text(markdown(heading, findings))
    document = {**vars(heading), "findings": [finding.document() for finding in findings]}
    data.write_text(json.dumps(document, indent=1) + "\n")
    return [page, data]
