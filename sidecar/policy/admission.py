"""Whether an RPC may begin, by the limits that its upstream need not have: a rate, and a limit that adapts.

It is asked once per RPC, at one point of the data path, and only for upstreams that configure any of it. The plain caps
(`limits.max_in_flight`, the byte budget) are checked before it, for everybody.
"""

from __future__ import annotations

from math import ceil

from sidecar.policy.cluster import Refusal
from sidecar.policy.concurrency import Concurrency
from sidecar.policy.rate import Rate
from sidecar.rpc.status import RESOURCE_EXHAUSTED

# Why an RPC may not begin; each is a metric label. None is waited for: the caller is told when to come again.
RATE_LIMIT = "rate_limit"
CONCURRENCY_LIMIT = "concurrency_limit"


class Admission:
    """The limits of one upstream. `concurrency` is told of every RPC's end by whoever asks here."""

    def __init__(self, name: str, concurrency: Concurrency | None) -> None:
        self.name = name
        self.concurrency = concurrency

    def admit(self, rate: Rate | None, in_flight: int, now: float) -> Refusal | None:
        """Why an RPC may not begin, or None; then it counts. `rate` is for its method, `in_flight` includes it."""
        concurrency = self.concurrency
        if concurrency is not None and in_flight > concurrency.limit:
            return self._too_many(concurrency)
        if rate is None:
            return None
        wait = rate.wait(now)
        if wait:
            return self._too_fast(rate, wait)
        rate.count(now)
        return None

    def _too_many(self, concurrency: Concurrency) -> Refusal:
        text = (
            f"{self.name}: {concurrency.limit} RPCs are in flight, and it bears no more at present"
            f" (limits.adaptive; unpressed it takes {concurrency.baseline * 1e3:.3g} ms)"
        )
        return Refusal(CONCURRENCY_LIMIT, text)

    def _too_fast(self, rate: Rate, wait: float) -> Refusal:
        milliseconds = ceil(wait * 1e3 - 1e-6)  # what a pushback is told in; not one more for a last bit
        text = (
            f"{self.name}: the limit of {rate} is reached ({rate.key});"
            f" come again in {milliseconds} ms, or raise the limit"
        )
        return Refusal(RATE_LIMIT, text, status=RESOURCE_EXHAUSTED, pushback=milliseconds / 1e3)
