"""Case `twice`: a non-idempotent RPC is executed at most once, whatever happens to connections (RT-14).

Instances are killed and started again, reset streams, and send their connections away, while every id that they execute
is noted. The sidecar runs with its shipped settings: it retries what certainly did not run, and nothing else.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter

from benchmarks.chaos import behaviour, fleet, ours
from benchmarks.chaos.contender import Standing
from benchmarks.chaos.drive import Drive
from benchmarks.chaos.finding import Finding, Scale, Table, percent
from benchmarks.chaos.fleet import GRPCLIB, KILLED, Instance
from benchmarks.stage import Stage

PAUSE = 0.4  # seconds between two blows
WORK = 0.03  # seconds for each RPC, so that every blow meets some


def duplicate(scale: Scale) -> Finding:
    """Blows in turn on instances in turn."""
    finding = Finding("twice", "Kills, resets and GOAWAYs with shipped settings: is anything executed twice?")
    blows: Counter[str] = Counter()
    with Stage(fleet.everywhere()) as stage:
        work = f"--work={WORK}"
        killed = fleet.start(stage, 2, work)
        aged = fleet.start(stage, 1, work, "--max-age=300", first=3)
        resetting = Instance(stage, 4, work, module=GRPCLIB)
        resetting.wait()
        instances = [*killed, *aged, resetting]
        standing = Standing(stage, ours.contender(), fleet.addresses(instances))
        standing.wait()
        drive = Drive(stage, [standing], scale.rate, scale.of(40, 8))
        drive.look_until(drive.start_at + PAUSE)
        for victim in itertools.cycle(killed):
            if drive.end_at < time.monotonic() + 4 * PAUSE:
                break
            resetting.begin(behaviour.RESET)
            blows["streams reset for a while"] += 1
            drive.look_until(time.monotonic() + PAUSE)
            resetting.cease(behaviour.RESET)
            victim.begin(KILLED)
            blows["instances killed"] += 1
            drive.look_until(time.monotonic() + PAUSE)
            victim.cease(KILLED)
        record = drive.finish()[standing.name]
        executions = Counter(fleet.executed(instances))
        disconnects = standing.metric("sidecar_proxy_disconnects_total")
        retries = standing.metric("sidecar_proxy_retries_total")
    blows["connections to instances that ended"] = int(disconnects)
    blows["transparent retries"] = int(retries)
    whole = record.stretch()
    twice = {id: count for id, count in executions.items() if count > 1}
    ghosts = [rpc for rpc in record.rpcs if rpc.status == 0 and not executions[rpc.id]]
    rows = [(name, str(count)) for name, count in blows.items()]
    rows += [
        ("RPCs offered", str(whole.count)),
        ("failed", f"{whole.failed} ({percent(whole.error_rate)})"),
        ("executed", str(len(executions))),
        ("executed more than once", str(len(twice))),
    ]
    finding.tables.append(Table(finding.title, ("what", "count"), rows))
    finding.claim("No RPC is executed twice", not twice, f"{len(twice)} of {len(executions)} ids")
    finding.claim("No RPC is answered that was not executed", not ghosts, f"{len(ghosts)} of {whole.count}")
    return finding
