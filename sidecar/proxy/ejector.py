"""Ejection's hands in the data path: its timer, its log lines, its counters. Who is ejected, `policy.ejection` says.

It also writes down what else puts an endpoint out and brings it back: that it cannot be reached, and its health checks.
It ends with its dispatch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from sidecar.policy import event as kinds
from sidecar.policy.ejection import Ejection
from sidecar.policy.event import Event
from sidecar.proxy.upstream import Timeout
from sidecar.telemetry.metrics import bump

if TYPE_CHECKING:
    from sidecar.policy.ejection_settings import EjectionSettings
    from sidecar.policy.endpoint import Endpoint
    from sidecar.policy.judge import Classifier
    from sidecar.proxy.dispatch import Dispatch

log = logging.getLogger("sidecar.proxy")

_WARNINGS: Final = (kinds.EJECTED, kinds.UNREACHABLE, kinds.CHECK_FAILED)


class Ejector:
    """Carries out for one upstream what its `Ejection` decides."""

    def __init__(self, dispatch: Dispatch) -> None:
        self.dispatch = dispatch
        self.engine = dispatch.engine
        self._alarm = Timeout(self._on_due)

    def reconfigure(self, settings: EjectionSettings, classifier: Classifier | None = None) -> None:
        """Judge by `settings` from now on. Switched off, everybody who is out comes back at once."""
        dispatch, now = self.dispatch, self.engine.clock()  # a reload happens outside of the data path's turns
        ejection = dispatch.ejection
        if ejection is None:
            if settings.enabled:
                dispatch.ejection = Ejection(dispatch.cluster, settings, self.engine.rng, now, classifier)
        elif settings.enabled:
            self._note_all(ejection.reconfigure(settings, classifier, now))
        else:
            dispatch.ejection = None
            self._note_all(ejection.lift(now))
        self._set_alarm()

    def note(self, event: Event) -> None:
        """Something became of an endpoint: log it, count it, keep it for `/events`."""
        dispatch = self.dispatch
        dispatch.cluster.events.append(event)
        if event.kind == kinds.EJECTED:
            bump(dispatch.metrics.ejections, event.reason)
        elif event.kind == kinds.WITHHELD:
            pair = (event.reason, event.withheld)
            dispatch.metrics.withheld[pair] = dispatch.metrics.withheld.get(pair, 0) + 1
        fields = {"event": f"endpoint_{event.kind}", "upstream": dispatch.name, "endpoint": event.endpoint}
        if event.reason:
            fields["reason"] = event.reason
        if event.withheld:
            fields["withheld"] = event.withheld
        level = logging.WARNING if event.kind in _WARNINGS else logging.INFO
        log.log(level, "%s: %s", dispatch.name, event.text, extra=fields)
        self._set_alarm()

    def note_unreachable(self, endpoint: Endpoint, error: str, delay: float) -> None:
        """A connect failed, the first of a row (P4b). That it is not picked meanwhile is its connectivity's doing."""
        text = f"cannot connect to {endpoint.address}: {error}; trying again in {delay:.1f}s, others are used meanwhile"
        self._note_reach(endpoint, kinds.UNREACHABLE, text)

    def note_reachable(self, endpoint: Endpoint) -> None:
        """A connect worked again."""
        self._note_reach(endpoint, kinds.REACHABLE, f"connected to {endpoint.address} again")

    def _note_reach(self, endpoint: Endpoint, kind: str, text: str) -> None:
        self.note(Event(at=self.engine.now, endpoint=endpoint.address, kind=kind, reason="", text=text))

    def begin_trial(self, endpoint: Endpoint) -> None:
        """An RPC goes to an endpoint in probation."""
        if self.dispatch.ejection is not None:
            self.dispatch.ejection.begin_trial(endpoint, self.engine.now)
            self._set_alarm()

    def _on_due(self) -> None:
        if self.dispatch.ejection is not None:
            self._note_all(self.dispatch.ejection.tick(self.engine.now, self._serves))
        self._set_alarm()

    def _serves(self, endpoint: Endpoint) -> bool:
        """Whether it has begun to answer an RPC that went there in its present state: a stream may last for days."""
        pool = self.dispatch.pools.get(endpoint)
        if pool is None:
            return False
        attempts = [attempt for connection in (*pool.connections, *pool.draining) for attempt in connection.attempts]
        return any(attempt.answered_at and attempt.started_at >= endpoint.since_at for attempt in attempts)

    def _note_all(self, events: Iterable[Event]) -> None:
        for event in events:
            self.note(event)

    def _set_alarm(self) -> None:
        due_at = None if self.dispatch.ejection is None else self.dispatch.ejection.next_at()
        if due_at is None:
            self.engine.cancel_alarm(self._alarm)
        else:
            self.engine.set_alarm(self._alarm, due_at)

    def close(self) -> None:
        """The upstream ends."""
        self.engine.cancel_alarm(self._alarm)
