"""Copies of RPCs for another upstream: sent when the request is whole, their answers read and dropped.

Nothing of a copy reaches its RPC: it has no queue and no retry, it holds a bounded request and nothing else, and when
it cannot be sent at once it is not sent. It carries `x-sidecar-mirror: true`. It is counted by what became of it, on
the upstream that was copied, and is no RPC in any other account of the upstream that it goes to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sidecar.http2.interface import HeaderBlock
from sidecar.policy.balancer import PickContext
from sidecar.policy.cluster import Refusal
from sidecar.policy.match import Match
from sidecar.policy.mirror_settings import MirrorSettings
from sidecar.proxy.own_rpc import OwnStream
from sidecar.proxy.replay import Replay
from sidecar.rpc.metadata import build_request, read_response
from sidecar.rpc.status import OK
from sidecar.telemetry.metrics import bump

if TYPE_CHECKING:
    from sidecar.policy.endpoint import Endpoint
    from sidecar.proxy.dispatch import Dispatch
    from sidecar.proxy.exchange import Exchange
    from sidecar.proxy.upstream import UpstreamConnection

MARK: Final = (b"x-sidecar-mirror", b"true")

# What became of a copy, or why there was none; each is a metric label.
ANSWERED: Final = "ok"
FAILED: Final = "failed"
TOO_MANY: Final = "too_many"  # max_in_flight
TOO_LARGE: Final = "too_large"  # max_size
UNPLACED: Final = "unplaced"  # no endpoint, or none with a free stream
CUT: Final = "cut"  # the RPC ended before its request was whole


class Copy(OwnStream):
    """One copy under way."""

    __slots__ = ("_endpoint", "_mirror", "_status")

    def __init__(self, mirror: Mirror, endpoint: Endpoint, connection: UpstreamConnection) -> None:
        super().__init__(connection)
        self._mirror = mirror
        self._endpoint = endpoint
        self._status = -1

    def send(self, block: HeaderBlock, body: bytes) -> bool:
        """Whether it is on its way."""
        if not self.open([*block.fields, MARK], body):
            return False
        self._mirror.target.cluster.begin_attempt(self._endpoint)
        self._mirror.in_flight += 1
        return True

    def take_head(self, block: HeaderBlock, end_stream: bool) -> None:
        if end_stream:
            self._end(read_response(block).grpc_status)

    def take_data(self, data: bytes, end_stream: bool) -> None:
        if end_stream:
            self._end(-1)

    def take_trailers(self, block: HeaderBlock) -> None:
        self._end(read_response(block).grpc_status)

    def on_broken(self, detail: str) -> None:
        self._count(FAILED)

    def _end(self, status: int) -> None:
        if not self.done:
            self.close()
            self._count(ANSWERED if status == OK else FAILED)

    def _count(self, what: str) -> None:
        self._mirror.target.cluster.end_attempt(self._endpoint)
        self._mirror.in_flight -= 1
        self._mirror.count(what)


class Tee(Replay):
    """The replay buffer of an RPC that is copied: it keeps the request for the copy, too."""

    __slots__ = ("_mirror", "_pieces", "_room", "exchange")

    def __init__(self, mirror: Mirror, exchange: Exchange, limit: int, room: int) -> None:
        super().__init__(exchange.engine, limit)
        self.exchange: Exchange | None = exchange  # until the copy is sent, or given up
        self._mirror = mirror
        self._pieces: list[bytes] = []
        self._room = room

    def wants_more(self) -> bool:
        return self.live or self.exchange is not None

    def keep(self, data: bytes) -> None:
        super().keep(data)
        exchange = self.exchange
        if exchange is None:
            return
        self._room -= len(data)
        if self._room < 0:
            self.give_up(TOO_LARGE)
            return
        self._pieces.append(data)
        if exchange.request.ended:
            self.finish()

    def finish(self) -> None:
        """The request is whole."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            self._mirror.send(exchange, b"".join(self._pieces))
            self._pieces.clear()

    def give_up(self, why: str) -> None:
        """There will be no copy."""
        if self.exchange is not None:
            self.exchange = None
            self._pieces.clear()
            self._mirror.count(why)


class Mirror:
    """Copies RPCs of one upstream to `target`."""

    def __init__(self, settings: MirrorSettings, source: Dispatch, target: Dispatch) -> None:
        self.settings = settings
        self.source = source
        self.target = target
        self.in_flight = 0
        self._match = Match(settings.match)
        self._share = settings.percent / 100.0

    def watch(self, exchange: Exchange) -> None:
        """An RPC begins: if it is to be copied, listen to its request."""
        if not self._match.fits(exchange.head.path, exchange.block.fields):
            return
        if exchange.engine.rng.random() >= self._share:
            return
        if self.in_flight >= self.settings.max_in_flight:
            self.count(TOO_MANY)
            return
        request = exchange.request
        former, kept = request.replay, request.replay.chunks if request.replay is not None else ()
        if sum(map(len, kept)) < request.received:  # a fault held it back, and more came than is kept
            self.count(TOO_LARGE)
            return
        tee = request.replay = Tee(self, exchange, self.source.replay_size, self.settings.max_size)
        for chunk in kept:
            tee.keep(chunk)
        if former is not None:
            former.drop()
        if request.ended:
            tee.finish()

    def forget(self, exchange: Exchange) -> None:
        """The RPC is over."""
        replay = exchange.request.replay
        if isinstance(replay, Tee):
            replay.give_up(CUT)

    def send(self, exchange: Exchange, body: bytes) -> None:
        """Send the copy now or never."""
        target, now = self.target, exchange.engine.now
        context = PickContext(exchange.head, (), exchange.block) if target.wants_context else None
        endpoint = target.cluster.pick(context, now)
        connection = None if target.closed or isinstance(endpoint, Refusal) else target.acquire(endpoint)
        if connection is None or isinstance(endpoint, Refusal):
            self.count(UNPLACED)
            return
        remaining = exchange.deadline_at - now if exchange.deadline_at else None
        block = build_request(exchange.head, exchange.block, remaining, 0)
        if not Copy(self, endpoint, connection).send(block, body):
            self.count(UNPLACED)

    def count(self, what: str) -> None:
        """What became of one copy."""
        bump(self.source.metrics.mirrored, what)

    def __str__(self) -> str:
        what = self.settings.match.method or "all RPCs"
        return f"mirror: {self.settings.percent:g} % of {what} to {self.target.name}; {self.in_flight} in flight"
