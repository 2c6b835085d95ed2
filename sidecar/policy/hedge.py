"""When an RPC that has not been answered yet is sent to another instance as well, and whether it may be (gRFC A6).

The parameters are frozen; what is learned (how long answers take) and spent (the share of extra load) is kept by
`HedgePace`, one for each entry of the methods. Pure: `now` is an argument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sidecar.policy.budget import HedgeBudget
from sidecar.policy.retry import ATTEMPTS, BUDGET, CALLER, MOST_ATTEMPTS, PUSHBACK, THROTTLE
from sidecar.rpc import status as codes
from sidecar.telemetry.metrics import Histogram

if TYPE_CHECKING:
    from sidecar.policy.budget import RetryThrottle
    from sidecar.policy.method_settings import HedgeSettings

# Why there is no hedge, beside the reasons of retries: each is a label of sidecar_proxy_hedges_suppressed_total.
UNFINISHED: Final = "unfinished"  # the request is not here as a whole, or outgrew the replay buffer
NO_OTHER: Final = "no_other"  # no other instance can take it now

QUANTILE: Final = 0.95
LEAST_ANSWERS: Final = 100  # before a quantile of 95 % means anything
WINDOW: Final = 10.0  # seconds after which what was learned begins to be forgotten
REFRESH: Final = 0.5  # seconds for which a quantile is taken as it is


class HedgePolicy:
    """The frozen parameters of one method's hedges."""

    __slots__ = ("codes", "delay", "max_attempts", "ratio")

    def __init__(self, settings: HedgeSettings) -> None:
        self.max_attempts = min(settings.max_attempts, MOST_ATTEMPTS)
        self.delay = settings.delay  # seconds; None: the live p95
        self.codes = frozenset(codes.STATUS_NAMES.index(name) for name in settings.codes)
        self.ratio = settings.ratio

    def __repr__(self) -> str:
        delay = "p95" if self.delay is None else f"{self.delay:g}s"
        return f"<HedgePolicy max_attempts={self.max_attempts} delay={delay} ratio={self.ratio:g}>"


class HedgePace:
    """How long answers take at present, and how many hedges may be made."""

    __slots__ = ("_delay", "_former", "_fresh", "_refreshed_at", "_turned_at", "budget", "policy")

    def __init__(self, policy: HedgePolicy) -> None:
        self.policy = policy
        self.budget = HedgeBudget(policy.ratio)
        self._fresh = Histogram()
        self._former = Histogram()  # of the window before, so that there is never nothing to go by
        self._turned_at = 0.0
        self._refreshed_at = 0.0
        self._delay: float | None = None

    def observe(self, seconds: float, now: float) -> None:
        """An RPC was answered after this time."""
        if now - self._turned_at > WINDOW:
            self._turned_at = now
            self._former, self._fresh = self._fresh, Histogram()
        self._fresh.observe(seconds)

    def delay(self, now: float) -> float | None:
        """Seconds to wait for an answer before a hedge; None: not known yet."""
        if self.policy.delay is not None:
            return self.policy.delay
        if now - self._refreshed_at > REFRESH:
            self._refreshed_at = now
            enough = self._former if self._former.count > self._fresh.count else self._fresh
            self._delay = enough.quantile(QUANTILE) if enough.count >= LEAST_ANSWERS else None
        return self._delay

    def refusal(self, attempts: int, stopped: bool, caller_retries: bool, throttle: RetryThrottle | None) -> str:
        """Why there is no hedge for an RPC with so many attempts; empty: there may be, and a token was spent."""
        if attempts >= self.policy.max_attempts:
            return ATTEMPTS
        if stopped:
            return PUSHBACK
        if caller_retries:
            return CALLER
        if throttle is not None and not throttle.open:
            return THROTTLE
        return "" if self.budget.spend() else BUDGET

    def __repr__(self) -> str:
        return f"<HedgePace delay={self._delay} {self.budget!r}>"
