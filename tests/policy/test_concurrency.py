"""The adaptive limit: its vectors, and a simulated upstream that it must find the size of, and protect."""

from __future__ import annotations

import heapq
import random

import pytest

from sidecar.policy.concurrency import FIRST_LIMIT, SAMPLES, WINDOW, Concurrency, ConcurrencySettings

SERVICE = 0.02  # seconds that the simulated upstream works on one RPC


def window(limit: Concurrency, seconds: float, in_flight: int, now: float) -> float:
    """One full window of RPCs that all took `seconds`; returns the time after it."""
    for _ in range(SAMPLES):
        limit.note(seconds, in_flight, now)
    limit.note(seconds, in_flight, now + WINDOW)
    return now + WINDOW + 0.01


def fresh(**settings: float) -> Concurrency:
    return Concurrency(ConcurrencySettings(**settings), random.Random(1))  # type: ignore[arg-type]


# === vectors ===


def test_while_nothing_waits_the_limit_grows_as_far_as_it_is_used() -> None:
    limit = fresh()
    now = window(limit, 0.01, FIRST_LIMIT, 100.0)
    assert (limit.baseline, limit.limit) == (0.01, int(FIRST_LIMIT * 1.25 + FIRST_LIMIT**0.5))
    held = limit.limit
    for _ in range(20):
        now = window(limit, 0.01, held // 3, now)
    assert limit.limit == held


def test_latency_above_the_baseline_shrinks_it_by_half_at_most() -> None:
    limit = fresh()
    now = window(limit, 0.01, 20, 100.0)
    limit.limit = 100
    now = window(limit, 0.02, 100, now)
    assert limit.limit == int(100 * 1.25 / 2 + 10)
    limit.limit = 100
    window(limit, 10.0, 100, now)
    assert limit.limit == 60


def test_it_stays_between_its_bounds() -> None:
    limit = fresh(min_limit=7, max_limit=40)
    now = window(limit, 0.01, 20, 100.0)
    for _ in range(20):
        now = window(limit, 0.01, limit.limit, now)
    assert limit.limit == 40
    for _ in range(20):
        now = window(limit, 1.0, limit.limit, now)
    assert limit.limit == 7


def test_an_old_baseline_is_measured_anew_with_half_the_limit() -> None:
    limit = fresh(probe_interval=10.0)
    now = window(limit, 0.01, 20, 100.0)
    limit.limit = 40
    now = window(limit, 0.015, 40, now + 12.0)
    assert (limit.probing, limit.limit) == (True, 20)
    limit.note(0.015, 30, now)  # the excess still runs
    assert limit.probing
    now = window(limit, 0.012, 20, now + 0.1)
    assert limit.baseline == 0.01  # these began before the excess was gone
    window(limit, 0.012, 20, now)
    assert (limit.probing, limit.baseline) == (False, 0.012)
    assert limit.limit >= 40


def test_a_lightly_used_upstream_needs_no_probe() -> None:
    limit = fresh(probe_interval=10.0)
    now = window(limit, 0.01, 20, 100.0)
    window(limit, 0.03, 5, now + 12.0)
    assert (limit.probing, limit.baseline) == (False, 0.03)


# === simulation ===


class Upstream:
    """`workers` at a time, `SERVICE` seconds each, the rest waits in a queue; RPCs come by chance at `rate`."""

    def __init__(self, workers: int, rate: float, limit: Concurrency | None, seed: int = 1) -> None:
        self.workers, self.rate, self.limit = workers, rate, limit
        self.rng = random.Random(seed)
        self.now = 0.0
        self.free_at = [0.0] * workers
        self.running: list[tuple[float, float]] = []  # (end, start)
        self.latencies: list[float] = []
        self.refused = 0

    def resize(self, workers: int) -> None:
        self.workers = workers
        self.free_at = sorted(self.free_at)[:workers] + [self.now] * (workers - len(self.free_at))

    def run(self, seconds: float) -> None:
        self.latencies, self.refused = [], 0
        until = self.now + seconds
        while self.now < until:
            self.now += self.rng.expovariate(self.rate)
            while self.running and self.running[0][0] <= self.now:
                end, start = heapq.heappop(self.running)
                self.latencies.append(end - start)
                if self.limit is not None:
                    self.limit.note(end - start, len(self.running) + 1, end)
            if self.limit is not None and len(self.running) >= self.limit.limit:
                self.refused += 1
                continue
            worker = min(range(self.workers), key=self.free_at.__getitem__)
            begin = max(self.now, self.free_at[worker])
            self.free_at[worker] = begin + SERVICE * self.rng.uniform(0.8, 1.2)
            heapq.heappush(self.running, (self.free_at[worker], self.now))

    def tail(self) -> float:
        """The 99th percentile."""
        return sorted(self.latencies)[int(0.99 * len(self.latencies))]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_finds_the_size_of_an_overloaded_upstream_and_keeps_it_busy(seed: int) -> None:
    workers = 10
    limit = Concurrency(ConcurrencySettings(), random.Random(seed))
    upstream = Upstream(workers, 2 * workers / SERVICE, limit, seed)
    upstream.run(5.0)
    upstream.run(20.0)
    assert workers <= limit.limit <= 3 * workers
    assert len(upstream.latencies) > 0.95 * 20.0 * workers / SERVICE
    assert upstream.tail() < 4 * SERVICE
    without = Upstream(workers, 2 * workers / SERVICE, None, seed)
    without.run(5.0)
    assert without.tail() > 50 * SERVICE


def test_it_follows_an_upstream_that_loses_half_its_workers_and_gets_them_back() -> None:
    limit = Concurrency(ConcurrencySettings(probe_interval=5.0), random.Random(1))
    upstream = Upstream(20, 30 / SERVICE, limit)
    upstream.run(10.0)
    upstream.resize(10)
    upstream.run(5.0)
    upstream.run(10.0)
    assert upstream.tail() < 5 * SERVICE
    assert len(upstream.latencies) > 0.9 * 10.0 * 10 / SERVICE
    upstream.resize(20)
    upstream.run(5.0)
    upstream.run(10.0)
    assert len(upstream.latencies) > 0.9 * 10.0 * 20 / SERVICE
    assert upstream.tail() < 4 * SERVICE


def test_nobody_is_refused_while_the_upstream_can_bear_it() -> None:
    limit = Concurrency(ConcurrencySettings(probe_interval=2.0), random.Random(1))
    upstream = Upstream(20, 10 / SERVICE, limit)
    upstream.run(5.0)
    upstream.run(20.0)
    assert upstream.refused == 0
