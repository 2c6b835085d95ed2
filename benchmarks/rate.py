"""Latency at a fixed rate, open loop: what the hop adds at 200, 1000 and 2000 RPC/s, at the median and in the tail.

Both CPUs are kept from halting by loops of the lowest class (SCHED_IDLE): otherwise the tail is the hypervisor's. CPU
per RPC is not compared here; across CPUs it is mostly the price of waking the other one.
"""

from __future__ import annotations

import json

from benchmarks.case import Case, Figures, Metric, Scale
from benchmarks.process import Failed
from benchmarks.stage import REQUEST, UNARY, Stage
from benchmarks.stats import Histogram
from benchmarks.subject import Subject

RATES = (200, 1000, 2000)
SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
LATE = 200.0  # us: a generator that is later than this at its 99th percentile measures itself


def rate(scale: Scale) -> list[Case]:
    """One case per rate."""
    return [_case(scale, per_second) for per_second in ((1000,) if scale.quick else RATES)]


def _case(scale: Scale, per_second: int) -> Case:
    def run(stage: Stage, subject: Subject) -> Figures:
        stage.spin()
        stage.open(subject, stage.backend())
        seconds = scale.of(max(5, 5000 // per_second), 2)
        with stage.measured() as reading:
            text = stage.python(
                "benchmarks.openloop",
                f"--target=127.0.0.1:{stage.port}",
                f"--rate={per_second}",
                f"--seconds={seconds}",
                f"--size={REQUEST}",
                f"--reply={UNARY}",
            )
        latency, lateness = (
            Histogram({int(bucket): count for bucket, count in counts.items()}) for counts in json.loads(text).values()
        )
        if lateness.percentile(0.99) / 1000 > LATE:
            reading.excuse = f"the generator was {lateness.percentile(0.99) / 1000:.0f} us late"
        if latency.total != per_second * seconds:
            raise Failed(f"{latency.total} of {per_second * seconds} RPCs were measured")
        return {name: latency.percentile(share) / 1000 for name, share in SHARES.items()}

    measured = tuple(Metric(name, "us", f"{name} from planned departure to last frame", ratio=False) for name in SHARES)
    added = tuple(
        Metric(f"added_{name}", "us", f"{name} minus that of the same round without a proxy", difference=True)
        for name in SHARES
    )
    return Case("rate", f"{per_second}-per-s", (*measured, *added), run, paired=False, direct=True, added=tuple(SHARES))
