"""Case `instance`: one of five instances fails, in six ways; what its callers see before, during and after.

It answers UNAVAILABLE in trailers, or at once without a response head; it hangs; it resets streams; it is killed; its
packets are dropped. The sidecar and Envoy, each without and with opt-in retries, carry the same load at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.chaos import behaviour, envoy, firewall, fleet, ours
from benchmarks.chaos.contender import Contender, Standing
from benchmarks.chaos.drive import Drive, Sight
from benchmarks.chaos.finding import Finding, Scale, Table, milliseconds, percent, seconds
from benchmarks.chaos.fleet import DROPPED, GRPCLIB, KILLED, Instance
from benchmarks.chaos.recording import Recording, Stretch
from benchmarks.stage import Stage

INSTANCES = 5
SETTLE = 1.0  # seconds of load that do not count: connections come up, balancers learn
FAULTS = (
    behaviour.TRAILERS,
    behaviour.TRAILERS_ONLY,
    behaviour.HANG,
    behaviour.RESET,
    KILLED,
    DROPPED,
)
QUICK_FAULTS = (behaviour.TRAILERS, behaviour.HANG, behaviour.RESET, KILLED, DROPPED)
CONTENDERS = (
    ours.contender("sidecar"),
    envoy.contender("envoy", retries=False),
    envoy.contender("envoy+retries", retries=True),
)
HEADINGS = (
    "fault, proxy",
    "errors before",
    "p99",
    "errors during",
    "p99",
    "errors after",
    "p99",
    "out after",
    "sent to it",
    "back after",
)


@dataclass(frozen=True)
class Course:
    """How one fault went for one contender. Times in seconds from the fault's begin, or from its end."""

    fault: str
    name: str
    before: Stretch
    during: Stretch
    after: Stretch
    out_after: float | None
    share: float  # of the RPCs that departed during the fault, those that were sent to the instance
    back_after: float | None
    reasons: list[str]

    def row(self) -> tuple[str, ...]:
        cells = [f"{self.fault}, {self.name}"]
        for stretch in (self.before, self.during, self.after):
            cells += [f"{stretch.failed} of {stretch.count} ({percent(stretch.error_rate)})", milliseconds(stretch.p99)]
        cells += [seconds(self.out_after), percent(self.share), seconds(self.back_after)]
        return tuple(cells)


@dataclass(frozen=True)
class Instants:
    """When everything happened."""

    start: float
    begin: float
    cease: float
    end: float


def one_instance(scale: Scale, contenders: Sequence[Contender] = CONTENDERS, faults: Sequence[str] = ()) -> Finding:
    """All faults, one after the other, with fresh proxies for each."""
    finding = Finding("instance", f"One of {INSTANCES} instances fails")
    courses: list[Course] = []
    with Stage(fleet.everywhere()) as stage:
        healthy = fleet.start(stage, INSTANCES - 1)
        victims = {GRPCLIB: Instance(stage, 8, module=GRPCLIB), fleet.GRPCIO: Instance(stage, 9)}
        for victim in victims.values():
            victim.wait()
        for fault in faults or (QUICK_FAULTS if scale.quick else FAULTS):
            victim = victims[GRPCLIB if fault == behaviour.RESET else fleet.GRPCIO]
            courses += _one_fault(stage, scale, contenders, healthy, victim, fault)
    finding.tables.append(Table(finding.title, HEADINGS, [course.row() for course in courses]))
    if firewall.objection():
        finding.notes.append(f"Packets were not dropped, the instance was stopped (SIGSTOP): {firewall.objection()}.")
    _judge(finding, courses)
    return finding


def _one_fault(
    stage: Stage,
    scale: Scale,
    contenders: Sequence[Contender],
    healthy: Sequence[Instance],
    victim: Instance,
    fault: str,
) -> list[Course]:
    endpoints = fleet.addresses([*healthy, victim])
    standings = [Standing(stage, contender, endpoints) for contender in contenders]
    try:
        for standing in standings:
            standing.wait()
        drive = Drive(stage, standings, scale.rate, SETTLE + scale.before + scale.during + scale.after)
        start = drive.start_at + SETTLE
        instants = Instants(
            start,
            start + scale.before,
            start + scale.before + scale.during,
            start + scale.before + scale.during + scale.after,
        )
        drive.look_until(instants.begin)
        victim.begin(fault)
        drive.look_until(instants.cease)
        victim.cease(fault)
        records = drive.finish()
    finally:
        for standing in standings:
            standing.process.end()
    return [
        _course(fault, standing.name, records[standing.name], drive.sights[standing.name], victim.target, instants)
        for standing in standings
    ]


def _course(fault: str, name: str, record: Recording, sight: Sight, target: str, instants: Instants) -> Course:
    during = record.stretch(instants.begin, instants.cease)
    return Course(
        fault=fault,
        name=name,
        before=record.stretch(instants.start, instants.begin),
        during=during,
        after=record.stretch(instants.cease, instants.end),
        out_after=sight.first(target, False, instants.begin),
        share=sight.attempts(target, instants.begin, instants.cease) / max(1, during.count),
        back_after=sight.first(target, True, instants.cease),
        reasons=sight.reasons(target, instants.begin, instants.cease),
    )


def _judge(finding: Finding, courses: Sequence[Course]) -> None:
    for course in courses:
        if course.reasons and course.name == "sidecar":
            finding.notes.append(f"/clusters of the sidecar, {course.fault}: {course.reasons[0]}")
