"""Whether an attempt that failed is followed by another, and when (gRFC A6). Pure: it answers with a value.

Three classes (F9): what was never sent and what was refused certainly did not run, and is tried again without
asking here. Everything else may have run, and is judged here, by the codes that the method's settings name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from sidecar.policy.balancer import Rng
from sidecar.policy.method_settings import RetrySettings
from sidecar.rpc import status as codes

if TYPE_CHECKING:
    from sidecar.policy.budget import RetryBudget, RetryThrottle

MOST_ATTEMPTS: Final = 5  # gRFC A6: more is treated as this
JITTER: Final = 0.2  # gRFC A6, as amended: +-20 %

# Why there is no retry: each is a label of sidecar_proxy_retries_suppressed_total, but for the first.
NOT_RETRIABLE: Final = "not_retriable"  # the ordinary end of an RPC: nothing was suppressed
COMMITTED: Final = "committed"  # part of the answer is with the app, or the request outgrew the replay buffer
ATTEMPTS: Final = "attempts"
PUSHBACK: Final = "pushback"  # the endpoint asked not to be tried again
CALLER: Final = "caller"  # the caller says that it is retrying itself: one owner per call tree
THROTTLE: Final = "throttle"
BUDGET: Final = "budget"
DEADLINE: Final = "deadline"  # it would be over before the backoff

# After these the RPC has had all the retries that it gets in this call tree, and the caller is told so (F7).
SPENT: Final = frozenset((ATTEMPTS, PUSHBACK, THROTTLE, BUDGET))


class Failure(Struct, frozen=True, kw_only=True):
    """One attempt that failed, and how its RPC stands."""

    status: int
    pushback: int | None = None  # grpc-retry-pushback-ms; negative: do not retry; None: not said
    retries: int = 0  # already made by this policy
    step: int = 0  # of these, how many since the last pushback: it starts the backoff anew
    committed: bool = False
    timed_out: bool = False  # by its own per_try_timeout
    lost: bool = False  # with its connection
    caller_retries: bool = False
    remaining: float | None = None  # seconds to the deadline; None: there is none


class RetryAfter(Struct, frozen=True):
    """Try again in `seconds`. A place in the budget was taken for it."""

    seconds: float


class GiveUp(Struct, frozen=True):
    """The failure is the answer."""

    reason: str


class RetryPolicy:
    """The frozen parameters of one method's retries."""

    __slots__ = ("backoff_base", "backoff_factor", "backoff_max", "codes", "max_attempts", "per_try_timeout")

    def __init__(self, settings: RetrySettings) -> None:
        self.max_attempts = min(settings.max_attempts, MOST_ATTEMPTS)
        named = {codes.STATUS_NAMES.index(name) for name in settings.codes}
        self.codes = frozenset(named | {codes.UNAVAILABLE} if settings.idempotent else named)
        self.backoff_base = settings.backoff_base
        self.backoff_factor = settings.backoff_factor
        self.backoff_max = settings.backoff_max
        self.per_try_timeout = settings.per_try_timeout  # seconds; 0: none

    @property
    def useful(self) -> bool:
        """Whether anything can ever be retried by it."""
        return self.max_attempts > 1 and bool(self.codes)

    def retriable(self, failure: Failure) -> bool:
        """Whether a failure of this kind is tried again at all; an attempt's own timeout always is."""
        return failure.status in self.codes or failure.timed_out

    def backoff(self, step: int, rng: Rng) -> float:
        """Seconds before the retry after `step` others: min(base x factor^step, maximum) x U(0.8, 1.2) (RT-02)."""
        delay = min(self.backoff_base * self.backoff_factor**step, self.backoff_max)
        return delay * (1 - JITTER + 2 * JITTER * rng.random())

    def decide(
        self,
        failure: Failure,
        in_flight: int,
        budget: RetryBudget,
        throttle: RetryThrottle | None,
        rng: Rng,
        now: float,
    ) -> RetryAfter | GiveUp:
        """What becomes of an RPC with this failure, while `in_flight` RPCs of the upstream are under way.

        The tokens of `throttle` are counted here, and RetryAfter has taken its place in `budget`.
        """
        refused = failure.pushback is not None and failure.pushback < 0
        retriable = self.retriable(failure)
        if throttle is not None and (retriable or refused):
            throttle.fail(lost_at=now if failure.lost else None)
        if not retriable:
            return GiveUp(NOT_RETRIABLE)
        if failure.committed:
            return GiveUp(COMMITTED)
        if refused:
            return GiveUp(PUSHBACK)
        if failure.caller_retries:
            return GiveUp(CALLER)
        if failure.retries + 1 >= self.max_attempts:
            return GiveUp(ATTEMPTS)
        if throttle is not None and not throttle.open:
            return GiveUp(THROTTLE)
        delay = self.backoff(failure.step, rng) if failure.pushback is None else failure.pushback / 1000
        if failure.remaining is not None and failure.remaining <= delay:
            return GiveUp(DEADLINE)
        return RetryAfter(delay) if budget.take(in_flight, now) else GiveUp(BUDGET)

    def __repr__(self) -> str:
        names = ",".join(sorted(codes.status_name(code) for code in self.codes))
        return f"<RetryPolicy max_attempts={self.max_attempts} codes={names or 'none'}>"
