"""A connect whose timeout rings in the same turn of a late loop as the news that it has succeeded, on real sockets.

uvloop closes the transport of a cancelled `create_connection` without telling its protocol; a connection that was ready
by then would take RPCs for ever and answer none.
"""

from __future__ import annotations

import asyncio
import random
import select
import time
from collections.abc import Callable

import pytest
import uvloop

from sidecar.http2.interface import Codec
from sidecar.policy.cluster import Cluster
from sidecar.policy.endpoint import READY
from sidecar.policy.snapshot import Member, Snapshot
from sidecar.proxy.dispatch import Dispatch
from sidecar.proxy.engine import Engine
from sidecar.proxy.settings import BufferSettings, ConnectionSettings, Http2Settings, LimitSettings
from sidecar.proxy.upstream import UpstreamConnection
from sidecar.telemetry.metrics import ProcessMetrics, UpstreamMetrics
from tests.proxy.stage import InTurn
from tests.services import ProbeServer

TIMEOUT = 0.05  # seconds to connect
PATIENCE = 10.0  # seconds for the server's first octets, and for everything


class Late(asyncio.Protocol):
    """Stands before a connection and keeps the loop busy until the worst moment has come."""

    def __init__(self, connection: UpstreamConnection, over_at: float) -> None:
        self.connection = connection
        self.over_at = over_at

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.connection.connection_made(transport)  # type: ignore[arg-type]
        readable, _, _ = select.select([transport.get_extra_info("socket").fileno()], [], [], PATIENCE)
        assert readable, "the server has sent its SETTINGS"

    def data_received(self, data: bytes) -> None:
        self.connection.data_received(data)
        while time.monotonic() < self.over_at:
            pass

    def connection_lost(self, exc: Exception | None) -> None:
        self.connection.connection_lost(exc)


class LateDispatch(Dispatch):
    """Dials through `Late`."""

    async def dial(self, connection: UpstreamConnection, address: str) -> None:
        late = Late(connection, time.monotonic() + 2 * TIMEOUT)
        host, _, port = address.rpartition(":")
        await asyncio.get_running_loop().create_connection(lambda: late, host, int(port))


def build(codec: type[Codec], cluster: Cluster) -> LateDispatch:
    loop = asyncio.get_running_loop()
    engine = Engine(
        loop=loop,
        codec_class=codec,
        http2=Http2Settings(),
        buffers=BufferSettings(),
        metrics=ProcessMetrics(),
        rng=random.Random(1),
        log_rpc=None,
        log_from=0,
        clock=time.monotonic,
    )
    connection = ConnectionSettings(connect_timeout=TIMEOUT)
    return LateDispatch(engine, cluster, UpstreamMetrics("greeter"), connection, LimitSettings())


@pytest.mark.parametrize("loop_factory", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def test_a_connection_that_is_ready_when_its_timeout_rings_is_kept_and_alive(
    codec: type[Codec], loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def scene(address: str) -> None:
        cluster = Cluster("greeter", InTurn())
        dispatch = build(codec, cluster)
        cluster.apply(Snapshot(service="greeter", members=(Member(address=address),), source="static"), 0.0)
        (endpoint,) = cluster.endpoints
        pool = dispatch.pools[endpoint]
        assert pool._dial is not None
        await pool._dial
        assert (endpoint.connectivity, endpoint.last_error) == (READY, "")
        (connection,) = pool.connections
        assert connection.transport is not None
        connection.transport.write(b"")  # raises where the transport is closed; `is_closing` does not tell with uvloop
        connection.abort()
        while dispatch.engine.connections:
            await asyncio.sleep(0)
        pool.close("the end")
        dispatch.engine.close()

    with ProbeServer() as server, asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(asyncio.wait_for(scene(f"127.0.0.1:{server.port}"), PATIENCE))


@pytest.mark.parametrize("loop_factory", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def test_a_connection_has_an_end_even_if_its_transport_does_not_say_so(
    codec: type[Codec], loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def scene(address: str) -> None:
        cluster = Cluster("greeter", InTurn())
        dispatch = build(codec, cluster)
        cluster.apply(Snapshot(service="greeter", members=(Member(address=address),), source="static"), 0.0)
        pool = dispatch.pools[cluster.endpoints[0]]
        connection = UpstreamConnection(dispatch.engine, pool)
        with pytest.raises(TimeoutError):  # the cancelled connect closes the transport
            async with asyncio.timeout(TIMEOUT):
                await dispatch.dial(connection, address)
                await asyncio.sleep(PATIENCE)
        connection.abort()
        while connection.transport is not None:
            await asyncio.sleep(0)
        assert connection not in dispatch.engine.connections
        pool.close("the end")
        dispatch.engine.close()

    with ProbeServer() as server, asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(asyncio.wait_for(scene(f"127.0.0.1:{server.port}"), PATIENCE))
