"""What happens to the cost per RPC and to memory as the numbers grow: app connections, endpoints, open streams."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.accounting import resident
from benchmarks.case import Case, Figures, Metric, Scale
from benchmarks.process import Placement
from benchmarks.stage import Stage
from benchmarks.subject import Subject

CPU = Metric("cpu", "us/RPC", "CPU of the proxy per RPC")
MANY_ENDPOINTS, FEW_ENDPOINTS = 1000, 3
STREAM_CLIENTS, STREAMS_EACH = 10, 1000
# RPCs of each endpoint before anything is counted: header tables and memory of a connection are then there. Many at a
# time, since a balancer may send one RPC after the other to a few endpoints only.
WARM_UP = 20
QUICK_WARM_UP = 5
WARM_UP_CLIENTS, WARM_UP_STREAMS = 4, 32
TURNS = 5  # of each side: the machine has moods that last for seconds
HELD = 1.0  # seconds for which the backend holds every stream open


def growth(scale: Scale) -> list[Case]:
    """The three growths."""
    connections = [_connections(scale, count) for count in ((1000,) if scale.quick else (10, 100, 1000))]
    lone = _endpoints(scale, "lone", 1, 1, Placement.together)
    if scale.quick:
        return [*connections, lone]
    return [*connections, lone, _endpoints(scale, "saturated", 4, 32, Placement.apart), _streams(scale)]


def _connections(scale: Scale, count: int) -> Case:
    def run(stage: Stage, subject: Subject) -> Figures:
        stage.open(subject, stage.backend())
        pace = stage.h2load(max(2_000, count), count, 1).pace
        requests = scale.within(scale.of(max(50_000, 200 * count), 10_000), pace, seconds=30)
        with stage.measured() as reading:
            stage.h2load(requests, count, 1)
        return {"cpu": reading.us_per(requests)}

    return Case("growth", f"{count}-connections", (CPU,), run)


def _endpoints(scale: Scale, name: str, clients: int, streams: int, placement: Callable[[], Placement]) -> Case:
    """The same subject with few and with many endpoints: both stand all the while, and are asked in turn.

    Lone RPCs show what choosing among many costs. Saturated ones also show that an RPC travels alone to each of a
    thousand connections: no proxy can batch what goes to different places.
    """

    def prepared(stage: Stage, subject: Subject, count: int) -> float:
        """Seconds that an RPC takes when all is warm."""
        stage.open(subject, stage.backend(count))
        stage.h2load(max(3_000, scale.of(WARM_UP, QUICK_WARM_UP) * count), WARM_UP_CLIENTS, WARM_UP_STREAMS)
        return stage.h2load(scale.of(3_000, 1_000), clients, streams).pace

    def run(stage: Stage, subject: Subject) -> Figures:
        with Stage(placement()) as other:
            sides = ((stage, FEW_ENDPOINTS), (other, MANY_ENDPOINTS))
            pace = max(prepared(side, subject, count) for side, count in sides)
            requests = scale.within(scale.of(10_000 if clients == 1 else 50_000, 2_000), pace) // TURNS
            spent = [0.0, 0.0]
            for turn in range(TURNS):
                for which in (turn % 2, 1 - turn % 2):
                    with sides[which][0].measured() as reading:
                        sides[which][0].h2load(requests, clients, streams)
                    spent[which] += reading.us_per(requests) / TURNS
            stage.readings += other.readings
        few, many = spent
        return {"few": few, "many": many, "growth": many / few}

    metrics = (
        Metric("few", "us/RPC", f"CPU of the proxy per RPC with {FEW_ENDPOINTS} endpoints"),
        Metric("many", "us/RPC", f"CPU of the proxy per RPC with {MANY_ENDPOINTS} endpoints"),
        Metric("growth", "times", "the second over the first", ratio=False),
    )
    return Case("growth", f"{MANY_ENDPOINTS}-endpoints-{name}", metrics, run, placement=placement)


def _streams(scale: Scale) -> Case:
    def run(stage: Stage, subject: Subject) -> Figures:
        at_once = STREAM_CLIENTS * STREAMS_EACH
        requests = at_once * scale.of(5, 2)
        stage.open(subject, stage.backend(delay=HELD))
        pid = stage.subject.pid if stage.subject else None
        stage.h2load(1000, STREAM_CLIENTS, 100)
        peak = before = resident(pid) if pid else 0

        def watch() -> None:
            nonlocal peak
            if pid:
                peak = max(peak, resident(pid))

        with stage.measured() as reading:
            stage.h2load(requests, STREAM_CLIENTS, STREAMS_EACH, watch=watch)
        return {
            "cpu": reading.us_per(requests),
            "peak": peak / 2**20,
            "per_stream": (peak - before) / at_once / 1024,
        }

    metrics = (
        CPU,
        Metric("peak", "MiB", "highest resident memory with 10 000 streams open"),
        Metric("per_stream", "KiB", "memory that each of them adds", ratio=False),
    )
    # Envoy as found lets 1024 requests through at a time; the tuned one stands for it.
    return Case("growth", "10000-streams", metrics, run, without=("envoy",), paired=False)
