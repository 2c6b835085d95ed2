"""System calls of a running process, counted by strace -c. The process is slowed down; its calls are the same."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.accounting import family, processes
from benchmarks.process import Failed
from benchmarks.stage import Stage

MISSING = "strace is not installed: apt install strace, or the like"
PATIENCE = 10.0  # seconds until strace has attached


def parse(table: str) -> Counter[str]:
    """The calls column of `strace -c`, by name. Its last line is a total and is left out."""
    calls: Counter[str] = Counter()
    for line in table.splitlines():
        fields = line.split()
        # % time, seconds, usecs/call, calls, [errors,] syscall
        if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total":
            calls[fields[-1]] += int(fields[3])
    return calls


@contextmanager
def counting(stage: Stage, pid: int) -> Iterator[Counter[str]]:
    """Count the calls of `pid`, its threads included, while the block runs; the counter is filled when it ends."""
    program = shutil.which("strace")
    if program is None:
        raise Failed(MISSING)
    table = stage.directory / "strace.txt"
    members = [f"--attach={member}" for member in sorted(family(pid, processes()))]
    command = [program, "-f", "-c", "-o", str(table), *members]
    process = stage.start("strace", command, stage.placement.load)
    until = time.monotonic() + PATIENCE
    while process.log.read_text(errors="replace").count("attached") < len(members):
        process.check()
        if time.monotonic() > until:
            raise Failed(f"strace did not attach: {process.last_words()}")
        time.sleep(0.02)
    calls: Counter[str] = Counter()
    yield calls
    process.child.send_signal(signal.SIGINT)
    try:
        process.child.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        raise Failed("strace did not let go") from None
    calls.update(parse(table.read_text()))
