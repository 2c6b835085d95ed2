"""The closed-loop generator: h2load of the nghttp2 project, run for a fixed count and read strictly."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process import ROOT, Failed
from benchmarks.wire import PATH

PATIENCE = 600.0  # seconds for one run
WATCH_INTERVAL = 0.1  # seconds
_FINISHED = re.compile(r"finished in ([\d.]+)(us|ms|s|m|h)\b")
_REQUESTS = re.compile(r"requests: (\d+) total, .* (\d+) succeeded, (\d+) failed")
_CODES = re.compile(r"status codes: (\d+) 2xx")
_BODY = re.compile(r"traffic: .*\((\d+)\) data")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
MISSING = "h2load is not installed: apt install nghttp2-client, or the like"


@dataclass(frozen=True)
class Load:
    """What h2load is asked for."""

    requests: int
    clients: int
    streams: int
    body: Path


@dataclass(frozen=True)
class Outcome:
    """What h2load says it did."""

    seconds: float
    requests: int
    succeeded: int
    failed: int
    body_octets: int

    @property
    def pace(self) -> float:
        """Seconds per RPC."""
        return self.seconds / self.requests


def parse(text: str) -> Outcome:
    """Raises Failed if the report lacks a line that it always has."""
    finished, requests, codes, body = (p.search(text) for p in (_FINISHED, _REQUESTS, _CODES, _BODY))
    if not (finished and requests and codes and body):
        raise Failed(f"h2load's report was not understood:\n{text[-2000:]}")
    return Outcome(
        seconds=float(finished[1]) * _UNITS[finished[2]],
        requests=int(requests[1]),
        succeeded=min(int(requests[2]), int(codes[1])),
        failed=int(requests[3]),
        body_octets=int(body[1]),
    )


def run(
    load: Load, port: int, cpus: frozenset[int], *, reply_size: int, watch: Callable[[], None] | None = None
) -> Outcome:
    """Make `load.requests` RPCs and insist that each came back with a whole body; `watch` is called now and then."""
    program = shutil.which("h2load")
    if program is None:
        raise Failed(MISSING)
    command = [
        "taskset",
        "-c",
        ",".join(map(str, sorted(cpus))),
        program,
        f"--requests={load.requests}",
        f"--clients={load.clients}",
        f"--max-concurrent-streams={load.streams}",
        f"--data={load.body}",
        "--header=te: trailers",
        "--header=content-type: application/grpc",
        f"http://127.0.0.1:{port}{PATH.decode()}",
    ]
    outcome = parse(_output(command, watch))
    if outcome.succeeded != load.requests or outcome.body_octets != load.requests * reply_size:
        raise Failed(
            f"of {load.requests} RPCs {outcome.succeeded} succeeded with {outcome.body_octets} octets in all; "
            f"{load.requests * reply_size} were expected"
        )
    return outcome


def _output(command: list[str], watch: Callable[[], None] | None) -> str:
    until = time.monotonic() + PATIENCE
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT) as child:
        while True:
            try:
                text, _ = child.communicate(timeout=WATCH_INTERVAL if watch else PATIENCE)
            except subprocess.TimeoutExpired:
                if time.monotonic() > until:
                    child.kill()
                    raise Failed(f"h2load did not end within {PATIENCE:.0f} s: {' '.join(command)}") from None
                if watch:
                    watch()
            else:
                return text
