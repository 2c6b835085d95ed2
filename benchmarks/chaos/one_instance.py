"""Case `instance`: one of five instances fails, in six ways; what its callers see before, during and after.

It answers UNAVAILABLE in trailers, or at once without a response head; it hangs; it resets streams; it is killed; its
packets are dropped. The sidecar and Envoy, each without and with opt-in retries, carry the same load at the same time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.chaos import behaviour, envoy, firewall, fleet, ours
from benchmarks.chaos.contender import Contender, Standing
from benchmarks.chaos.drive import FOREVER, Drive, Sight
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
QUICK_FAULTS = (behaviour.TRAILERS, behaviour.RESET, KILLED, DROPPED)  # to its callers one that hangs is as DROPPED
PLAIN, RETRYING = "sidecar", "sidecar+retries"
CONTENDERS = (
    ours.contender(PLAIN),
    ours.contender(RETRYING, **ours.RETRIES),
    envoy.contender("envoy", retries=False),
    envoy.contender("envoy+retries", retries=True),
)
# What the sidecar promises. A fair share of the traffic would be 20 %.
ERRORS = 0.05  # of the RPCs during a fault, without retries
ERRORS_RETRYING = 0.01
SHARE = 0.05  # sent to the failing instance
AFTER = 0.002  # of the RPCs after it: those that were caught by the end of the fault
OUT = 5.0  # seconds; P13's for packets that are dropped
HEADINGS = (
    "fault, proxy",
    "errors before",
    "p99",
    "errors during",
    "p99",
    "errors after",
    "p99",
    "avoided after",
    "out after",
    "sent to it",
    "back after",
)


@dataclass(frozen=True)
class Course:
    """How one fault went for one contender. Times in seconds from the fault's begin, or from its end."""

    fault: str
    name: str
    ours: bool
    before: Stretch
    during: Stretch
    after: Stretch
    sent_after: float | None  # when the first RPC of the fault went to it
    avoided_after: float | None  # as the proxy says itself
    out_after: float | None  # of picks: ejected, or not connected
    share: float  # of the RPCs that departed during the fault, those that were sent to the instance
    back_after: float | None
    reasons: list[str]

    def row(self) -> tuple[str, ...]:
        cells = [f"{self.fault}, {self.name}"]
        for stretch in (self.before, self.during, self.after):
            cells += [f"{stretch.failed} of {stretch.count} ({percent(stretch.error_rate)})", milliseconds(stretch.p99)]
        cells += [seconds(self.avoided_after), seconds(self.out_after), percent(self.share), seconds(self.back_after)]
        return tuple(cells)

    @property
    def unnoticed(self) -> bool:
        """Whether it did nothing wrong since it was asked nothing: the others were cheaper all the time."""
        return self.sent_after is None and self.told_after is None

    @property
    def told_after(self) -> float | None:
        """When /clusters said that it gets nothing, one way or the other."""
        told = [after for after in (self.avoided_after, self.out_after) if after is not None]
        return min(told, default=None)

    @property
    def learned_in(self) -> float:
        """From the first RPC that it failed until that."""
        return FOREVER if self.told_after is None else self.told_after - min(self.told_after, self.sent_after or 0.0)


@dataclass(frozen=True)
class Instants:
    """When everything happened."""

    start: float
    begin: float
    cease: float
    sound: float  # a killed instance needs its time to start
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
        begin = start + scale.before
        cease = begin + scale.during
        drive.look_until(begin)
        victim.begin(fault)
        drive.look_until(cease)
        victim.cease(fault)
        instants = Instants(start, begin, cease, sound=time.monotonic(), end=drive.end_at)
        records = drive.finish()
    finally:
        for standing in standings:
            standing.process.end()
    return [
        _course(fault, standing, records[standing.name], drive.sights[standing.name], victim.target, instants)
        for standing in standings
    ]


def _course(fault: str, standing: Standing, record: Recording, sight: Sight, target: str, instants: Instants) -> Course:
    during = record.stretch(instants.begin, instants.cease)
    return Course(
        fault=fault,
        name=standing.name,
        ours=standing.contender.ours,
        before=record.stretch(instants.start, instants.begin),
        during=during,
        after=record.stretch(instants.cease, instants.end),
        sent_after=sight.first_sent(target, instants.begin, instants.cease),
        avoided_after=sight.first_avoided(target, instants.begin, instants.cease),
        out_after=sight.first_out(target, instants.begin, instants.cease),
        share=sight.attempts(target, instants.begin, instants.cease) / max(1, during.count),
        back_after=sight.first_back(target, instants.sound),
        reasons=sight.reasons(target, instants.begin, instants.cease),
    )


def _judge(finding: Finding, courses: Sequence[Course]) -> None:
    """What the sidecar promises of these faults; what /clusters said of each is shown beside it."""
    ours = [course for course in courses if course.ours]
    for name, most in ((PLAIN, ERRORS), (RETRYING, ERRORS_RETRYING)):
        mine = [course for course in ours if course.name == name]
        if mine:
            worst = max(mine, key=lambda course: course.during.error_rate)
            sentence = f"{name}: at most {percent(most)} of the RPCs fail while one of {INSTANCES} instances does"
            finding.claim(
                sentence, worst.during.error_rate <= most, f"{percent(worst.during.error_rate)} ({worst.fault})"
            )
    outside = sum(course.before.failed for course in ours)
    finding.claim("The sidecar fails no RPC before a fault", not outside, f"{outside} failed")
    late = sum(course.after.failed for course in ours) / max(1, sum(course.after.count for course in ours))
    finding.claim(f"It fails at most {percent(AFTER)} after it", late <= AFTER, percent(late))
    greedy = max(ours, key=lambda course: course.share)
    finding.claim(
        f"At most {percent(SHARE)} of the RPCs are still sent to a failing instance",
        greedy.share <= SHARE,
        f"{percent(greedy.share)} ({greedy.fault}, {greedy.name})",
    )
    if noticed := [course for course in ours if not course.unnoticed]:
        last = max(noticed, key=lambda course: course.learned_in)
        finding.claim(
            f"Within {OUT:g} s of its first RPC a failing instance is out of picks or avoided, and /clusters says so",
            last.learned_in <= OUT,
            f"{seconds(None if last.learned_in == FOREVER else last.learned_in)} ({last.fault}, {last.name})",
        )
    for course in ours:
        if course.unnoticed:
            finding.notes.append(f"{course.fault}, {course.name}: it was sent no RPC, so nothing could be noticed.")
        if course.reasons and course.name == PLAIN:
            finding.notes.append(f"/clusters of the sidecar, {course.fault}: {course.reasons[0]}")
