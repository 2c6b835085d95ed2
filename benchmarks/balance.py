"""`python -m benchmarks.balance`: every balancer in every situation of the simulation, as one table per situation.

Each number is the median over the seeds; in brackets the lowest and the highest. Nothing is measured on a clock, so
the same seeds give the same table on every machine.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.plot import bars
from benchmarks.rivals import TwoLeastRequest, TwoPeakEwma
from benchmarks.simulation import Maker, Plan, Record, Server, Service, Simulation
from benchmarks.stats import percentile
from sidecar.policy.least_request import LeastRequest
from sidecar.policy.peak_ewma import PeakEwma
from sidecar.policy.rotation import Random, RoundRobin
from sidecar.rpc.outcome import FAILURE, SUCCESS

POLICIES: dict[str, Maker] = {
    "round_robin": RoundRobin,
    "random": Random,
    "two-choice least request": TwoLeastRequest,
    "least_request": LeastRequest,
    "two-choice peak EWMA": TwoPeakEwma,
    "four-choice peak_ewma": lambda rng: PeakEwma(rng, full_scan=0),
    "peak_ewma": PeakEwma,
}

MEAN = 0.010  # seconds of service where nothing else is said; exponential, so its p99 alone is 46 ms
SERVERS = 10
WORKERS = 4


def exponential(mean: float) -> Service:
    return lambda dice, now: dice.expovariate(1 / mean)


def fleet(*means: float) -> list[Server]:
    return [Server(f"10.0.0.{n}:80", exponential(mean), WORKERS) for n, mean in enumerate(means)]


# === situations ===


def one_slow_instance() -> Plan:
    """Buoyant's test of 2016: 11 instances, 1000 RPC/s, one at 2 s for half of the minute."""

    def sound(dice: random.Random, now: float) -> float:
        return dice.uniform(0.162, 0.172)

    def ailing(dice: random.Random, now: float) -> float:
        return 2.0 if 15.0 <= now < 45.0 else sound(dice, now)

    servers = [Server(f"10.0.0.{n}:80", ailing if n == 0 else sound, workers=0) for n in range(11)]
    return Plan("one of 11 takes 2 s for half of the time", 1000, 60, [(0, servers)])


def three_of_ten_slow(
    load: float, proxies: int = 1, servers: int = SERVERS, seconds: float = 25, judged_from: float = 5
) -> Plan:
    """3 of every 10 servers are three times slower; `load` is the share of what all can do together."""
    slow = 3 * servers // 10
    means = [3 * MEAN] * slow + [MEAN] * (servers - slow)
    capacity = sum(WORKERS / mean for mean in means)
    callers = f"{proxies} sidecar{'s' * (proxies > 1)}"
    name = f"{slow} of {servers} three times slower, {100 * load:.0f} % load, {callers}"
    return Plan(name, load * capacity, seconds, [(0, fleet(*means))], proxies, judged_from)


def cold_instance() -> Plan:
    """An eleventh joins ten: five times slower at first, warm after 5 s."""

    def warming(dice: random.Random, now: float) -> float:
        return dice.expovariate(1 / (MEAN * (1 + 4 * max(0.0, 1 - (now - 10) / 5))))

    before = fleet(*[MEAN] * SERVERS)
    after = [*before, Server("10.0.1.0:80", warming, WORKERS)]
    rate = 0.7 * SERVERS * WORKERS / MEAN
    return Plan("a cold instance joins 10, 70 % load, 20 sidecars", rate, 20, [(0, before), (10, after)], 20, 10)


def fast_failing() -> Plan:
    """One of ten begins to answer UNAVAILABLE within a millisecond; nothing ejects it here."""

    def failing(dice: random.Random, now: float) -> int:
        return FAILURE

    before = fleet(*[MEAN] * SERVERS)
    after = [Server(before[0].address, exponential(MEAN / 10), WORKERS, failing), *before[1:]]
    rate = 0.6 * SERVERS * WORKERS / MEAN
    return Plan("one of 10 fails fast, 60 % load, 20 sidecars", rate, 20, [(0, before), (5, after)], 20, 5)


def errors_everywhere() -> Plan:
    """Every tenth of a per cent of all RPCs fails, wherever it goes: that speaks against nobody."""

    def unlucky(dice: random.Random, now: float) -> int:
        return FAILURE if dice.random() < 0.001 else SUCCESS

    means = [3 * MEAN] * 3 + [MEAN] * (SERVERS - 3)
    servers = [Server(server.address, server.service, WORKERS, unlucky) for server in fleet(*means)]
    rate = 0.8 * sum(WORKERS / mean for mean in means)
    return Plan("3 of 10 slower, 0.1 % errors on all, 80 % load, 20 sidecars", rate, 25, [(0, servers)], 20, 5)


def churn() -> Plan:
    """A rollout: every second one of ten is replaced by a new one."""
    names = [f"10.0.0.{n}:80" for n in range(SERVERS + 20)]
    servers = [Server(name, exponential(MEAN), WORKERS) for name in names]
    fleets = [(5 + step if step else 0, servers[step : step + SERVERS]) for step in range(21)]
    rate = 0.7 * SERVERS * WORKERS / MEAN
    return Plan("one of 10 is replaced every second, 70 % load, 20 sidecars", rate, 26, fleets, 20, 5)


