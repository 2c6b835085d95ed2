"""Case `outage`: every instance answers UNAVAILABLE; retries must not make it worse, and must end with it.

What is counted is executions at the servers for each RPC that callers offered. All contenders have a budget of 20 % of
what is in flight, at least 3 at a time; the sidecar as it is shipped has its throttle beside it.
"""

from __future__ import annotations

from benchmarks.chaos import behaviour, envoy, fleet, ours
from benchmarks.chaos.contender import Standing
from benchmarks.chaos.drive import APART, Drive
from benchmarks.chaos.finding import Finding, Scale, Table, percent
from benchmarks.chaos.recording import Recording
from benchmarks.stage import Stage

INSTANCES = 3
SHIPPED = ours.contender("sidecar+retries", **ours.IDEMPOTENT)
CONTENDERS = (
    SHIPPED,
    ours.contender("sidecar+retries, throttle off", **ours.IDEMPOTENT, **ours.UNTHROTTLED),
    envoy.contender("envoy+retries", retries=True),
)
SETTLED = 1.0  # seconds after the outage in which throttles and ejections may still speak


def outage(scale: Scale) -> Finding:
    """Before, during and after."""
    finding = Finding("outage", "All instances answer UNAVAILABLE, retries on")
    with Stage(fleet.everywhere()) as stage:
        instances = fleet.start(stage, INSTANCES)
        standings = [Standing(stage, contender, fleet.addresses(instances)) for contender in CONTENDERS]
        for standing in standings:
            standing.wait()
        drive = Drive(stage, standings, scale.rate, scale.before + scale.during + scale.after)
        begin = drive.start_at + scale.before
        cease = begin + scale.during
        drive.look_until(begin)
        for instance in instances:
            instance.begin(behaviour.TRAILERS_ONLY)
        drive.look_until(cease)
        for instance in instances:
            instance.cease(behaviour.TRAILERS_ONLY)
        records = drive.finish()
        executions = [entry for instance in instances for entry in instance.executions()]
    stretches = {
        "before": (drive.start_at, begin),
        "during": (begin, cease),
        "after": (cease + SETTLED, drive.end_at),
    }
    rows = []
    for number, standing in enumerate(standings):
        ids = range(number * APART, (number + 1) * APART)
        mine = [id for _, id in executions if id in ids]
        record = records[standing.name]
        ratios = {name: _ratio(record, mine, *ends) for name, ends in stretches.items()}
        errors = {name: record.stretch(*ends).error_rate for name, ends in stretches.items()}
        rows.append((standing.name, *(f"{ratios[name]:.3f} ({percent(errors[name])})" for name in stretches)))
        if standing.contender is SHIPPED:
            offered = record.stretch(*stretches["during"]).count
            allowed = ours.LIMIT * offered + ours.FLOOR
            finding.claim(
                f"While everything fails, at most {ours.LIMIT} executions per offered RPC, and {ours.FLOOR}",
                ratios["during"] * offered <= allowed,
                f"{ratios['during'] * offered:.0f} for {offered}, {allowed:.0f} allowed",
            )
            finding.claim(
                f"{SETTLED:g} s after it, one execution per RPC again, and no failure",
                ratios["after"] <= 1.01 and not errors["after"],
                f"{ratios['after']:.3f}, {percent(errors['after'])} failed",
            )
    headings = ("proxy", *(f"executions per RPC {name} (errors)" for name in stretches))
    finding.tables.append(Table(finding.title, headings, rows))
    return finding


def _ratio(record: Recording, executed: list[int], start: float, end: float) -> float:
    """Executions of the RPCs that departed between two instants, per RPC."""
    offered = {rpc.id for rpc in record.between(start, end)}
    return sum(id in offered for id in executed) / max(1, len(offered))
