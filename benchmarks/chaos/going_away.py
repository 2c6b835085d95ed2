"""Case `goaway`: an instance says GOAWAY, gracefully or abruptly, at every place of an RPC; what the app sees of it.

The instance is the scripted one of the adversity tests, which hold the sidecar to the same table: one RPC meets the
GOAWAY, two more follow. Settings are shipped ones, so nothing is tried again that may have run.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path

from benchmarks.chaos.finding import Finding, Scale, Table
from benchmarks.process import Failed
from tests.adversity.bench import Bench, Lane
from tests.adversity.goaway import GOODBYES, POSITIONS, Goodbye, script, serve
from tests.services import Reply, echo

FOLLOWING = 2  # RPCs after the one that meets the GOAWAY
PLACES = range(len(POSITIONS))


def going_away(scale: Scale) -> Finding:
    """Every goodbye at every position, so many times."""
    times = round(scale.of(5, 1))
    finding = Finding("goaway", f"GOAWAY at every place of an RPC, {times} times each")
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as path, closing(Bench(Path(path), "auto")) as bench:
            seen = [[_outcomes(bench, goodbye, place, times) for place in PLACES] for goodbye in GOODBYES]
    except AssertionError as error:
        raise Failed(str(error)) from error
    rows: list[tuple[str, ...]] = []
    wrong: list[str] = []
    for goodbye, row in zip(GOODBYES, seen, strict=True):
        rows.append((goodbye.name, *(", ".join(outcomes) for outcomes in row)))
        for place, outcomes in zip(PLACES, row, strict=True):
            if set(outcomes) != {goodbye.allowed(place)}:
                found = f"{dict(outcomes)} instead of {goodbye.allowed(place)}"
                wrong.append(f"{goodbye.name}, {POSITIONS[place]}: {found}")
    finding.tables.append(Table(finding.title, ("goodbye", *POSITIONS), rows))
    count = len(GOODBYES) * len(POSITIONS) * times
    finding.claim(
        "An RPC that was not processed is answered by another connection, one that may have run is UNAVAILABLE and says"
        " so, and no other RPC fails",
        not wrong,
        wrong[0] if wrong else f"{count} of {count} as allowed",
    )
    return finding


def _outcomes(bench: Bench, goodbye: Goodbye, place: int, times: int) -> Counter[str]:
    """The statuses of the RPCs that met the GOAWAY, and of those that followed them only what is not OK."""
    seen: Counter[str] = Counter()
    for _ in range(times):
        lane = bench.lane()
        with closing(lane), lane.serving(script(goodbye, place), serve):
            channel = lane.channel()
            first, *others = [echo(channel, b"%d" % number) for number in range(1 + FOLLOWING)]
        seen[_status(first, lane)] += 1
        seen.update(f"then {reply.status}" for reply in others if reply.status != "OK")
    return seen


def _status(reply: Reply, lane: Lane) -> str:
    """With what is missing from the message of a failure, which has to name the upstream and the instance."""
    told = reply.details.startswith(f"sidecar: {lane.service}: 127.0.0.1:{lane.upstream_port} ")
    return reply.status if reply.status == "OK" or told else f"{reply.status} ({reply.details})"
