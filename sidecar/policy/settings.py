"""The settings of the policy room: how an upstream's RPCs are spread."""

from typing import Annotated

from msgspec import Meta, Struct

from sidecar.units import Count, Duration, Fraction


class ZoneSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """RPCs stay in the sidecar's own zone as far as its instances can carry them; the rest goes where there is room."""

    own: Annotated[
        str | None,
        Meta(
            description="The sidecar's own zone; `service.meta.zone` if unset. Instances state theirs as Consul's"
            " locality, or as `zone` in the metadata of service or node.",
            examples=["eu-west-1a"],
        ),
    ] = None
    min_endpoints: Annotated[Count, Meta(description="With fewer healthy instances, zones are not looked at.")] = (
        6  # Envoy 6
    )


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
