"""Asks every endpoint of an upstream whether it is well, and puts the verdict in force.

When to ask is here; how is in `health_check`; what findings come to is in `policy.checkup`. A `Checker` lives as long
as its endpoint's pool. It asks over the connections that the RPCs use and makes none, so an endpoint that is not
connected is not asked: it is out of the picks anyway, and its next connection begins with a check.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from sidecar.policy.backoff import Backoff
from sidecar.policy.checkup import DENIED, MISSED, PASS, Checkup
from sidecar.policy.endpoint import AWAITED, FAILED, UNCHECKED
from sidecar.policy.event import CHECK_FAILED, CHECK_PASSED, Event
from sidecar.policy.pulse import LATE
from sidecar.proxy.health_check import GrpcCheck, GrpcWatch, HttpCheck, TcpCheck
from sidecar.proxy.health_settings import GrpcHealth, HealthCheckSettings
from sidecar.proxy.pool import EndpointPool
from sidecar.proxy.wheel import Alarm
from sidecar.telemetry.metrics import bump

if TYPE_CHECKING:
    from sidecar.proxy.dispatch import Dispatch
    from sidecar.proxy.upstream import UpstreamConnection

log = logging.getLogger("sidecar.proxy")

FINDING_NAMES: Final = ("passed", "denied", "missed")  # of PASS, DENIED, MISSED
# Between two watches that the endpoint ended; gRFC A17 asks for gRPC's connection backoff, 1 s to 120 s.
WATCH_BACKOFF: Final = (1.0, 1.6, 30.0, 0.2)


class Checker(Alarm):
    """The checks of one endpoint. At most one runs at a time; the alarm is its timeout, or the time of the next."""

    __slots__ = (
        "_asked_again",
        "_asked_at",
        "_backoff",
        "_check",
        "_complained",
        "_due_at",
        "_seen",
        "checkup",
        "dispatch",
        "engine",
        "grpc",
        "pool",
        "settings",
        "watches",
    )

    def __init__(self, pool: EndpointPool, settings: HealthCheckSettings) -> None:
        super().__init__()
        self.pool = pool
        self.dispatch: Dispatch = pool.dispatch
        self.engine = pool.engine
        self.settings = settings
        self.grpc = settings.grpc or GrpcHealth()
        self.watches = settings.http is None and settings.tcp is None and self.grpc.watch
        self.checkup = Checkup(settings.rise, settings.fall)
        self._check: GrpcCheck | GrpcWatch | HttpCheck | TcpCheck | None = None  # the one that runs
        self._due_at: float = 0.0  # when the alarm should ring
        self._asked_again = False
        self._complained = False  # that there is no grpc.health.v1: once is enough
        self._asked_at: float = 0.0
        self._seen: int = 0  # RPCs of the upstream when this endpoint was asked last
        self._backoff = Backoff(*WATCH_BACKOFF)
        self._set_verdict("")
        if pool.connections:
            self.begin()

    # === when ===

    def on_connection(self, connection: UpstreamConnection) -> None:
        """A connection is ready. After a time without any, what was found before no longer holds."""
        if len(self.pool.connections) == 1:
            self._drop()
            self.checkup.restart()
            self._set_verdict("")
        if self._check is None and self.checkup.verdict == AWAITED:
            self.begin()

    def begin(self) -> None:
        """Ask now, on the first connection that takes a stream."""
        self._drop()
        self._asked_at = self.engine.now
        self._seen = self.dispatch.metrics.exchange_started
        if self._ask():
            self._set_alarm(self.settings.timeout)
        else:  # every slot is taken: it is alive, and this is no time to ask; or there is no connection
            self._set_alarm(self._interval())

    def _ask(self) -> bool:
        """Start a check. False: no connection takes a stream now."""
        tcp = self.settings.tcp
        if tcp is not None and self.pool.connections:
            self._check = knock = TcpCheck(self, self.dispatch, with_port(self.pool.endpoint.address, tcp.port))
            knock.ask()
            return True
        return tcp is None and any(map(self._ask_on, self.pool.connections))

    def _ask_on(self, connection: UpstreamConnection) -> bool:
        http, service = self.settings.http, self.grpc.service
        check: GrpcCheck | GrpcWatch | HttpCheck
        if http is not None:
            check = HttpCheck(self, connection, http.path)
            asked = check.ask()
        elif self.watches:
            check = GrpcWatch(self, connection)
            asked = check.ask(service)
        else:
            check = GrpcCheck(self, connection)
            asked = check.ask(service, self.settings.timeout)
        self._check = check if asked else None
        return asked

    def _interval(self) -> float:
        settings = self.settings
        return settings.interval * (1 + settings.jitter * (2 * self.engine.rng.random() - 1))

    def _rests(self, now: float) -> bool:
        """Whether a check that is due may wait: the upstream had no RPC since the last one, which is not long ago."""
        idle = self.dispatch.metrics.exchange_started == self._seen and not self.dispatch.in_flight
        return idle and now - self._asked_at < self.settings.idle_interval

    def _set_alarm(self, seconds: float) -> None:
        self._due_at = self.engine.now + seconds
        self.engine.set_alarm(self, self._due_at)

    def ring(self, now: float) -> None:
        if self.pool.closed:
            self._drop()
        elif not self.pool.connections:
            self._drop()
            self._set_alarm(self._interval())
        elif self._check is None:
            if not self.watches and self._rests(now):
                self._set_alarm(self._interval())
            else:
                self.begin()
        elif now - self._due_at > LATE and not self._asked_again:
            # We were late ourselves: the answer may be here unread, or the question was lost in a suspend (RL-45).
            self.begin()
            self._asked_again = True
        else:
            self.on_finding(MISSED, f"no answer to its health check within {self.settings.timeout:g}s")

    def _drop(self) -> None:
        """Stop what runs, unheard."""
        self._asked_again = False
        self.engine.cancel_alarm(self)
        if self._check is not None:
            check, self._check = self._check, None
            check.close()

    def close(self) -> None:
        """The endpoint left, or is to be checked no more."""
        self._drop()
        self.dispatch.cluster.set_checkup(self.pool.endpoint, UNCHECKED, "", self.engine.now)

    # === heard from a check ===

    def on_finding(self, finding: int, text: str) -> None:
        """What was found, and why in words."""
        bump(self.dispatch.metrics.health_checks, FINDING_NAMES[finding])
        first = self.checkup.verdict == AWAITED
        if isinstance(self._check, GrpcWatch) and not self._check.done:
            self._backoff.succeed()
            self._asked_again = False
            self.engine.cancel_alarm(self)
            if finding == MISSED:  # its first word did not come, or makes no sense
                self._end_watch()
        else:
            self._drop()
            self._set_alarm(self._interval() * (self.engine.rng.random() if first else 1.0))
        if self._record(finding):
            self._announce(text)
        self._set_verdict(text)

    def on_unimplemented(self, text: str) -> None:
        """The endpoint has no grpc.health.v1: it is taken for well, and not asked again on its present connections."""
        bump(self.dispatch.metrics.health_checks, "unimplemented")
        if not self._complained:
            self._complained = True
            log.error(
                "%s: %s has no grpc.health.v1 (%s); it is taken for healthy; add the service, or check by http or tcp",
                self.dispatch.name,
                self.pool.endpoint.address,
                text,
            )
        self._drop()
        self.checkup.restart()
        self.checkup.record(PASS)
        self._set_verdict(f"{text}; taken for healthy")

    def on_interrupted(self) -> None:
        """The connection goes away; what is left of them is asked at once."""
        self._check = None
        self.begin()

    def on_watch_ended(self, text: str) -> None:
        """No word any more: out until another watch says better (gRFC A17)."""
        bump(self.dispatch.metrics.health_checks, FINDING_NAMES[DENIED])
        self._end_watch()
        if self._record(DENIED):
            self._announce(text)
        self._set_verdict(text)

    def _end_watch(self) -> None:
        self._drop()
        self._set_alarm(self._backoff.fail(self.engine.rng))

    # === the verdict ===

    def _record(self, finding: int) -> bool:
        """Whether the verdict changed. A watch tells changes, not samples, so each word of it decides."""
        if self.watches:
            before = self.checkup.verdict
            self.checkup.restart()
            self.checkup.record(finding)
            return self.checkup.verdict != before
        return self.checkup.record(finding)

    def _set_verdict(self, text: str) -> None:
        self.dispatch.cluster.set_checkup(self.pool.endpoint, self.checkup.verdict, text, self.engine.now)

    def _announce(self, text: str) -> None:
        """Make it known, but not a first pass: that is how it should be."""
        endpoint = self.pool.endpoint
        if self.checkup.verdict == FAILED:
            self._note(CHECK_FAILED, f"fails its health check: {text}; it is spared while others pass")
        elif endpoint.checkup == FAILED:
            self._note(CHECK_PASSED, f"passes its health check again: {text}")

    def _note(self, kind: str, what: str) -> None:
        address = self.pool.endpoint.address
        text = f"{address} {what}"
        self.dispatch.note(Event(at=self.engine.now, endpoint=address, kind=kind, reason="health_check", text=text))

    def __repr__(self) -> str:
        return f"<Checker {self.pool.endpoint.address} {self.checkup!r} {'asking' if self._check else 'waiting'}>"


def with_port(address: str, port: int | None) -> str:
    """`host:port` with another port; a Unix socket has none."""
    if port is None or address.startswith("unix:"):
        return address
    return f"{address.rpartition(':')[0]}:{port}"
