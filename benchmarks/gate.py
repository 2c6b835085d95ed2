"""The regression gate that is no stopwatch: system calls and instructions per RPC of our own process.

Both are counts. They hardly move with the machine's mood, so a test may call `check` and fail on what it says. Limits
stand in gate.json: `python -m benchmarks.gate` compares, `--update` writes down what is true now, for a review.
Instructions depend on the interpreter's build and on the CPU's family, so they have a limit for each; a build without
one is measured and not judged.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import closedloop, strace
from benchmarks.process import Failed, Placement
from benchmarks.stage import Stage
from benchmarks.subject import SUBJECTS, Job, Subject

LIMITS = Path(__file__).with_name("gate.json")
VALGRIND_MISSING = "valgrind is not installed: apt install valgrind, or the like"
SLOWER = 100.0  # seconds to wait for a start under valgrind, which is 50 times slower
LONE_RPCS, SATURATED_RPCS, COUNTED_RPCS = 1000, 5_000, 400


@dataclass(frozen=True)
class Gauge:
    """One count and how far above its limit it may be: the part that differs from run to run."""

    name: str
    tolerance: float
    portable: bool  # the same on every machine


GAUGES = (
    Gauge("syscalls_lone", 0.03, True),  # some timers among 1000 RPCs
    Gauge("syscalls_saturated", 0.50, True),  # how many RPCs meet in one wake-up is the scheduler's doing
    Gauge("instructions_lone", 0.02, False),
)


def syscalls(codec: str) -> dict[str, float]:
    """System calls per RPC: one at a time on one CPU, and 128 at once. Raises Failed, with a sentence."""
    return {
        "syscalls_lone": _syscalls(codec, Placement.together(), LONE_RPCS, 1, 1),
        "syscalls_saturated": _syscalls(codec, Placement.apart(), SATURATED_RPCS, 4, 32),
    }


def _syscalls(codec: str, placement: Placement, rpcs: int, clients: int, streams: int) -> float:
    with Stage(placement) as stage:
        stage.open(SUBJECTS[f"sidecar-{codec}"], stage.backend())
        with closedloop.connected(("127.0.0.1", stage.port), clients) as connections:
            closedloop.run(connections, 500, streams)
            assert stage.subject is not None
            with strace.counting(stage, stage.subject.pid) as calls:
                closedloop.run(connections, rpcs, streams)
        return calls.total() / rpcs


def instructions(codec: str) -> dict[str, float]:
    """User-space instructions per lone RPC, counted by callgrind. Raises Failed, with a sentence."""
    if shutil.which("valgrind") is None:
        raise Failed(VALGRIND_MISSING)
    with Stage(Placement.together(), patience=SLOWER) as stage:
        counts = stage.directory / "callgrind.out"
        stage.open(_under_callgrind(SUBJECTS[f"sidecar-{codec}"], counts), stage.backend())
        with closedloop.connected(("127.0.0.1", stage.port), 1) as connections:
            closedloop.run(connections, COUNTED_RPCS, 1)
            assert stage.subject is not None
            _control("--instr=on", stage.subject.pid)
            closedloop.run(connections, COUNTED_RPCS, 1)
            _control("--dump", stage.subject.pid)
        return {"instructions_lone": parse_callgrind(counts.with_suffix(".out.1").read_text()) / COUNTED_RPCS}


def _under_callgrind(subject: Subject, counts: Path) -> Subject:
    def command(job: Job, program: str) -> list[str]:
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={counts}"]
        return [*valgrind, *subject.command(job, program)]

    return replace(subject, command=command)


def _control(action: str, pid: int) -> None:
    command = ["callgrind_control", action, str(pid)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SLOWER, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(command)}: {(done.stdout + done.stderr).strip()}")


def parse_callgrind(text: str) -> int:
    """The total of a callgrind profile."""
    found = re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)
    if found is None:
        raise Failed("the callgrind profile has no total")
    return int(found[1])


def key(gauge: Gauge, codec: str) -> str:
    """Under which name its limit stands in gate.json."""
    if gauge.portable:
        return f"{codec}.{gauge.name}"
    return f"{codec}.{gauge.name}.{sys.implementation.cache_tag}-{platform.machine()}"


def complaints(codec: str, counts: dict[str, float], limits: dict[str, float]) -> list[str]:
    """A sentence for every count above its limit."""
    found = []
    for gauge in GAUGES:
        count, limit = counts.get(gauge.name), limits.get(key(gauge, codec))
        if count is not None and limit is not None and count > limit * (1 + gauge.tolerance):
            found.append(
                f"{gauge.name} of the {codec} codec is {count:,.3f} per RPC; the limit is {limit:,.3f} "
                f"and {gauge.tolerance:.0%}. If that is meant, run `python -m benchmarks.gate --update`."
            )
    return found


def check(codec: str, counts: dict[str, float]) -> list[str]:
    """What a test asserts to be empty: `check("native", syscalls("native"))`."""
    return complaints(codec, counts, json.loads(LIMITS.read_text()))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=__doc__)
    parser.add_argument("--codec", choices=("native", "reference"), action="append", help="both if left out")
    parser.add_argument("--update", action="store_true", help="write what is true now into gate.json")
    parser.add_argument("--instructions", action="store_true", help="count instructions, too (a minute under valgrind)")
    options = parser.parse_args(arguments)
    limits: dict[str, float] = json.loads(LIMITS.read_text()) if LIMITS.exists() else {}
    wrong: list[str] = []
    for codec in options.codec or ("native", "reference"):
        try:
            counts = {**syscalls(codec), **(instructions(codec) if options.instructions else {})}
        except Failed as error:
            wrong.append(f"{codec}: {error}")
            continue
        for gauge in GAUGES:
            if gauge.name in counts:
                limit = limits.get(key(gauge, codec))
                print(f"{codec} {gauge.name}: {counts[gauge.name]:,.3f} per RPC, limit {limit or 'none yet'}")
                limits[key(gauge, codec)] = round(counts[gauge.name], 3) if options.update or not limit else limit
        wrong += complaints(codec, counts, limits)
    if options.update:
        LIMITS.write_text(json.dumps(dict(sorted(limits.items())), indent=1) + "\n")
    print("\n".join(wrong) or "gate: nothing got dearer")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
