"""A real gRPC client and server, grpcio's: they index other headers and batch otherwise than h2load does.

They are slow enough for a CPU to halt between two RPCs. So that the price of waking it is not what is measured, all of
them share one CPU with the proxy.
"""

from __future__ import annotations

import json

from benchmarks.case import Case, Figures, Metric, Scale
from benchmarks.process import Placement
from benchmarks.stage import Stage
from benchmarks.subject import Subject
from benchmarks.verify import open_greeter

METRICS = (
    Metric("cpu", "us/RPC", "CPU of the proxy per RPC"),
    Metric("p50", "us", "median latency that the client sees", ratio=False),
    Metric("p99", "us", "99th percentile", ratio=False),
)


def grpc(scale: Scale) -> list[Case]:
    """One call at a time, and 32 at once, on one channel."""
    return [_case(scale, in_flight) for in_flight in ((32,) if scale.quick else (1, 32))]


def _case(scale: Scale, in_flight: int) -> Case:
    def run(stage: Stage, subject: Subject) -> Figures:
        open_greeter(stage, subject)
        arguments = ["load", f"--target=127.0.0.1:{stage.port}", f"--in-flight={in_flight}"]
        rpcs = scale.of(6_400, 1_600)
        stage.python("benchmarks.greeter", *arguments, "--rpcs=320")
        with stage.measured() as reading:
            seen = json.loads(stage.python("benchmarks.greeter", *arguments, f"--rpcs={rpcs}"))
        return {"cpu": reading.us_per(seen["rpcs"]), "p50": seen["p50"], "p99": seen["p99"]}

    return Case("grpc", f"{in_flight}-in-flight", METRICS, run, placement=Placement.together)
