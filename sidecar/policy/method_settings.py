"""The settings that may differ from method to method: each a section of an upstream, and of its `methods`.

A section that a method gives replaces the upstream's section of that name as a whole; nothing is mixed. Beside them
stand the accounts that all RPCs of an upstream share.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from sidecar.policy.rate import RateSettings
from sidecar.units import Count, Duration, Fraction

StatusName = Literal[
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
]


class RetrySettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Retries of RPCs that may have run. What certainly did not run is tried elsewhere without any of this."""

    codes: Annotated[
        tuple[StatusName, ...],
        Meta(description="The statuses that are tried again. UNAVAILABLE includes a connection that was lost."),
    ] = ()
    idempotent: Annotated[bool, Meta(description="Running it twice does no harm: adds UNAVAILABLE to the codes.")] = (
        False  # UNAVAILABLE after the request was sent is no proof that it did not run
    )
    max_attempts: Annotated[
        Count, Meta(description="The first one included; more than 5 counts as 5, and 1 turns retries off.")
    ] = 3  # gRFC A6 at most 5; Envoy 2, linkerd 2, Istio 3
    backoff_base: Annotated[
        Duration,
        Meta(ge=0.001, description="Wait before the first retry, +-20 %; the endpoint's pushback goes before."),
    ] = 0.025  # Envoy 25 ms
    backoff_factor: Annotated[float, Meta(ge=1, le=10, description="By which each further wait is longer.")] = 2.0
    backoff_max: Annotated[Duration, Meta(ge=0.001, description="The longest wait.")] = 0.25  # Envoy 250 ms
    per_try_timeout: Annotated[
        Duration,
        Meta(description="An attempt without an answer for this long is given up and tried again; 0: none."),
    ] = 0.0  # Envoy unset


class HedgeSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A second attempt beside a first that is slow to answer: for methods that may run twice. In place of retries."""

    delay: Annotated[
        Duration | None,
        Meta(description="Wait for an answer before the next attempt; the method's live p95 if unset."),
    ] = None
    max_attempts: Annotated[
        Count, Meta(description="The first one included; more than 5 counts as 5, and 1 turns hedging off.")
    ] = 2  # gRFC A6 at most 5
    codes: Annotated[
        tuple[StatusName, ...],
        Meta(description="Statuses that are not the answer while another attempt runs or may follow, at once."),
    ] = ()  # gRFC A6's nonFatalStatusCodes
    ratio: Annotated[Fraction, Meta(description="Extra attempts for each RPC of the entry, at most.")] = 0.05


class TimeoutSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long an RPC may last. Nothing here is set by itself: without it, only the caller's own deadline counts."""

    total: Annotated[
        Duration,
        Meta(
            description="From its head to its end, all attempts together. The caller's deadline counts where it is"
            " earlier; 0: only that."
        ),
    ] = 0.0  # linkerd none; Envoy 15 s, which cuts streams
    idle: Annotated[
        Duration, Meta(description="An RPC in which nothing is sent either way for this long is ended; 0: never.")
    ] = 0.0  # Envoy 5 min, which cuts streams
    max_duration: Annotated[
        Duration, Meta(description="An RPC is ended after this long, and the instance is not told before; 0: never.")
    ] = 0.0  # Envoy unset


class MethodSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is different for one method, or for all methods of one service."""

    retry: Annotated[RetrySettings | None, Meta(description="In place of the upstream's `retry` and `hedge`.")] = None
    hedge: Annotated[HedgeSettings | None, Meta(description="In place of the upstream's `hedge` and `retry`.")] = None
    timeouts: Annotated[TimeoutSettings | None, Meta(description="In place of the upstream's.")] = None
    rate: Annotated[
        RateSettings | None, Meta(description="RPCs per second of this entry, which then count against no other.")
    ] = None


class BudgetSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How many retries one upstream may have, so that a failure does not become a storm."""

    ratio: Annotated[
        Fraction,
        Meta(description="Retries for each RPC that is no retry: of those under way, and of those in two seconds."),
    ] = 0.2  # Envoy 20 %, linkerd 20 %
    floor: Annotated[
        int, Meta(ge=0, description="So many may always be under way at a time, however few RPCs there are.")
    ] = 3  # Envoy 3
    per_second: Annotated[
        int, Meta(ge=0, description="So many a second are always allowed, however few RPCs begin.")
    ] = 10  # linkerd 10


class ThrottleSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """gRFC A6's retry throttling: a failure costs a token, and while half of them are gone nothing is retried."""

    max_tokens: Annotated[
        int, Meta(ge=0, le=1000, description="Tokens at the start, and at most; 0 switches the throttle off.")
    ] = 20  # gRFC A6 at most 1000, in its example 10
    token_ratio: Annotated[
        float,
        Meta(
            ge=0.001,
            le=1000,
            description="Tokens that a success brings back: with r, retries pause while more than r/(1+r) of the"
            " attempts fail.",
        ),
    ] = 1.0  # half of them; gRFC A6 0.1 in its example, a tenth of them
