"""The closed-loop generator: h2load of the nghttp2 project, run for a fixed count and read strictly."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process import ROOT, Failed
from benchmarks.wire import PATH

PATIENCE = 600.0  # seconds for one run
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
    succeeded: int
    failed: int
    body_octets: int


def parse(text: str) -> Outcome:
    """Raises Failed if the report lacks a line that it always has."""
    finished, requests, codes, body = (p.search(text) for p in (_FINISHED, _REQUESTS, _CODES, _BODY))
    if not (finished and requests and codes and body):
        raise Failed(f"h2load's report was not understood:\n{text[-2000:]}")
    return Outcome(
        seconds=float(finished[1]) * _UNITS[finished[2]],
        succeeded=min(int(requests[2]), int(codes[1])),
        failed=int(requests[3]),
        body_octets=int(body[1]),
    )


def run(load: Load, port: int, cpus: frozenset[int], *, reply_size: int) -> Outcome:
    """Make `load.requests` RPCs and insist that each came back with a whole body."""
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
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT, check=False)
    except subprocess.TimeoutExpired:
        raise Failed(f"h2load did not end within {PATIENCE:.0f} s: {' '.join(command)}") from None
    outcome = parse(done.stdout)
    if outcome.succeeded != load.requests or outcome.body_octets != load.requests * reply_size:
        raise Failed(
            f"of {load.requests} RPCs {outcome.succeeded} succeeded with {outcome.body_octets} octets in all; "
            f"{load.requests * reply_size} were expected"
        )
    return outcome
