"""A connect whose timeout rings in the same turn of a late loop as the news that it has succeeded, on real sockets.

uvloop closes the transport of a cancelled `create_connection` without telling its protocol; a connection that was ready
by then would take RPCs for ever and answer none.
"""

from __future__ import annotations

import asyncio
import random
import select
from collections.abc import Callable

import pytest
import uvloop

from sidecar.http2.interface import Codec
from sidecar.policy.balancer import RoundRobin
from sidecar.policy.cluster import Cluster
from sidecar.policy.endpoint import READY
from sidecar.policy.snapshot import Member, Snapshot
from sidecar.proxy.dispatch import Dispatch
from sidecar.proxy.engine import Engine
from sidecar.proxy.settings import BufferSettings, ConnectionSettings, Http2Settings, LimitSettings
from sidecar.proxy.upstream import UpstreamConnection
from sidecar.telemetry.metrics import ProcessMetrics, UpstreamMetrics
from tests.services import ProbeServer

TIMEOUT = 0.05  # seconds to connect
PATIENCE = 10_000  # milliseconds for the server's first octets


class Late(asyncio.Protocol):
    """Stands before a connection and keeps the loop busy until the worst moment."""

    def __init__(self, connection: UpstreamConnection, busy_until: Callable[[], bool]) -> None:
        self.connection = connection
        self.busy_until = busy_until

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        select.select([transport.get_extra_info("socket").fileno()], [], [], PATIENCE / 1000)  # SETTINGS are here
        self.connection.connection_made(transport)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        self.connection.data_received(data)
        while not self.busy_until():
            pass

    def connection_lost(self, exc: Exception | None) -> None:
        self.connection.connection_lost(exc)


class LateDispatch(Dispatch):
    """Dials through `Late`, and remembers what it dialled."""

    def __init__(self, engine: Engine, cluster: Cluster) -> None:
        self.dialled: list[UpstreamConnection] = []
        metrics = UpstreamMetrics("greeter")
        super().__init__(engine, cluster, metrics, ConnectionSettings(connect_timeout=TIMEOUT), LimitSettings())

    async def dial(self, connection: UpstreamConnection, address: str) -> None:
        loop = asyncio.get_running_loop()
        self.dialled.append(connection)
        over_at = loop.time() + 2 * TIMEOUT
        clock = asyncio.BaseEventLoop().time if False else loop.time
        host, _, port = address.rpartition(":")
        await loop.create_connection(lambda: Late(connection, lambda: clock() >= over_at), host, int(port))
