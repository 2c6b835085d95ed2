"""Case `hedge`: a service of whose answers one in a hundred is slow; what hedging makes of it, and what it costs."""

from __future__ import annotations

from benchmarks.chaos import fleet, ours
from benchmarks.chaos.contender import Standing
from benchmarks.chaos.drive import APART, Drive
from benchmarks.chaos.finding import Finding, Scale, Table, milliseconds, percent
from benchmarks.stage import Stage

INSTANCES = 5
SLOW_EVERY = 67  # 1.5 %: with exactly 1 % the 99th percentile falls between the two kinds of answers
SLOW = 0.5  # seconds
CUT = 5.0  # times; the issue's
EXTRA = 0.05  # of the RPCs; the issue's
CONTENDERS = (ours.contender("sidecar"), ours.contender("sidecar+hedging", **ours.HEDGING))


def hedging(scale: Scale) -> Finding:
    """Without and with, at the same time on the same instances."""
    finding = Finding("hedge", f"1.5 % of the answers take {SLOW:g} s")
    with Stage(fleet.everywhere()) as stage:
        instances = fleet.start(stage, INSTANCES, f"--slow-every={SLOW_EVERY}", f"--slow={SLOW}")
        standings = [Standing(stage, contender, fleet.addresses(instances)) for contender in CONTENDERS]
        for standing in standings:
            standing.wait()
        drive = Drive(stage, standings, scale.rate, scale.of(30, 9), timeout=3.0)
        records = drive.finish()
        executed = fleet.executed(instances)
    settled = drive.start_at + scale.of(10, 2)  # the delay is learnt from the live latency
    rows, p99, extra = [], {}, {}
    for number, standing in enumerate(standings):
        stretch = records[standing.name].stretch(settled)
        offered = {rpc.id for rpc in records[standing.name].between(settled, drive.end_at)}
        mine = sum(id in offered for id in executed if id // APART == number)
        p99[standing.name], extra[standing.name] = stretch.p99, mine / max(1, stretch.count) - 1
        rows.append(
            (
                standing.name,
                str(stretch.count),
                str(stretch.failed),
                milliseconds(stretch.p50),
                milliseconds(stretch.p99),
                percent(extra[standing.name]),
            )
        )
    plain, hedged = (contender.name for contender in CONTENDERS)
    cut = p99[plain] / max(1e-9, p99[hedged])
    finding.tables.append(Table(finding.title, ("proxy", "RPCs", "failed", "p50", "p99", "extra RPCs"), rows))
    finding.claim(f"Hedging cuts p99 at least {CUT:g} times", cut >= CUT, f"{cut:.1f} times")
    finding.claim(f"It costs at most {percent(EXTRA)} more RPCs", extra[hedged] <= EXTRA, percent(extra[hedged]))
    return finding
