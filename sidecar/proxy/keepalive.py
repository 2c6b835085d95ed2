"""Finds out that a connection is dead although it is open: packets are dropped, or the endpoint hangs.

Two questions, both by PING (features B6). Before reuse: a connection from which nothing was read for a while is asked
first, and what is sent on it is withheld until it answers; if it does not, nothing of that has left, and the RPCs go
elsewhere. Only the answer will do: where our packets are dropped and the peer's are not, octets would still come.
Keepalive: streams are open, and nothing is read for long. Whether what we sent is acknowledged at all is the kernel's
to watch (TCP_USER_TIMEOUT, see `upstream`). The verdict is `policy.pulse`'s. It ends with the connection.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from sidecar.policy.pulse import DOUBTED, LOST, TRUSTED, Pulse
from sidecar.proxy.wheel import Alarm
from sidecar.telemetry.metrics import bump

if TYPE_CHECKING:
    from sidecar.proxy.upstream import UpstreamConnection

log = logging.getLogger("sidecar.proxy")

# gRPC servers forgive two PINGs too many between two answers (gRFC A8, MAX_PING_STRIKES 2); we stay below.
MOST_UNREWARDED: Final = 2


class Keepalive(Alarm):
    """The questions of one connection; at most one is open at a time."""

    __slots__ = ("_sent", "_successes", "_unrewarded", "connection", "pulse")

    def __init__(self, connection: UpstreamConnection) -> None:
        super().__init__()
        self.connection = connection
        self.pulse = Pulse()
        self._sent: int = 0  # PINGs, so that no two are alike
        self._successes: int = 0  # of the endpoint, when a PING before reuse was sent last
        self._unrewarded: int = 0  # such PINGs in a row that no successful RPC followed

    def retire(self) -> None:
        """The connection is gone, and would else live until the collector comes by."""
        self.connection.engine.cancel_alarm(self)
        del self.connection

    # === asking ===

    def start(self) -> None:
        """The connection is ready."""
        self._look_later()

    def check(self) -> None:
        """An RPC wants the connection, and it has been silent: withhold what is sent until it has answered a PING."""
        connection = self.connection
        if connection.withheld or not self._may_ask():
            return
        limit, now = connection.pool.settings.ping_timeout, connection.engine.now
        if self.pulse.state == TRUSTED:
            self._ask(limit)
        else:
            self.pulse.hurry(limit, now)
            connection.engine.set_alarm(self, self.pulse.due_at)
        connection.withheld = True

    def _may_ask(self) -> bool:
        successes = self.connection.endpoint.successes
        if successes != self._successes:
            self._successes = successes
            self._unrewarded = 0
        self._unrewarded += 1
        return self._unrewarded <= MOST_UNREWARDED

    def _ask(self, limit: float) -> None:
        engine = self.connection.engine
        self.pulse.ask(limit, engine.now)
        self._ping()
        engine.set_alarm(self, self.pulse.due_at)

    def _ping(self) -> None:
        self._sent += 1
        self.connection.write_ping(self._sent.to_bytes(8, "big"))

    def _look_later(self) -> None:
        connection = self.connection
        interval = connection.pool.keepalive_interval
        if interval:
            now = connection.engine.now
            due_at = connection.read_at + interval
            connection.engine.set_alarm(self, due_at if due_at > now else now + interval / 10)

    # === answers and their absence ===

    def on_answer(self) -> None:
        """The peer lives: what was withheld may go."""
        connection, pulse = self.connection, self.pulse
        if pulse.state in (TRUSTED, LOST):
            return
        doubted = pulse.state == DOUBTED
        pulse.answer()
        if connection.withheld:
            connection.withheld = False
            connection.touch()
        if doubted:
            connection.pool.on_trusted(connection)
        self._look_later()

    def ring(self, now: float) -> None:
        connection, pulse = self.connection, self.pulse
        if pulse.state == TRUSTED:
            if connection.codec.open_streams and now - connection.read_at >= connection.pool.keepalive_interval:
                self._ask(connection.pool.settings.keepalive_timeout)
            else:
                self._look_later()
            return
        if connection.read_at > pulse.asked_at and not connection.withheld:
            self.on_answer()  # gRFC A8 takes any octets for one
            return
        if pulse.ring(now):
            self._ping()
        if pulse.state == LOST:
            self._give_up(f"no answer to a PING within {pulse.limit:g}s")
            return
        connection.engine.set_alarm(self, pulse.due_at)
        if pulse.state == DOUBTED:
            connection.pool.on_doubted(connection)

    def on_replaced(self) -> None:
        """Another connection was made while this one owes its answer: what is withheld need not wait any longer."""
        if self.connection.withheld:
            silent = self.connection.engine.now - self.pulse.asked_at
            self._give_up(f"no answer to a PING for {silent:.3g}s, while another connection was made")

    def _give_up(self, why: str) -> None:
        connection = self.connection
        question = "reuse" if connection.withheld else "keepalive"
        bump(connection.pool.dispatch.metrics.ping_timeouts, question)
        log.warning("%s: %s: %s; closing the connection as dead", connection.pool.name, connection.peer, why)
        connection.fault, connection.cause = why, "ping_timeout"
        connection.engine.cancel_alarm(self)
        connection.abort()
