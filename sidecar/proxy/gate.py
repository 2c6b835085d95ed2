"""Where an RPC passes what its upstream configures beyond the plain caps: limits, faults, a mirror, in that order.

An upstream that configures none of it has no gate, and its RPCs pay for none. Limits come first, so that an RPC that is
refused is neither copied nor made to fail; the copy is made last, of RPCs that are really forwarded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sidecar.policy.admission import Admission
from sidecar.policy.fault import Faults
from sidecar.proxy.fault import Injector
from sidecar.proxy.mirror import Mirror
from sidecar.proxy.relay import Relay
from sidecar.rpc.outcome import SUCCESS, TIMEOUT

if TYPE_CHECKING:
    from sidecar.proxy.dispatch import Dispatch
    from sidecar.proxy.exchange import Exchange


class Gate:
    """One upstream's. A reload puts another in its place; RPCs leave by the one that they came in by."""

    def __init__(self, dispatch: Dispatch, admission: Admission, faults: Faults, mirror: Mirror | None) -> None:
        self.dispatch = dispatch
        self.admission = admission
        self.mirror = mirror
        self.injector = Injector(dispatch, faults, self.forward) if faults.all else None

    def enter(self, exchange: Exchange) -> None:
        """An RPC begins: refuse it, give it its fault, or forward it."""
        dispatch = self.dispatch
        rate = exchange.policy.rate if exchange.policy is not None else None
        refusal = self.admission.admit(rate, dispatch.in_flight, exchange.engine.now)
        if refusal is not None:
            exchange.refuse(refusal)
        elif self.injector is None or self.injector.enter(exchange):
            self.forward(exchange)

    def forward(self, exchange: Exchange) -> None:
        """It is to be placed."""
        if self.mirror is not None:
            self.mirror.watch(exchange)
        self.dispatch.place(exchange)

    def relay(self, exchange: Exchange) -> Relay | None:
        """A relay for its response, if it needs one of its own."""
        return self.injector.relay(exchange) if self.injector is not None else None

    def leave(self, exchange: Exchange) -> None:
        """The RPC is over."""
        if self.injector is not None:
            self.injector.leave(exchange)
        if self.mirror is not None:
            self.mirror.forget(exchange)
        concurrency, attempt = self.admission.concurrency, exchange.last
        if concurrency is not None and attempt is not None and attempt.outcome in (SUCCESS, TIMEOUT):
            now = exchange.engine.now
            concurrency.note((attempt.answered_at or now) - attempt.asked_at, self.dispatch.in_flight + 1, now)
            self.dispatch.metrics.concurrency_limit = concurrency.limit

    def notes(self, now: float) -> Iterator[str]:
        """What it does at present, in sentences for an operator."""
        concurrency = self.admission.concurrency
        if concurrency is not None:
            probing = ", being measured anew" if concurrency.probing else ""
            yield f"adaptive limit: {concurrency.limit} RPCs, unpressed {concurrency.baseline * 1e3:.3g} ms{probing}"
        if self.injector is not None:
            for fault in self.injector.faults.all:
                yield f"{fault}; {'over' if fault.ended(now) else f'{fault.active} RPCs have it now'}"
        if self.mirror is not None:
            yield str(self.mirror)
