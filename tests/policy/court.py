"""A cluster and its judge on a clock that the test moves: attempts end, time passes, and what came of it is kept."""

from __future__ import annotations

import random

from sidecar.policy.cluster import Cluster
from sidecar.policy.ejection import Ejection
from sidecar.policy.ejection_settings import EjectionSettings
from sidecar.policy.endpoint import EJECTED, HEALTHY, PROBATION, READY, Endpoint
from sidecar.policy.event import Event
from sidecar.policy.judge import Classifier
from sidecar.policy.rotation import RoundRobin
from sidecar.policy.settings import BalancingSettings
from sidecar.policy.snapshot import Member, Snapshot
from sidecar.rpc import status as codes
from sidecar.rpc.outcome import LOCAL, NOBODY, REMOTE, RESET, SUCCESS, TIMEOUT, outcome_of_status

PATH = b"/orders.Orders/Get"
START = 1000.0


class Court:
    """`count` connected endpoints under one Ejection. Jitter is off, so that times are exact."""

    def __init__(
        self,
        count: int = 3,
        *,
        classifier: Classifier | None = None,
        slow_start: float = 0.0,
        seed: int = 7,
        **changes: object,
    ) -> None:
        self.now = START
        self.cluster = Cluster("orders", RoundRobin(random.Random(1)), BalancingSettings(slow_start=slow_start))
        self.discover(count)
        self.settings = EjectionSettings(**{"jitter": 0.0, **changes})  # type: ignore[arg-type]
        self.ejection = Ejection(self.cluster, self.settings, random.Random(seed), self.now, classifier)
        self.events: list[Event] = []
        self.serving: set[Endpoint] = set()  # those that have begun to answer their trial

    def discover(self, count: int) -> None:
        """The registry lists so many; all of them are connected at once."""
        members = tuple(Member(address=f"10.0.0.{n}:80") for n in range(count))
        self.cluster.apply(Snapshot(service="orders", members=members, source="consul"), self.now)
        for endpoint in self.cluster.endpoints:
            self.cluster.set_connectivity(endpoint, READY)

    def __getitem__(self, index: int) -> Endpoint:
        return self.cluster.endpoints[index]

    # -- attempts that end now --

    def end(self, index: int, outcome: int, status: int, blame: int = REMOTE, began_at: float | None = None) -> None:
        event = self.ejection.record(
            self[index], blame, outcome, status, self.now if began_at is None else began_at, self.now, PATH
        )
        if event is not None:
            self.events.append(event)

    def answer(self, index: int, status: int = codes.OK, times: int = 1, began_at: float | None = None) -> None:
        for _ in range(times):
            self.end(index, outcome_of_status(status), status, began_at=began_at)

    def fail(self, index: int, times: int = 1) -> None:
        self.answer(index, codes.UNAVAILABLE, times)

    def time_out(self, index: int, times: int = 1) -> None:
        for _ in range(times):
            self.end(index, TIMEOUT, codes.DEADLINE_EXCEEDED)

    def reset(self, index: int, times: int = 1) -> None:
        for _ in range(times):
            self.end(index, RESET, codes.INTERNAL)

    def lose(self, index: int) -> None:
        """Its connection is lost with an RPC on it."""
        self.end(index, RESET, codes.UNAVAILABLE, LOCAL)

    def ignore(self, index: int, outcome: int) -> None:
        self.end(index, outcome, codes.CANCELLED, NOBODY)

    # -- time --

    def pass_time(self, seconds: float) -> None:
        """Time passes, and `tick` is called when `next_at` says so."""
        until = self.now + seconds
        while True:
            due_at = self.ejection.next_at()
            if due_at is None or due_at > until:
                break
            self.now = max(self.now, due_at)
            before = self.ejection.next_at()
            self.events += self.ejection.tick(self.now, self.serving.__contains__)
            assert self.ejection.next_at() != before, "what was due is done"
        self.now = until

    def try_once(self, index: int, status: int = codes.OK) -> None:
        """The trial of an endpoint in probation."""
        assert self[index].state == PROBATION
        assert self.cluster.pick(None, self.now) is self[index]
        self.ejection.begin_trial(self[index], self.now)
        self.answer(index, status)

    # -- what came of it --

    @property
    def states(self) -> str:
        """One letter per endpoint."""
        return "".join({HEALTHY: "h", EJECTED: "e", PROBATION: "p"}[e.state] for e in self.cluster.endpoints)

    @property
    def told(self) -> list[tuple[str, str, str]]:
        """Kind, reason and why withheld of every event."""
        return [(event.kind, event.reason, event.withheld) for event in self.events]

    def time_out_of(self, index: int) -> float:
        """For how long it is ejected from now."""
        standing = self[index].standing
        assert standing is not None
        return standing.until - self.now


__all__ = ["LOCAL", "NOBODY", "REMOTE", "SUCCESS", "Court"]
