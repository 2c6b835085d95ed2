"""A stage for the data path: an engine on a clock that the test moves, endpoints in memory, and apps that call.

Everything between the wires is real: listener, connections, exchanges, pools, cluster, balancer. Replaced are only
the sockets (by `pipe`), the clock, and the loop's timers, which ring when the test says that time has passed.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Callable, Coroutine
from typing import Any

from sidecar.http2.constants import CLIENT, SERVER
from sidecar.http2.interface import Codec, CodecSettings
from sidecar.policy.balancer import Balancer, PickContext
from sidecar.policy.cluster import Cluster
from sidecar.policy.ejection_settings import EjectionSettings
from sidecar.policy.endpoint import Endpoint
from sidecar.policy.method import MethodTable
from sidecar.policy.snapshot import Member, Snapshot
from sidecar.proxy.dispatch import Dispatch
from sidecar.proxy.downstream import DownstreamConnection
from sidecar.proxy.engine import Engine
from sidecar.proxy.listener import Listener
from sidecar.proxy.settings import BufferSettings, ConnectionSettings, Http2Settings, LimitSettings
from sidecar.proxy.upstream import UpstreamConnection
from sidecar.telemetry.metrics import ListenerMetrics, ProcessMetrics, UpstreamMetrics
from sidecar.telemetry.record import RpcRecord
from tests.proxy.pipe import Ear, Peer

# Of the far ends. Their patience with resets is without limit: whether ours has one is the question. Their windows are
# small enough to be filled.
PATIENT = CodecSettings(reset_burst=10**9, stream_window=262_144)
QUIET_TURNS = 6  # turns of the loop without any octet moving after which nothing will move by itself
MOST_TURNS = 20_000


class Later:
    """A callback of the manual clock."""

    def __init__(self, due_at: float, callback: Callable[[], object]) -> None:
        self.due_at = due_at
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class ManualLoop:
    """The running loop, but `call_later` goes by a clock that stands still until `advance`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.now = 1000.0
        self.timers: list[Later] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[..., object], *args: Any) -> asyncio.Handle:
        return self._loop.call_soon(callback, *args)

    def create_task(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self._loop.create_task(coroutine)

    def call_later(self, delay: float, callback: Callable[[], object]) -> Later:
        timer = Later(self.now + delay, callback)
        self.timers.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        """Let time pass, and ring what has become due, in order."""
        until = self.now + seconds
        while True:
            self.timers = [timer for timer in self.timers if not timer.cancelled]
            due = min(self.timers, key=lambda timer: timer.due_at, default=None)
            if due is None or due.due_at > until:
                break
            self.timers.remove(due)
            self.now = max(self.now, due.due_at)
            due.callback()
        self.now = until


class Server:
    """One address. It accepts, refuses, or hangs; connections are newest last."""

    def __init__(self, stage: Stage, address: str, settings: CodecSettings) -> None:
        self.stage = stage
        self.address = address
        self.settings = settings
        self.connections: list[Peer] = []
        self.refusing: BaseException | None = None
        self.hanging = False
        self.silent = False  # accepts, says nothing
        self.dials = 0
        self.dialling = 0
        self.most_dials = 0  # at a time
        self.knocks = 0

    async def accept(self, connection: UpstreamConnection) -> None:
        self.dials += 1
        self.dialling += 1
        self.most_dials = max(self.most_dials, self.dialling)
        try:
            if self.hanging:
                await asyncio.Event().wait()
            await asyncio.sleep(0)
            if self.refusing is not None:
                raise self.refusing
        finally:
            self.dialling -= 1
        peer = Peer(self.stage.codec_class, SERVER, connection, self.settings)
        peer.speaking = not self.silent
        self.connections.append(peer)
        peer.start()

    async def answer_knock(self) -> None:
        self.knocks += 1
        if self.hanging:
            await asyncio.Event().wait()
        if self.refusing is not None:
            raise self.refusing

    @property
    def connection(self) -> Peer:
        """The newest connection."""
        return self.connections[-1]

    @property
    def requests(self) -> list[Ear]:
        """Every request that came, on all connections."""
        return [ear for connection in self.connections for ear in connection.streams]

    @property
    def request(self) -> Ear:
        """The one request."""
        (request,) = self.requests
        return request


class WiredDispatch(Dispatch):
    """Dials servers in memory."""

    servers: dict[str, Server]

    async def dial(self, connection: UpstreamConnection, address: str) -> None:
        await self.servers[address].accept(connection)

    async def knock(self, address: str) -> None:
        await self.servers[address].answer_knock()


class Target:
    """Another upstream of the stage: without a listener, for routes and mirrors to lead to."""

    def __init__(self, stage: Stage, name: str, *addresses: str) -> None:
        self.cluster = Cluster(name, InTurn())
        self.metrics = UpstreamMetrics(name)
        self.dispatch = WiredDispatch(
            stage.engine, self.cluster, self.metrics, ConnectionSettings(), stage.dispatch.limits
        )
        self.dispatch.servers = stage.dispatch.servers
        self.servers = [stage.add_server(address) for address in addresses]
        members = tuple(Member(address=address) for address in addresses)
        self.cluster.apply(Snapshot(service=name, members=members, source="consul"), stage.loop.now)


class InTurn(Balancer):
    """The endpoints in turn, those first that the RPC has not been to."""

    def __init__(self) -> None:
        self._picks = 0

    def pick(self, cluster: Cluster, context: PickContext | None, now: float) -> Endpoint:
        tried = context.tried if context is not None else ()
        candidates = [endpoint for endpoint in cluster.pickable if endpoint not in tried] or cluster.pickable
        self._picks += 1
        return candidates[self._picks % len(candidates)]


class Stage:
    """The data path of one upstream."""

    def __init__(
        self,
        codec: type[Codec],
        *,
        servers: int | list[str] = 1,
        balancer: Balancer | None = None,
        connection: ConnectionSettings | None = None,
        limits: LimitSettings | None = None,
        http2: Http2Settings | None = None,
        buffers: BufferSettings | None = None,
        server_settings: CodecSettings | None = None,
        methods: MethodTable | None = None,
        ejection: EjectionSettings | None = None,
        discovered: bool = True,
    ) -> None:
        self.codec_class = codec
        self.loop = ManualLoop(asyncio.get_running_loop())
        self.records: list[RpcRecord] = []
        self.process = ProcessMetrics()
        self.engine = Engine(
            loop=self.loop,  # type: ignore[arg-type]
            codec_class=codec,
            http2=http2 or Http2Settings(),
            buffers=buffers or BufferSettings(),
            metrics=self.process,
            rng=random.Random(1),
            log_rpc=self.records.append,
            log_from=0,
            clock=self.loop.time,
        )
        self.cluster = Cluster("greeter", balancer or InTurn())
        self.metrics = UpstreamMetrics("greeter")
        self.dispatch = WiredDispatch(
            self.engine,
            self.cluster,
            self.metrics,
            connection or ConnectionSettings(),
            limits or LimitSettings(),
            methods,
        )
        if ejection is not None:
            self.dispatch.ejector.reconfigure(ejection)
        self.dispatch.servers = {}
        self.listener_metrics = ListenerMetrics("greeter")
        self.listener = Listener(self.engine, self.dispatch, "127.0.0.1:0", self.listener_metrics)
        self.targets: dict[str, Target] = {}  # other upstreams
        self.apps: list[Peer] = []
        self.downstream: list[DownstreamConnection] = []
        names = servers if isinstance(servers, list) else [f"10.0.0.{number + 1}:50051" for number in range(servers)]
        self.servers = [self.add_server(name, server_settings) for name in names]
        if discovered:
            self.discover(*names)

    # -- the world ------------------------------------------------------------------------------------

    def add_server(self, address: str, settings: CodecSettings | None = None) -> Server:
        """A server that may be dialled; it is not discovered yet."""
        server = Server(self, address, settings or PATIENT)
        self.dispatch.servers[address] = server
        return server

    def add_upstream(self, name: str, *addresses: str) -> Target:
        """An upstream with servers of its own, which nothing leads to yet."""
        target = self.targets[name] = Target(self, name, *addresses)
        return target

    @property
    def server(self) -> Server:
        """The first server."""
        return self.servers[0]

    def discover(self, *addresses: str) -> None:
        """The registry lists these."""
        members = tuple(Member(address=address) for address in addresses)
        self.cluster.apply(Snapshot(service="greeter", members=members, source="consul"), self.loop.now)

    def endpoint(self, address: str) -> Endpoint:
        """By address."""
        return next(endpoint for endpoint in self.cluster.endpoints if endpoint.address == address)

    def app(self, settings: CodecSettings | None = None, *, speaking: bool = True) -> Peer:
        """An app dials the listener."""
        connection = DownstreamConnection(self.listener)
        peer = Peer(self.codec_class, CLIENT, connection, settings or PATIENT)
        peer.speaking = speaking
        self.apps.append(peer)
        self.downstream.append(connection)
        peer.start()
        return peer

    @property
    def peers(self) -> list[Peer]:
        """Every far end."""
        servers = [peer for server in self.dispatch.servers.values() for peer in server.connections]
        return [*self.apps, *servers]

    async def run(self) -> None:
        """Let everything happen that happens without time passing."""
        quiet = 0
        for _ in range(MOST_TURNS):
            moved = False
            for peer in self.peers:
                moved |= peer.exchange()
            await asyncio.sleep(0)
            quiet = 0 if moved else quiet + 1
            if quiet == QUIET_TURNS:
                return
        raise AssertionError("the stage never comes to rest")

    async def advance(self, seconds: float) -> None:
        """Time passes."""
        self.loop.advance(seconds)
        await self.run()

    # -- what should be true at rest ------------------------------------------------------------------

    def leaks(self) -> list[str]:
        """What is left of RPCs that are over: every account that is not balanced, in words."""
        found: list[str] = []

        def expect(what: str, is_: object, should: object) -> None:
            if is_ != should:
                found.append(f"{what} is {is_!r}, not {should!r}")

        expect("buffered", self.process.buffered, 0)
        expect("replay_size", self.engine.replay_size, 0)
        expect("in flight", self.dispatch.in_flight, 0)
        expect("queued", self.metrics.queued, 0)
        expect("in flight of the cluster", self.cluster.in_flight, 0)
        for endpoint in self.cluster.endpoints:
            expect(f"in flight of {endpoint.address}", endpoint.in_flight, 0)
        for connection in self.engine.connections:
            expect(f"receive window of {connection}", connection.codec.receive_window, self._window)
            expect(f"open streams of {connection}", connection.codec.open_streams, 0)
            expect(f"blocked of {connection}", connection.blocked, None)
            expect(f"dirty of {connection}", connection.dirty, False)
            left = connection.attempts if isinstance(connection, UpstreamConnection) else connection.exchanges  # type: ignore[attr-defined]
            expect(f"RPCs of {connection}", len(left), 0)
        counted = sum(self.metrics.exchange_status)
        expect("RPCs counted", counted, self.metrics.exchange_started)
        expect("attempts counted", sum(self.metrics.attempt_status), self.metrics.attempt_started)
        expect("RPCs logged", len(self.records), counted)
        return found

    @property
    def _window(self) -> int:
        return self.engine.codec_settings.connection_window


async def started(codec: type[Codec], **options: Any) -> Stage:
    """A stage whose connections are up."""
    stage = Stage(codec, **options)
    await stage.run()
    return stage


def on_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """An `async def` test as a plain one, in a loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run
