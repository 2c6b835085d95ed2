"""CPU per unary RPC: saturated (many at once, the subject alone on its CPU) and lone (one at a time on one CPU)."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

from benchmarks.case import Case, Metric, Scale, Turns
from benchmarks.process import Placement
from benchmarks.stage import Stage
from benchmarks.subject import Subject

CPU = Metric("cpu", "us/RPC", "CPU of the proxy per RPC")
RATE = Metric("rate", "RPC/s", "RPCs per second with the generator's CPU shared by the backend", larger_is_better=True)
TURNS = 5  # of each subject in a round
WALL = Metric("wall", "us/RPC", "wall time per RPC; on one CPU this is everybody's CPU")


def saturated(scale: Scale) -> list[Case]:
    """As many RPCs as the subject can take: -c 4 -m 32 and -c 1 -m 100."""
    return [
        _saturated(scale, "c4-m32", 4, 32, 1),
        _saturated(scale, "c1-m100", 1, 100, 1),
        *([] if scale.quick else [_saturated(scale, "c4-m32-3-endpoints", 4, 32, 3)]),
    ]


def same(scale: Scale) -> list[Case]:
    """A/A: nghttpx against itself. Its interval is the noise of this machine and must contain 1.00 +- 0.03."""
    case = _saturated(scale, "nghttpx-twice", 4, 32, 1)
    return [replace(case, mode="same", baseline="nghttpx", peers=("nghttpx-again",))]


def own_balancer(scale: Scale) -> list[Case]:
    """A balancer in Python plugged in, against the built-in one: at most 15 % more is what was promised."""
    case = _saturated(scale, "c4-m32-3-endpoints", 4, 32, 3)
    return [replace(case, mode="balancer", baseline="sidecar", peers=("sidecar-own-balancer",))]


def _saturated(scale: Scale, name: str, clients: int, streams: int, endpoints: int) -> Case:
    def run(stage: Stage, subject: Subject) -> Turns:
        stage.open(subject, stage.backend(endpoints))
        pace = stage.h2load(5_000, clients, streams).pace
        requests = scale.within(scale.of(50_000, 20_000), pace)
        cpu, wall = yield from _in_turns(stage, requests, clients, streams)
        return {"cpu": cpu, "rate": 1e6 / wall}

    return Case("saturated", name, (CPU, RATE), run)


def _in_turns(stage: Stage, requests: int, clients: int, streams: int) -> Generator[None, None, tuple[float, float]]:
    """Microseconds of CPU and of wall time per RPC, over as many `requests` in TURNS parts."""
    part = requests // TURNS
    cpu = wall = 0.0
    for _ in range(TURNS):
        yield
        with stage.measured() as reading:
            wall += stage.h2load(part, clients, streams).seconds * 1e6
        cpu += reading.us_per(1)
    return cpu / (part * TURNS), wall / (part * TURNS)


def lone(scale: Scale) -> list[Case]:
    """One RPC at a time, everything on one CPU: -c 1 -m 1."""

    def run(stage: Stage, subject: Subject) -> Turns:
        stage.open(subject, stage.backend())
        requests = scale.within(scale.of(10_000, 5_000), stage.h2load(1_000, 1, 1).pace)
        cpu, wall = yield from _in_turns(stage, requests, 1, 1)
        return {"cpu": cpu, "wall": wall}

    wall = replace(WALL, ratio=False)
    added = Metric(
        "added_wall",
        "us/RPC",
        "wall time that the hop adds: what it costs everybody, the kernel included",
        difference=True,
    )
    return [
        Case(
            "lone",
            "c1-m1",
            (CPU, wall, added),
            run,
            placement=Placement.together,
            paired=True,
            direct=True,
            added=("wall",),
        )
    ]
