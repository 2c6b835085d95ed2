"""What a subject takes without being asked for much: memory, time to start, system calls for one RPC."""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks import strace
from benchmarks.accounting import Memory, cpu_ns
from benchmarks.case import Case, Figures, Metric, Scale
from benchmarks.process import Failed, Placement
from benchmarks.stage import Stage
from benchmarks.subject import Subject

IDLE_CONNECTIONS = 1000
SETTLE = 1.0  # seconds of nothing before memory is read
STEP = 0.001  # seconds between two looks while a subject starts
MIB, KIB = 2**20, 2**10


def memory(scale: Scale) -> list[Case]:
    """At idle, with a thousand idle app connections, and after a million RPCs; our endpoints from a file or Consul."""
    with_consul = Case(
        "memory",
        "with-consul",
        RESTING,
        _memory(scale, worked=False),
        paired=False,
        pairs=3,
        baseline="sidecar-consul",
    )
    return [
        Case("memory", "idle-to-worked", (*RESTING, *WORKED), _memory(scale, worked=True), paired=False, pairs=3),
        *([] if scale.quick else [with_consul]),
    ]


RESTING = (
    Metric("resident", "MiB", "RSS at idle"),
    Metric("proportional", "MiB", "PSS at idle"),
    Metric("private", "MiB", "private pages at idle"),
    Metric("proportional_held", "MiB", f"PSS with {IDLE_CONNECTIONS} idle app connections, metrics read"),
    Metric("per_connection", "KiB", "private memory per idle app connection"),
)
WORKED = (
    Metric("growth", "KiB", "private memory gained over 10^6 RPCs after the first 10^5", ratio=False),
    Metric("proportional_worked", "MiB", "PSS after 10^6 RPCs"),
)


def _memory(scale: Scale, *, worked: bool) -> Callable[[Stage, Subject], Figures]:
    def run(stage: Stage, subject: Subject) -> Figures:
        stage.open(subject, stage.backend(), probing=False)
        stage.wait_ready()
        if stage.subject is None:
            return {}
        pid = stage.subject.pid
        time.sleep(SETTLE)
        at_rest = Memory.of(pid)
        stage.scrape(subject)
        scraped = Memory.of(pid)
        holder = stage.hold_idle(IDLE_CONNECTIONS)
        time.sleep(SETTLE)
        holding = Memory.of(pid)
        holder.end()
        figures = {
            "resident": at_rest.resident / MIB,
            "proportional": at_rest.proportional / MIB,
            "private": at_rest.private / MIB,
            "proportional_held": holding.proportional / MIB,
            "per_connection": (holding.private - scraped.private) / IDLE_CONNECTIONS / KIB,
        }
        return {**figures, **_worked(scale, stage, pid)} if worked else figures

    return run


def _worked(scale: Scale, stage: Stage, pid: int) -> Figures:
    pace = stage.h2load(scale.of(100_000, 10_000), 4, 32).pace
    warm = Memory.of(pid)
    stage.h2load(scale.within(scale.of(1_000_000, 20_000), pace, seconds=240), 4, 32)
    after = Memory.of(pid)
    return {"growth": (after.private - warm.private) / KIB, "proportional_worked": after.proportional / MIB}


def start(scale: Scale) -> list[Case]:
    """From exec to listening, to the first RPC that passes, and the CPU spent until then."""

    def run(stage: Stage, subject: Subject) -> Figures:
        endpoints = stage.backend()
        process = stage.launch(subject, endpoints)
        if process is None:
            raise Failed("nothing to start")
        listening = process.wait_listening(("127.0.0.1", stage.port), step=STEP)
        stage.wait_ready(step=STEP)
        return {
            "listening": listening * 1000,
            "ready": (time.monotonic() - process.started_at) * 1000,
            "cpu": cpu_ns(process.pid) / 1e6,
        }

    metrics = (
        Metric("listening", "ms", "from start until connections are accepted"),
        Metric("ready", "ms", "from start until an RPC passes"),
        Metric("cpu", "ms", "CPU spent until then"),
    )
    return [Case("start", "to-ready", metrics, run, paired=False)]


def syscalls(scale: Scale) -> list[Case]:
    """System calls per RPC, counted by strace: one at a time, and with 32 at once on 4 connections."""
    lone = _syscalls(scale, "lone", 1, 1, Placement.together)
    return [lone] if scale.quick else [lone, _syscalls(scale, "saturated", 4, 32, Placement.apart)]


def _syscalls(scale: Scale, name: str, clients: int, streams: int, placement: Callable[[], Placement]) -> Case:
    def run(stage: Stage, subject: Subject) -> Figures:
        requests = scale.of(2000, 1000) if clients == 1 else scale.of(20_000, 5_000)
        stage.open(subject, stage.backend())
        stage.h2load(500, clients, streams)
        if stage.subject is None:
            return {}
        with strace.counting(stage, stage.subject.pid) as calls:
            stage.h2load(requests, clients, streams)
        return {"calls": calls.total() / requests, **{f"calls_{key}": n / requests for key, n in calls.most_common(4)}}

    metrics = (Metric("calls", "per RPC", "system calls per RPC, timers and connecting included"),)
    return Case("syscalls", name, metrics, run, placement=placement, paired=False, pairs=2)
