"""Large messages and long streams: octets per second, and the CPU that a gigabyte costs.

Frames are 16 KiB, HTTP/2's default, for every subject; windows are as large as each of them allows by its settings.
"""

from __future__ import annotations

from benchmarks.case import Case, Figures, Metric, Scale
from benchmarks.stage import REQUEST, UNARY, Stage
from benchmarks.subject import Subject

KIB, MIB, GIB = 2**10, 2**20, 2**30
MESSAGES = {"64KiB": 64 * KIB, "1MiB": MIB, "4MiB": 4 * MIB}
CLIENTS, STREAMS = 2, 2
METRICS = (
    Metric("per_cpu", "MB/CPU-s", "octets moved per second of the proxy's CPU", larger_is_better=True),
    Metric("cpu", "s/GB", "CPU of the proxy per 10^9 octets moved"),
    Metric("speed", "MB/s", "octets moved per second of wall time", larger_is_better=True),
)


def bulk(scale: Scale) -> list[Case]:
    """Unary both ways in three sizes, and one server stream of a gibibyte."""
    cases = [_unary(scale, name, size) for name, size in MESSAGES.items() if not scale.quick or size == MIB]
    return [*cases, _stream(scale)]


def _figures(octets: int, cpu_ns: int, seconds: float) -> Figures:
    megabytes, cpu = octets / 1e6, max(cpu_ns, 1) / 1e9
    return {"per_cpu": megabytes / cpu, "cpu": cpu / megabytes * 1000, "speed": megabytes / seconds}


def _unary(scale: Scale, name: str, size: int) -> Case:
    def run(stage: Stage, subject: Subject) -> Figures:
        stage.open(subject, stage.backend(reply=size))
        requests = max(CLIENTS, scale.of(512 * MIB, 64 * MIB) // size // CLIENTS * CLIENTS)
        stage.h2load(max(CLIENTS, requests // 10), CLIENTS, STREAMS, size=size, reply=size)
        with stage.measured() as reading:
            outcome = stage.h2load(requests, CLIENTS, STREAMS, size=size, reply=size)
        return _figures(2 * size * requests, reading.cpu_ns, outcome.seconds)

    return Case("bulk", f"unary-{name}", METRICS, run)


def _stream(scale: Scale) -> Case:
    def run(stage: Stage, subject: Subject) -> Figures:
        size = scale.of(GIB, GIB // 4)
        stage.open(subject, stage.backend(reply=UNARY))
        stage.h2load(1000, 1, 10)
        stage.retire_subject()
        stage.open(subject, stage.backend(reply=size), probing=False)
        stage.scrape(subject)
        with stage.measured() as reading:
            outcome = stage.h2load(1, 1, 1, size=REQUEST, reply=size)
        return _figures(size, reading.cpu_ns, outcome.seconds)

    return Case("bulk", "server-stream-1GiB", METRICS, run)
