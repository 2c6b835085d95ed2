"""Case `slow`: one of eleven instances takes a second for each RPC for a while; the shape of Buoyant's test of 2016.

On real sockets, what is simulated in `benchmarks.balance`: the sidecar with its defaults beside an Envoy with its best
policy, least request with all hosts looked at. Nothing fails, so neither ejects: only the balancers decide.
"""

from __future__ import annotations

from benchmarks.chaos import envoy, fleet, ours
from benchmarks.chaos.contender import Standing
from benchmarks.chaos.drive import Drive, Sight
from benchmarks.chaos.finding import Finding, Scale, Table, milliseconds, percent
from benchmarks.chaos.fleet import Instance
from benchmarks.chaos.recording import Recording
from benchmarks.stage import Stage
from benchmarks.stats import percentile

INSTANCES = 11
WORK, SLOW = 0.020, 1.0  # seconds for an RPC
SETTLE = 2.0  # seconds of load that do not count
DEADLINE = 5.0  # seconds: nobody runs into it
CONTENDERS = (ours.contender("sidecar"), envoy.contender("envoy", retries=False))
HEADINGS = ("proxy, while one is slow", "RPCs", "p50", "p99", "p99.9", "sent to it", "failed")


def slow_instance(scale: Scale) -> Finding:
    """Both contenders at once, in front of the same instances."""
    finding = Finding("slow", f"One of {INSTANCES} instances takes {SLOW:g} s instead of {WORK * 1000:g} ms")
    rate = scale.rate / len(CONTENDERS)
    with Stage(fleet.everywhere()) as stage:
        # One after the other: eleven that start at once keep each other from it on a small machine.
        instances = [fleet.start(stage, 1, f"--work={WORK}", first=number)[0] for number in range(1, INSTANCES + 1)]
        victim = instances[-1]
        standings = [Standing(stage, contender, fleet.addresses(instances)) for contender in CONTENDERS]
        for standing in standings:
            standing.wait()
        during = scale.of(2, 1) * scale.during
        drive = Drive(stage, standings, rate, SETTLE + scale.before + during + SLOW, DEADLINE)
        begin = drive.start_at + SETTLE + scale.before
        end = begin + during
        drive.look_until(begin)
        victim.behave(work=SLOW)
        drive.look_until(end)
        victim.behave(work=WORK)
        records = drive.finish()
        rows = [_row(name, records[name], drive.sights[name], victim, begin, end) for name in records]
    finding.tables.append(Table(finding.title, HEADINGS, rows))
    sent = {name: sight.attempts(victim.target, begin, end) for name, sight in drive.sights.items()}
    finding.claim(
        "The sidecar sends fewer RPCs to the slow instance than Envoy does",
        sent["sidecar"] < sent["envoy"],
        f"{sent['sidecar']} against {sent['envoy']}",
    )
    return finding


def _row(name: str, record: Recording, sight: Sight, victim: Instance, begin: float, end: float) -> tuple[str, ...]:
    stretch = record.stretch(begin, end)
    sent = sight.attempts(victim.target, begin, end)
    took = sorted(rpc.took for rpc in record.between(begin, end))
    return (
        name,
        str(stretch.count),
        milliseconds(stretch.p50),
        milliseconds(stretch.p99),
        milliseconds(percentile(took, 0.999)),
        f"{sent} ({percent(sent / max(1, stretch.count))})",
        str(stretch.failed),
    )
