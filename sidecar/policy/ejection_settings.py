"""The settings of ejection: what speaks against an instance, when it is put out, for how long, and who stays."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from sidecar.units import Count, Duration, Fraction, Percent

# Neither OK, nor CANCELLED, which is the app's doing, nor DEADLINE_EXCEEDED, which `timeouts` speaks of.
FailureStatus = Literal[
    "UNKNOWN",
    "INVALID_ARGUMENT",
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


class SuccessRateSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """gRFC A50: instances whose success rate is far below the mean of all."""

    stdev_factor: Annotated[
        int, Meta(ge=0, description="Thousandths of a standard deviation below the mean that are too far.")
    ] = 1900  # A50 and Envoy, as all numbers of these three sections
    enforcement: Annotated[Percent, Meta(description="Per cent of such findings that are carried out.")] = 100
    minimum_hosts: Annotated[Count, Meta(description="So many instances must have the volume, or none is judged.")] = 5
    request_volume: Annotated[Count, Meta(description="RPCs in an interval, without which no instance is judged.")] = (
        100
    )


class FailurePercentageSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """gRFC A50: instances of which more than a fixed share of the RPCs fails."""

    threshold: Annotated[Percent, Meta(description="More per cent of failures than this are too many.")] = 85
    enforcement: Annotated[Percent, Meta(description="Per cent of such findings that are carried out.")] = 100
    minimum_hosts: Annotated[Count, Meta(description="So many instances must have the volume, or none is judged.")] = 5
    request_volume: Annotated[Count, Meta(description="RPCs in an interval, without which no instance is judged.")] = 50


class OutlierSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """gRFC A50, the outlier detection of gRPC's own clients. Each algorithm is on when its section is given."""

    interval: Annotated[
        Duration, Meta(ge=0.01, description="From one judgement to the next; RPCs are counted anew.")
    ] = 10.0
    base_ejection_time: Annotated[
        Duration, Meta(description="Times the ejections in a row, for so long an instance is out.")
    ] = 30.0
    max_ejection_time: Annotated[
        Duration, Meta(description="But no longer than this, or than base_ejection_time if that is more.")
    ] = 300.0
    max_ejection_percent: Annotated[
        Percent, Meta(description="With this share out already, no other is ejected by these two.")
    ] = 10
    success_rate: Annotated[
        SuccessRateSettings | None, Meta(description="Judge by the distance from the mean; `{}` is enough.")
    ] = None
    failure_percentage: Annotated[
        FailurePercentageSettings | None, Meta(description="Judge by a fixed share of failures; `{}` is enough.")
    ] = None


class EjectionSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Instances that fail are left out of picks for a while, then prove themselves with one RPC."""

    enabled: Annotated[bool, Meta(description="Whether instances are judged at all.")] = True
    enforce: Annotated[
        Percent, Meta(description="Per cent of ejections that are carried out; 0 logs and counts what would be done.")
    ] = 100
    failures: Annotated[
        tuple[FailureStatus, ...],
        Meta(description="The grpc-status values, in head or trailers, that speak against an instance."),
    ] = ("UNKNOWN", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")  # linkerd the same and more; gRPC every status but OK
    classifier: Annotated[
        str | None,
        Meta(
            description="A Python function `module:function` that judges an answer in place of `failures`: called with"
            " grpc-status, seconds and path, it returns True for a failure, False for a success, None for neither."
        ),
    ] = None
    timeouts: Annotated[
        Literal["against_peers", "always", "never"],
        Meta(
            description="When DEADLINE_EXCEEDED speaks against an instance; against_peers: while its share of them is"
            " more than twice that of the other instances."
        ),
    ] = "against_peers"
    consecutive_failures: Annotated[
        int, Meta(ge=0, description="So many failures in a row that an instance answered with; 0: not looked at.")
    ] = 5  # Envoy 5, linkerd 7
    consecutive_local_failures: Annotated[
        int, Meta(ge=0, description="So many lost connections with RPCs on them in a row; 0: not looked at.")
    ] = 5  # Envoy 5
    success_rate: Annotated[
        Fraction, Meta(description="A smaller share of successes over success_rate_window is too small; 0: never.")
    ] = 0.8  # linkerd's edge 0.8
    success_rate_window: Annotated[Duration, Meta(ge=0.1, description="Over how long that share is taken.")] = (
        10.0  # linkerd's edge 10 s
    )
    success_rate_volume: Annotated[
        Count, Meta(description="RPCs in that window, without which an instance is not judged by it.")
    ] = 5  # linkerd's edge 5
    first_time: Annotated[Duration, Meta(ge=0.001, description="How long the first ejection lasts.")] = (
        1.0  # linkerd 1 s
    )
    max_time: Annotated[
        Duration, Meta(ge=0.001, description="Each one in a row lasts twice as long as the one before, up to this.")
    ] = 60.0  # linkerd 60 s
    jitter: Annotated[
        Fraction, Meta(description="Up to this share is added to each, so that sidecars do not try in step.")
    ] = 0.5  # linkerd 0.5
    max_ejected: Annotated[
        Percent,
        Meta(description="With this share of the instances out already, no other is ejected; at least one may go."),
    ] = 30  # Envoy 10, which is none of nine
    outlier_detection: Annotated[
        OutlierSettings | None, Meta(description="The two algorithms of gRFC A50, besides the above.")
    ] = None
