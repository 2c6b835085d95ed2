"""What a fault does to an RPC: hold it back, answer or reset it in the endpoint's place, slow its response down.

Who gets one is decided in `policy.fault`. A fault that lasts has an alarm in the wheel; RPCs without one have none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sidecar.http2.constants import INTERNAL_ERROR
from sidecar.policy.fault import ABORT, BANDWIDTH, DELAY, RESET, SPARED, Fault, Faults
from sidecar.proxy.relay import Relay
from sidecar.proxy.replay import CRUMB
from sidecar.proxy.wheel import Alarm
from sidecar.telemetry.metrics import bump

if TYPE_CHECKING:
    from sidecar.proxy.dispatch import Dispatch
    from sidecar.proxy.exchange import Exchange

PIECES: Final = 20  # of a second's octets: so finely is a slowed response cut


class Delay(Alarm):
    """Lets one RPC go on after a while."""

    __slots__ = ("exchange", "go_on")

    def __init__(self, exchange: Exchange, go_on: Callable[[Exchange], None]) -> None:
        super().__init__()
        self.exchange = exchange
        self.go_on = go_on

    def ring(self, now: float) -> None:
        try:
            self.go_on(self.exchange)
        except Exception as error:
            self.exchange.crash(error)


class Resume(Alarm):
    """Lets a slowed relay send its next piece."""

    __slots__ = ("relay",)

    def __init__(self, relay: SlowRelay) -> None:
        super().__init__()
        self.relay: SlowRelay | None = relay  # until `discard`

    def ring(self, now: float) -> None:
        if self.relay is not None:
            self.relay.pump()


class SlowRelay(Relay):
    """A response at no more than `rate` octets per second. What waits is held, and so bounded, as for a slow reader."""

    __slots__ = ("_free_at", "_rate", "_resume")

    def __init__(self, exchange: Exchange, rate: int) -> None:
        super().__init__(exchange, None)
        self._rate = rate
        self._free_at = 0.0  # when the next piece may leave
        self._resume = Resume(self)

    def receive(self, data: bytes, end_stream: bool) -> None:
        size = max(CRUMB, self._rate // PIECES)
        for start in range(0, len(data), size) or (0,):
            piece = data[start : start + size]
            last = end_stream and start + size >= len(data)
            if self.exchange is None:
                super().receive(piece, last)  # nobody wants it
                continue
            self.ended = self.ended or last
            self.received += len(piece)
            self._hold(piece, 0)
        self.pump()

    def receive_part(self, whole: bytes, offset: int, size: int, end_stream: bool) -> bool:
        return False  # what waits is a copy

    def send_chunk(self) -> bool:
        now = self.engine.now
        if self.pending is not None and now < self._free_at:
            self.engine.set_alarm(self._resume, self._free_at)
            return False
        before = self.sent
        moved = super().send_chunk()
        self._free_at = max(now, self._free_at) + (self.sent - before) / self._rate
        return moved

    def discard(self) -> None:
        self.engine.cancel_alarm(self._resume)
        self._resume.relay = None  # they hold each other
        super().discard()


class Injector:
    """The faults of one upstream, and the RPCs that have one for a time."""

    def __init__(self, dispatch: Dispatch, faults: Faults, go_on: Callable[[Exchange], None]) -> None:
        self.dispatch = dispatch
        self.faults = faults
        self.go_on = go_on  # an RPC that was held back, and is not ended by its fault
        self._lasting: dict[Exchange, Fault] = {}
        self._delays: dict[Exchange, Delay] = {}

    def enter(self, exchange: Exchange) -> bool:
        """An RPC begins. Whether it may go on; else it ends here, or is held back and goes on by itself."""
        engine = exchange.engine
        fault = self.faults.choose(exchange.head.path, exchange.block.fields, engine.rng, engine.now)
        if fault is None:
            return True
        if fault.full:
            self._count(SPARED)
            return True
        if fault.lingers:
            fault.active += 1
            self._lasting[exchange] = fault
        if fault.settings.delay:
            self._count(DELAY)
            delay = self._delays[exchange] = Delay(exchange, self._after_delay)
            engine.set_alarm(delay, engine.now + fault.settings.delay)
            return False
        return self._strike(exchange, fault)

    def _after_delay(self, exchange: Exchange) -> None:
        del self._delays[exchange]
        if self._strike(exchange, self._lasting[exchange]):
            self.go_on(exchange)

    def _strike(self, exchange: Exchange, fault: Fault) -> bool:
        """Whether the RPC lives."""
        text = f"{self.dispatch.name}: injected on purpose by {fault.name} of this upstream"
        if fault.settings.abort is not None:
            self._count(ABORT)
            exchange.fail(fault.status, text)
            return False
        if fault.settings.reset:
            self._count(RESET)
            exchange.connection.codec.reset_stream(exchange.stream, INTERNAL_ERROR)
            exchange.connection.touch()
            exchange.abandon(text)
            return False
        return True

    def relay(self, exchange: Exchange) -> Relay | None:
        """The slowed relay of a response; None where it is as fast as ever."""
        fault = self._lasting.get(exchange)
        if fault is None or not fault.settings.bandwidth:
            return None
        self._count(BANDWIDTH)
        return SlowRelay(exchange, fault.settings.bandwidth)

    def leave(self, exchange: Exchange) -> None:
        """The RPC is over."""
        fault = self._lasting.pop(exchange, None)
        if fault is not None:
            fault.active -= 1
            delay = self._delays.pop(exchange, None)
            if delay is not None:
                exchange.engine.cancel_alarm(delay)

    def _count(self, kind: str) -> None:
        bump(self.dispatch.metrics.faults, kind)
