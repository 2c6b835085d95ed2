"""Case `age`: servers that end every connection after one second, under load; no RPC may fail (RL-12)."""

from __future__ import annotations

from benchmarks.chaos import envoy, fleet, ours
from benchmarks.chaos.contender import Standing
from benchmarks.chaos.drive import Drive
from benchmarks.chaos.finding import Finding, Scale, Table, milliseconds, percent
from benchmarks.stage import Stage

INSTANCES = 5
MAX_AGE = 1000  # milliseconds; grpcio spreads it by 10 %
MINUTES, QUICK_SECONDS = 2.0, 10.0
CONTENDERS = (ours.contender("sidecar"), envoy.contender("envoy", retries=False))


def connection_age(scale: Scale) -> Finding:
    """A steady load for the whole time, without retries but the transparent ones."""
    duration = scale.of(MINUTES * 60, QUICK_SECONDS)
    finding = Finding("age", f"Servers with max_connection_age 1 s, {duration:.0f} s of load")
    rows = []
    with Stage(fleet.everywhere()) as stage:
        instances = fleet.start(stage, INSTANCES, f"--max-age={MAX_AGE}")
        standings = [Standing(stage, contender, fleet.addresses(instances)) for contender in CONTENDERS]
        for standing in standings:
            standing.wait()
        drive = Drive(stage, standings, 2 * scale.rate, duration, timeout=5.0)
        records = drive.finish()
    for standing in standings:
        whole = records[standing.name].stretch()
        rows.append(
            (
                standing.name,
                str(whole.count),
                f"{whole.failed} ({percent(whole.error_rate)})",
                milliseconds(whole.p50),
                milliseconds(whole.p99),
            )
        )
        if standing.contender.ours:
            words = sorted({rpc.text for rpc in records[standing.name].failures()})
            finding.claim(
                "No RPC fails while every connection is told to go each second",
                not whole.failed,
                f"{whole.failed} of {whole.count} failed" + "".join(f"; {text}" for text in words[:3]),
            )
    finding.tables.append(Table(finding.title, ("proxy", "RPCs", "failed", "p50", "p99"), rows))
    return finding
