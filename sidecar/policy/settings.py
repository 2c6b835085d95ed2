"""The settings of the policy room: how an upstream's RPCs are spread."""

from typing import Annotated

from msgspec import Meta, Struct

from sidecar.units import Count, Duration, Fraction


class ZoneSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """RPCs stay in the sidecar's own zone as far as its instances can carry them; the rest goes where there is room."""

    own: Annotated[
        str | None,
        Meta(
            description="The sidecar's own zone; if unset `service.meta.zone`, else `zone` in the metadata of the"
            " Consul agent's node. Instances state theirs as `zone` in their metadata, else as Consul's locality, else"
            " as `zone` in the metadata of their node.",
            examples=["eu-west-1a"],
        ),
    ] = None
    min_endpoints: Annotated[Count, Meta(description="With fewer healthy instances, zones are not looked at.")] = (
        6  # Envoy 6
    )


class LoadReportSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How weighted_round_robin weighs an instance by its own reports: requests per second over utilization."""

    utilization: Annotated[
        tuple[str, ...],
        Meta(
            description="Where an instance states no application_utilization: the highest of these values it reports,"
            " such as `named_metrics.queue`; if it has none of them, cpu_utilization.",
            examples=[["named_metrics.queue"]],
        ),
    ] = ()
    error_penalty: Annotated[
        float, Meta(ge=0, description="How much of its utilization an error per request counts as.")
    ] = 1.0  # gRFC A58 1.0
    blackout: Annotated[
        Duration, Meta(description="So long after an instance's first report it is not weighed by them; 0: at once.")
    ] = 10.0  # gRFC A58 10 s
    expiry: Annotated[Duration, Meta(ge=0.1, description="A report is good for so long.")] = 180.0  # gRFC A58 3 min
    update_interval: Annotated[Duration, Meta(ge=0.1, description="How often the weights are reckoned anew.")] = (
        1.0  # gRFC A58 1 s, at least 100 ms
    )
    out_of_band: Annotated[
        Duration,
        Meta(
            description="Ask every instance for a stream of reports at this interval, for RPCs that end too seldom to"
            " carry them; 0: do not ask. Servers raise it to their own minimum, often 30s."
        ),
    ] = 0.0  # gRFC A58 off, then 10 s


class BalancingSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the balancer treats what is new, what is unhealthy, and what belongs together."""

    slow_start: Annotated[
        Duration,
        Meta(
            description="An instance that is new or back from ejection grows to its full share over this; 0: at once."
        ),
    ] = 10.0  # Envoy off, HAProxy off; its share begins at 10 %, Envoy's floor
    panic_threshold: Annotated[
        Fraction,
        Meta(description="With fewer healthy than this share of the connected instances, all are used; 0: never."),
    ] = 0.5  # Envoy 50 %
    zone_aware: Annotated[
        ZoneSettings | None, Meta(description="Keep RPCs in the zone; `{}` is enough. Off if unset.")
    ] = None  # Envoy on in clusters of 6 and more, Istio on with outlier detection: a surprise in both
    load_reports: Annotated[LoadReportSettings, Meta(description="For weighted_round_robin.")] = LoadReportSettings()
    hash_on: Annotated[
        str,
        Meta(
            pattern=r"^:?[a-z0-9][a-z0-9_.-]*$",
            description="The header that ring_hash and maglev keep together; `:path` is the method.",
        ),
    ] = ":path"
    hash_load_limit: Annotated[
        float,
        Meta(ge=0, description="ring_hash and maglev load no instance above this many times the mean; 0: no limit."),
    ] = 1.5  # Envoy's example for hash_balance_factor, 150; Vimeo 1.25
