"""What all connections of the process share: the clock, the wheel's timer, the flush, the byte budget, the access log.

Every call from the event loop into the proxy begins with `begin` and ends with `settle`: `begin` reads the clock
once for the whole batch, `settle` serves what waited and writes each connection's output once. Nothing in between
writes to a socket.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sidecar.http2.interface import Codec, CodecSettings
from sidecar.policy.cluster import BUFFERS_FULL, OVERLOADED, Refusal
from sidecar.policy.shedding import OverloadSettings, Shedder
from sidecar.proxy.settings import BufferSettings, Http2Settings
from sidecar.proxy.wheel import TICK, Alarm, Wheel
from sidecar.rpc.status import RESOURCE_EXHAUSTED
from sidecar.telemetry.metrics import ProcessMetrics
from sidecar.telemetry.record import RpcRecord

if TYPE_CHECKING:
    from sidecar.proxy.connection import Connection
    from sidecar.proxy.dispatch import Dispatch

log = logging.getLogger("sidecar.proxy")

# How many read events are flushed singly before it is tried out whether they come in bunches.
PROBE_EVERY = 16
# Octets that all RPCs together may keep for a replay; beyond it an RPC commits (linkerd: 64 KiB per RPC, no cap).
REPLAY_BUDGET = 16 * 2**20
# Connects under way at a time, so that a thousand discovered endpoints are not dialled at once (RL-42).
MAX_DIALS = 64


class Engine:
    """The shared parts of the data path. One per process; it ends with the event loop."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        codec_class: type[Codec],
        http2: Http2Settings,
        buffers: BufferSettings,
        metrics: ProcessMetrics,
        rng: random.Random,
        overload: OverloadSettings | None = None,
        log_rpc: Callable[[RpcRecord], None] | None = None,
        log_from: int = 17,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.loop = loop
        self.codec_class = codec_class
        self.http2 = http2
        self.codec_settings: CodecSettings = http2.codec_settings()
        self.buffers = buffers
        self.metrics = metrics
        self.rng = rng
        self.log_rpc = log_rpc
        self.log_from = log_from  # the lowest grpc-status that is logged; 17: none
        self.dial_slots = asyncio.Semaphore(MAX_DIALS)
        self.replay_size: int = 0
        self.connections: set[Connection] = set()
        self.clock = clock
        self.now: float = clock()  # of the present turn
        self._wheel = Wheel()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float = 0.0
        self._dirty: Connection | None = None  # the first of those that have output, chained by `next_dirty`
        self._last_dirty: Connection | None = None
        self._waiting: list[Dispatch] = []
        self.output_limit: int = buffers.per_connection  # of `buffers`, at hand for every flush
        self.shedder = Shedder(overload or OverloadSettings())
        self.holding = False  # credit, because the soft limit is passed
        self.strained = False  # an RPC that comes now must ask whether it may: `refusal`
        self._keeps_time = clock is time.monotonic
        self.in_turn = False
        self._flush_scheduled = False
        self._reads_in_turn = 0
        self._bunched = False
        self._until_probe = PROBE_EVERY

    # === turns ===

    def begin(self) -> float:
        """A call from the event loop starts: read the clock."""
        self.in_turn = True
        self.now = self.clock()
        return self.now

    def begin_at(self, now: float) -> None:
        """The same, said by who has just read `time.monotonic`."""
        self.in_turn = True
        self.now = now if self._keeps_time else self.clock()

    def settle(self) -> None:
        """The call ends: serve the queues that may move, then write every dirty connection once."""
        while self._waiting or self._dirty is not None:
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                for dispatch in waiting:
                    dispatch.serve_queue()
            connection = self._dirty
            self._dirty = None
            self._last_dirty = None
            while connection is not None:
                following = connection.next_dirty
                connection.next_dirty = None
                connection.flush()
                connection = following
        self.in_turn = False

    def settle_read(self) -> None:
        """The end of a read event: like `settle`, but events that come in bunches share one flush.

        Alone, an event is flushed at once, which is best for its latency. When several sockets are readable in
        one turn of the loop, their output is gathered and written by one callback at the end of that turn.
        """
        if self._flush_scheduled:
            self._reads_in_turn += 1
            self.in_turn = False
            return
        self._until_probe -= 1
        if self._bunched or self._until_probe <= 0:
            self._flush_scheduled = True
            self._reads_in_turn = 1
            self.loop.call_soon(self._flush_turn)
            if self._bunched:
                self.in_turn = False
                return
        self.settle()

    def _flush_turn(self) -> None:
        self._flush_scheduled = False
        self.begin()
        self._bunched = self._reads_in_turn > 1
        self._until_probe = PROBE_EVERY
        self.settle()

    def mark_dirty(self, connection: Connection) -> None:
        """`connection` has output; it is flushed when the turn settles."""
        if self._dirty is None or self._last_dirty is None:
            self._dirty = connection
        else:
            self._last_dirty.next_dirty = connection
        self._last_dirty = connection
        if not self.in_turn:
            self._settle_soon()

    def mark_waiting(self, dispatch: Dispatch) -> None:
        """Something changed that the queue of `dispatch` waits for."""
        self._waiting.append(dispatch)
        if not self.in_turn:
            self._settle_soon()

    def _settle_soon(self) -> None:
        """Something outside the data path, such as a new membership, gave it work."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._reads_in_turn = 0
            self.loop.call_soon(self._flush_turn)

    # === time ===

    def set_alarm(self, alarm: Alarm, due_at: float) -> None:
        """Ring at `due_at` (loop clock)."""
        self._wheel.set(alarm, due_at)
        if self._timer is None or due_at < self._timer_at - TICK:
            self._arm()

    def cancel_alarm(self, alarm: Alarm) -> None:
        """Do not ring. The timer is left alone: waking once for nothing is cheaper than moving it each time."""
        self._wheel.cancel(alarm)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_at = self._wheel.next_at()
        if due_at is not None:
            self._timer_at = due_at
            self._timer = self.loop.call_later(max(0.0, due_at - self.clock()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._wheel.advance(self.begin())
        self.settle()
        if self._timer is None:
            self._arm()

    # === memory ===

    def hold(self, size: int) -> None:
        """`size` octets could not be sent on and are kept. Over the soft limit senders are held back (H2-45)."""
        self.metrics.buffered += size
        if not self.holding and self.metrics.buffered > self.buffers.soft_limit:
            self._set_holding(True)

    def release(self, size: int) -> None:
        """They were sent on, or dropped."""
        self.metrics.buffered -= size
        # Well below the limit, so that it does not flap.
        if self.holding and self.metrics.buffered < self.buffers.soft_limit * 3 // 4:
            self._set_holding(False)

    @property
    def full(self) -> bool:
        """Whether new RPCs must be refused for want of memory (RL-40). Then it is strained, too."""
        return self.metrics.buffered > self.buffers.hard_limit

    def _set_holding(self, holding: bool) -> None:
        self.holding = holding
        self.strained = holding or self.shedder.active
        for connection in self.connections:
            connection.codec.hold_credit(holding)
            connection.touch()

    def add_connection(self, connection: Connection) -> None:
        """A connection is up."""
        self.connections.add(connection)
        if self.holding:
            connection.codec.hold_credit(True)

    # === overload ===

    def note_lag(self, lag: float) -> None:
        """A heartbeat came `lag` seconds late: what everything else waits for, too."""
        before = self.shedder.active
        self.shedder.note(lag)
        self.metrics.loop_lag.observe(lag)
        self.metrics.shed_share = self.shedder.share
        self.strained = self.holding or self.shedder.active
        if self.shedder.active != before:
            log.warning("%s", self._say_overload())

    def _say_overload(self) -> str:
        shedder = self.shedder
        if not shedder.active:
            return "the event loop keeps up again; no RPCs are refused for it any more"
        return (
            f"the event loop is {shedder.lag * 1e3:.0f} ms late and stays so; a part of the new RPCs is refused until"
            " it keeps up (overload.max_lag): give the sidecar more CPU, or send it less"
        )

    def refusal(self, name: str) -> Refusal | None:
        """Why an RPC of the upstream `name` may not begin now, or None. Asked only while something is short."""
        if self.full:
            held = self.metrics.buffered >> 20
            text = f"{name}: the sidecar's buffers are full: {held} MiB wait for slow readers (buffers.hard_limit)"
            return Refusal(BUFFERS_FULL, text, status=RESOURCE_EXHAUSTED)
        shedder = self.shedder
        if not shedder.active or not shedder.refuses():
            return None
        text = (
            f"{name}: the sidecar is overloaded: its event loop is {shedder.lag * 1e3:.0f} ms late,"
            f" so that it refuses {shedder.share:.0%} of new RPCs (overload.max_lag)"
        )
        return Refusal(OVERLOADED, text, pushback=shedder.settings.pushback * (0.5 + self.rng.random()))

    def reconfigure(self, http2: Http2Settings, buffers: BufferSettings, overload: OverloadSettings) -> None:
        """New settings after a reload: for connections from now on (K7)."""
        self.http2 = http2
        self.codec_settings = http2.codec_settings()
        self.buffers = buffers
        self.output_limit = buffers.per_connection
        self.shedder.settings = overload
        self.hold(0)  # more may be held already than the new limits allow

    def close(self) -> None:
        """Stop the timer; for the end of the process and of tests."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
