"""A seeded simulation of sidecars, their balancers and a fleet of servers; time is a number that events move.

What balances is the sidecar's own `Cluster` with a real balancer, one per simulated sidecar, each of which sees only
what it sent itself. Simulated are the callers (a Poisson process) and the servers (workers, and a queue before them).
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sidecar.policy.balancer import Balancer
from sidecar.policy.cluster import Cluster
from sidecar.policy.endpoint import READY, Endpoint
from sidecar.policy.snapshot import Member, Snapshot
from sidecar.rpc.outcome import SUCCESS

Maker = Callable[[random.Random], Balancer]
Service = Callable[[random.Random, float], float]
Verdict = Callable[[random.Random, float], int]


def succeed(dice: random.Random, now: float) -> int:
    return SUCCESS


@dataclass(frozen=True)
class Server:
    """One instance. `workers` 0: as many as it takes. `service` draws the seconds that one RPC takes at `now`."""

    address: str
    service: Service
    workers: int = 4
    verdict: Verdict = succeed


@dataclass(frozen=True)
class Plan:
    """A situation. `rate`: RPCs per second of all sidecars together; `fleets`: which servers there are from when on."""

    name: str
    rate: float
    seconds: float
    fleets: Sequence[tuple[float, Sequence[Server]]]
    proxies: int = 1
    judged_from: float = 0.0


@dataclass
class Record:
    """What the callers saw: of each RPC its start, latency, outcome and server."""

    starts: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    outcomes: list[int] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)

    def add(self, rpc: _Rpc, now: float, outcome: int) -> None:
        self.starts.append(rpc.started_at)
        self.latencies.append(now - rpc.started_at)
        self.outcomes.append(outcome)
        self.addresses.append(rpc.endpoint.address)


class _Rpc:
    __slots__ = ("cluster", "endpoint", "started_at")

    def __init__(self, cluster: Cluster, endpoint: Endpoint, now: float) -> None:
        self.cluster = cluster
        self.endpoint = endpoint
        self.started_at = now


class _Station:
    """A server at work."""

    __slots__ = ("busy", "queue", "server")

    def __init__(self, server: Server) -> None:
        self.server = server
        self.busy = 0
        self.queue: deque[_Rpc] = deque()


class Simulation:
    """One run of a plan. The balancers' dice, the arrivals and the servers' are three: policies face the same day."""

    def __init__(self, plan: Plan, maker: Maker, seed: int) -> None:
        self.plan = plan
        self.record = Record()
        self._arrivals = random.Random(f"arrivals {seed}")
        self._service = random.Random(f"service {seed}")
        self._stations: dict[str, _Station] = {}
        self._events: list[tuple[float, int, _Rpc]] = []  # ends of service
        self._order = itertools.count()
        self.clusters = [Cluster("simulated", maker(random.Random(f"dice {seed} {n}"))) for n in range(plan.proxies)]

    def run(self) -> Record:
        """Play it to the end; RPCs that are still running then are waited for."""
        plan, arrivals = self.plan, self._arrivals
        fleets = deque(plan.fleets)
        arrival = arrivals.expovariate(plan.rate)
        while arrival < plan.seconds or self._events:
            while fleets and fleets[0][0] <= arrival:
                self._finish_until(fleets[0][0])
                self._deploy(*fleets.popleft())
            self._finish_until(arrival)
            if arrival < plan.seconds:
                self._call(arrivals.choice(self.clusters), arrival)
                arrival += arrivals.expovariate(plan.rate)
            else:
                arrival = float("inf")
        return self.record

    def _deploy(self, now: float, servers: Sequence[Server]) -> None:
        """From now on these are the members; what runs on those that left is finished."""
        for server in servers:
            station = self._stations.get(server.address)
            if station is None:
                self._stations[server.address] = _Station(server)
            else:
                station.server = server
        members = tuple(Member(address=server.address) for server in servers)
        for cluster in self.clusters:
            for endpoint in cluster.apply(Snapshot(service="simulated", members=members, source="static"), now).added:
                cluster.set_connectivity(endpoint, READY)

    def _call(self, cluster: Cluster, now: float) -> None:
        endpoint = cluster.pick(None, now)
        assert isinstance(endpoint, Endpoint)
        cluster.begin_attempt(endpoint)
        rpc = _Rpc(cluster, endpoint, now)
        station = self._stations[endpoint.address]
        if station.busy < station.server.workers or not station.server.workers:
            self._serve(station, rpc, now)
        else:
            station.queue.append(rpc)

    def _serve(self, station: _Station, rpc: _Rpc, now: float) -> None:
        station.busy += 1
        heapq.heappush(self._events, (now + station.server.service(self._service, now), next(self._order), rpc))

    def _finish_until(self, end: float) -> None:
        """Every service that ends before `end`, in order."""
        events = self._events
        while events and events[0][0] <= end:
            now, _, rpc = heapq.heappop(events)
            station = self._stations[rpc.endpoint.address]
            outcome = station.server.verdict(self._service, now)
            rpc.cluster.end_attempt(rpc.endpoint)
            rpc.cluster.balancer.done(rpc.endpoint, outcome, now - rpc.started_at, now)
            self.record.add(rpc, now, outcome)
            station.busy -= 1
            if station.queue:
                self._serve(station, station.queue.popleft(), now)
