"""A small process to look at: real clusters and real counters behind a SidecarView, and an admin server on port 0."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import aiohttp

from sidecar.admin.server import AdminServer
from sidecar.admin.settings import AdminSettings
from sidecar.admin.view import UpstreamView
from sidecar.policy.cluster import Cluster
from sidecar.policy.endpoint import CONNECTING, EJECTED, READY, TRANSIENT_FAILURE
from sidecar.policy.rotation import RoundRobin
from sidecar.policy.snapshot import SUSPECT, Member, Snapshot
from sidecar.telemetry.metrics import ListenerMetrics, ProcessMetrics, RegistryMetrics, UpstreamMetrics

NOW = 1000.0


class Desk:
    """A view made by hand. It remembers the commands it was given."""

    def __init__(self, upstreams: Sequence[UpstreamView] = ()) -> None:
        self.shown = list(upstreams)
        self.reasons: list[str] = []
        self.alive = True
        self.mistakes: list[str] = []
        self.problems: list[str] = []
        self.commands: list[str] = []
        self.registry = RegistryMetrics()
        self.process = ProcessMetrics()
        self.listeners = [ListenerMetrics("orders")]

    def upstreams(self) -> Sequence[UpstreamView]:
        return self.shown

    def listener_metrics(self) -> Sequence[ListenerMetrics]:
        return self.listeners

    def registry_metrics(self) -> RegistryMetrics:
        return self.registry

    def process_metrics(self) -> ProcessMetrics:
        return self.process

    def readiness(self) -> Sequence[str]:
        return self.reasons

    def loop_alive(self) -> bool:
        return self.alive

    def config_dump(self) -> Mapping[str, object]:
        return {"registry": {"consul": {"token": "[redacted]"}}, "upstreams": [{"service": "<b>orders</b>"}]}

    def server_info(self) -> Mapping[str, object]:
        info = {"version": "1.2.3", "python": "3.11.2", "codec": "reference", "loop": "asyncio", "compiled": "no"}
        return {**info, "uptime_seconds": 5.0}

    async def drain(self) -> Sequence[str]:
        self.commands.append("drain")
        return self.problems

    async def reload(self) -> Sequence[str]:
        self.commands.append("reload")
        return self.mistakes

    def set_log_level(self, level: str) -> None:
        if level != "debug":
            raise ValueError(f"'{level}' is no log level; there are debug.")
        self.commands.append(f"level {level}")

    def quit(self) -> None:
        self.commands.append("quit")

    def now(self) -> float:
        return NOW


def orders() -> UpstreamView:
    """Four endpoints: ready, ejected, unreachable, and one that the registry no longer stands behind."""
    cluster = Cluster("orders", RoundRobin(random.Random(1)))
    members = (
        Member(address="10.0.0.1:80", id="orders-1", weight=3, zone="a", tags=("v1",)),
        Member(address="10.0.0.2:80", id="orders-2"),
        Member(address="10.0.0.3:80", id="orders-3"),
        Member(address="10.0.0.4:80", id="orders-4", status=SUSPECT),
    )
    cluster.apply(Snapshot(service="orders", members=members, source="consul", index=77), NOW - 60)
    cluster.note_registry(True, "answers", NOW - 2)
    first, second, third, fourth = cluster.endpoints
    for endpoint in (first, second, fourth):
        cluster.set_connectivity(endpoint, READY)
        endpoint.connections = 1
    cluster.set_connectivity(third, TRANSIENT_FAILURE, "connection refused")
    cluster.set_state(second, EJECTED, "5 failures in a row", NOW - 10)
    first.in_flight = 2
    first.successes = 9
    first.failures = 1
    first.latency.observe(0.004)
    metrics = UpstreamMetrics("orders")
    metrics.queued = 1
    return UpstreamView(cluster=cluster, metrics=metrics, listen="127.0.0.1:15001")


def prices() -> UpstreamView:
    """Nothing known yet."""
    cluster = Cluster("prices", RoundRobin(random.Random(1)))
    return UpstreamView(cluster=cluster, metrics=UpstreamMetrics("prices"), listen="127.0.0.1:15002")


def stuck() -> UpstreamView:
    """One static endpoint whose connection is not up."""
    cluster = Cluster("stuck", RoundRobin(random.Random(1)))
    cluster.apply(Snapshot(service="stuck", members=(Member(address="10.0.0.9:80"),), source="static"), NOW)
    cluster.set_connectivity(cluster.endpoints[0], CONNECTING)
    return UpstreamView(cluster=cluster, metrics=UpstreamMetrics("stuck"), listen="127.0.0.1:15003")


class Caller:
    """An HTTP client on the server's addresses."""

    def __init__(self, session: aiohttp.ClientSession, server: AdminServer) -> None:
        self.session = session
        self.server = server

    async def ask(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, probe: bool = False
    ) -> tuple[int, str, aiohttp.ClientResponse]:
        """The status, the body, and the response for its headers."""
        address = self.server.probe_address if probe else self.server.address
        async with self.session.request(method, f"http://{address}{path}", headers=headers) as response:
            return response.status, await response.text(), response


@asynccontextmanager
async def opened(desk: Desk) -> AsyncIterator[Caller]:
    """The admin API over `desk`, on free ports."""
    server = AdminServer(AdminSettings(listen="127.0.0.1:0", probe_listen="127.0.0.1:0"), desk)
    await server.bind()
    await server.serve()
    try:
        async with aiohttp.ClientSession() as session:
            yield Caller(session, server)
    finally:
        await server.close()