SITUATIONS: dict[str, Callable[[], Plan]] = {
    "slow": one_slow_instance,
    "load70": lambda: three_of_ten_slow(0.7),
    "load80": lambda: three_of_ten_slow(0.8),
    "load90": lambda: three_of_ten_slow(0.9),
    "many": lambda: three_of_ten_slow(0.8, proxies=20),
    # About one RPC in flight at each of the callers.
    "hundred": lambda: three_of_ten_slow(0.8, proxies=400, servers=100, seconds=6, judged_from=2),
    "cold": cold_instance,
    "failing": fast_failing,
    "errors": errors_everywhere,
    "churn": churn,
}


# === what is told of a run ===


@dataclass(frozen=True)
class Facts:
    """One run in numbers. Latencies in milliseconds, of the RPCs that succeeded; shares in per cent of all."""

    p50: float
    p99: float
    p999: float
    in_time: float  # successes within a second
    failed: float


COLUMNS = {"p50": "p50 ms", "p99": "p99 ms", "p999": "p99.9 ms", "in_time": "% ok in 1 s", "failed": "% failed"}


def judge(plan: Plan, record: Record) -> Facts:
    rows = [
        row for row in zip(record.starts, record.latencies, record.outcomes, strict=True) if row[0] >= plan.judged_from
    ]
    good = sorted(latency for _, latency, outcome in rows if outcome == SUCCESS)
    return Facts(
        p50=1000 * percentile(good, 0.5),
        p99=1000 * percentile(good, 0.99),
        p999=1000 * percentile(good, 0.999),
        in_time=100 * sum(latency <= 1 for latency in good) / len(rows),
        failed=100 * (1 - len(good) / len(rows)),
    )


def compare(plan: Plan, policies: Sequence[str], seeds: int) -> dict[str, list[Facts]]:
    """Every policy on the same days."""
    return {
        name: [judge(plan, Simulation(plan, POLICIES[name], seed).run()) for seed in range(seeds)] for name in policies
    }


def table(plan: Plan, results: dict[str, list[Facts]]) -> str:
    """Markdown."""
    lines = [f"### {plan.name[0].upper()}{plan.name[1:]}", ""]
    lines += [f"| balancer | {' | '.join(COLUMNS.values())} |", "| --- |" + " ---: |" * len(COLUMNS)]
    for name, runs in results.items():
        cells = [cell([getattr(facts, column) for facts in runs]) for column in COLUMNS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cell(values: Sequence[float]) -> str:
    """A median, and how far the seeds spread."""
    if max(values) == min(values):
        return digits(values[0])
    return f"{digits(statistics.median(values))} ({digits(min(values))}-{digits(max(values))})"


def digits(value: float) -> str:
    """Four of them, and no exponent."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


def picture(plan: Plan, results: dict[str, list[Facts]]) -> str:
    """p50, p99 and p99.9 per policy, as an SVG."""
    columns = ("p50", "p99", "p999")
    rows = {
        name: [statistics.median(getattr(facts, column) for facts in runs) for column in columns]
        for name, runs in results.items()
    }
    return bars(f"{plan.name[0].upper()}{plan.name[1:]}", [COLUMNS[column] for column in columns], rows)


# What the default is to reach with many sidecars: its p99 as a part of the defaults of others.
REACH = {"two-choice least request": 0.35, "two-choice peak EWMA": 0.85}


def reached(results: dict[str, list[Facts]]) -> dict[str, float]:
    """The median p99 of peak_ewma as a part of each rival's."""
    p99 = {name: statistics.median(facts.p99 for facts in runs) for name, runs in results.items()}
    return {rival: p99["peak_ewma"] / p99[rival] for rival in REACH}


def verdict(results: dict[str, list[Facts]]) -> str:
    """`reached` in a sentence."""
    parts = [
        f"{part:.2f} of {rival}'s (at most {REACH[rival]}: {'reached' if part <= REACH[rival] else 'missed'})"
        for rival, part in reached(results).items()
    ]
    return f"p99 of peak_ewma: {', '.join(parts)}\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.balance", description=__doc__)
    parser.add_argument("situations", nargs="*", help=f"of {', '.join(SITUATIONS)}; all if none is named")
    parser.add_argument("--policies", help=f"of {', '.join(POLICIES)}; all if none is named")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--plot", type=Path, metavar="DIR", help="write an SVG per situation there")
    options = parser.parse_args()
    policies = options.policies.split(",") if options.policies else list(POLICIES)
    unknown = [name for name in options.situations if name not in SITUATIONS]
    unknown += [name for name in policies if name not in POLICIES]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    for name in options.situations or SITUATIONS:
        plan = SITUATIONS[name]()
        results = compare(plan, policies, options.seeds)
        print(table(plan, results), flush=True)
        if name == "many" and {"peak_ewma", *REACH} <= results.keys():
            print(verdict(results), flush=True)
        if options.plot:
            options.plot.mkdir(parents=True, exist_ok=True)
            (options.plot / f"{name}.svg").write_text(picture(plan, results), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
