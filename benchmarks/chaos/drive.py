"""Load on several contenders at once, from one instant on, while their admin APIs are looked at.

All of them stand in front of the same instances and carry the same load at the same time, so that a fault hits them in
the same instant and a noisy machine treats them alike. A generator is a process of its own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.chaos import recording
from benchmarks.chaos.contender import Standing, View
from benchmarks.chaos.load import READY
from benchmarks.chaos.recording import Recording
from benchmarks.process import Failed, Process
from benchmarks.stage import Stage

LEAD = 0.3  # seconds from the word to the first departure
LOOK = 0.1  # seconds between two looks at the admin APIs: how exactly an ejection is timed
APART = 10_000_000  # ids between two generators
PATIENCE = 60.0
FOREVER = float("inf")


@dataclass
class Sight:
    """What one contender's admin API said, look by look."""

    looks: list[tuple[float, dict[str, View]]] = field(default_factory=list)

    def first_sent(self, target: str, after: float, until: float = FOREVER) -> float | None:
        """Seconds from `after` until an RPC was first sent to the endpoint; None: never before `until`."""
        counts = [views[target].attempts for at, views in self.looks if at >= after]
        return self._first(target, after, until, lambda view: view.attempts > counts[0])

    def first_out(self, target: str, after: float, until: float = FOREVER) -> float | None:
        """The same until it was seen out of picks."""
        return self._first(target, after, until, lambda view: not view.usable)

    def first_avoided(self, target: str, after: float, until: float = FOREVER) -> float | None:
        """The same until it was said to be avoided."""
        return self._first(target, after, until, lambda view: view.avoided)

    def first_back(self, target: str, after: float) -> float | None:
        """The same until it was neither."""
        return self._first(target, after, FOREVER, lambda view: view.usable and not view.avoided)

    def _first(self, target: str, after: float, until: float, seen: Callable[[View], bool]) -> float | None:
        return next((at - after for at, views in self.looks if after <= at <= until and seen(views[target])), None)

    def attempts(self, target: str, start: float, end: float) -> int:
        """RPCs sent to the endpoint between two instants, to the width of a look."""
        counts = [views[target].attempts for at, views in self.looks if start <= at <= end]
        return counts[-1] - counts[0] if counts else 0

    def reasons(self, target: str, start: float, end: float) -> list[str]:
        """What was said of the endpoint while it was out of picks or avoided, each once."""
        views = [views[target] for at, views in self.looks if start <= at <= end]
        return list(dict.fromkeys(view.reason for view in views if view.avoided or not view.usable))


class Drive:
    """Starts the generators; `look_until` passes the time; `finish` gives the records.

    With `callers`, so many RPCs are out at any time, and `rate` counts for nothing.
    """

    def __init__(
        self,
        stage: Stage,
        standings: Sequence[Standing],
        rate: float,
        seconds: float,
        timeout: float = 1.0,
        callers: int = 0,
    ) -> None:
        self.standings = standings
        self.sights = {standing.name: Sight() for standing in standings}
        self.files = {}
        self.processes: list[Process] = []
        start = stage.directory / f"start-{len(stage.processes)}"
        for number, standing in enumerate(standings):
            path = stage.directory / f"{standing.name}-{standing.port}.record"
            self.files[standing.name] = path
            command = [sys.executable, "-m", "benchmarks.chaos.load", f"--target=127.0.0.1:{standing.port}"]
            command += [f"--callers={callers}" if callers else f"--rate={rate}"]
            command += [f"--seconds={seconds}", f"--start={start}"]
            command += [f"--first-id={number * APART}", f"--timeout={timeout}", f"--out={path}"]
            self.processes.append(stage.start(f"load-{standing.name}", command, stage.placement.load))
        for process in self.processes:
            _wait_ready(process)
        self.start_at = time.monotonic() + LEAD
        self.end_at = self.start_at + seconds
        word = start.with_suffix(".new")
        word.write_text(str(self.start_at))
        word.rename(start)

    def look_until(self, instant: float) -> None:
        """Look at the admin APIs until then."""
        while (now := time.monotonic()) < instant:
            for standing in self.standings:
                standing.process.check()
                self.sights[standing.name].looks.append((time.monotonic(), standing.views()))
            time.sleep(max(0.0, min(instant, now + LOOK) - time.monotonic()))

    def finish(self) -> dict[str, Recording]:
        """Look on until the last call has departed, wait for the generators, and read what they wrote."""
        self.look_until(self.end_at)
        for process in self.processes:
            if process.child.wait(PATIENCE):
                raise Failed(f"{process.name} ended with an error:\n    {process.last_words()}")
        return {name: recording.load(path) for name, path in self.files.items()}


def _wait_ready(process: Process) -> None:
    until = time.monotonic() + PATIENCE
    while READY not in process.log.read_text(errors="replace"):
        process.check()
        if time.monotonic() > until:
            raise Failed(f"{process.name} is not ready after {PATIENCE:.0f} s")
        time.sleep(0.02)
