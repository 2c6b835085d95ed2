"""The configuration file as one value: every key of the YAML is a field here or in a room's settings."""

from typing import Annotated

from msgspec import Meta, Struct

from sidecar.admin.settings import AdminSettings, LogSettings
from sidecar.control.settings import DiscoverySettings, RegistrySettings, ServiceSettings
from sidecar.policy.ejection_settings import EjectionSettings
from sidecar.policy.fault import FaultSettings
from sidecar.policy.method_settings import (
    BudgetSettings,
    HedgeSettings,
    MethodSettings,
    RetrySettings,
    ThrottleSettings,
    TimeoutSettings,
)
from sidecar.policy.mirror_settings import MirrorSettings
from sidecar.policy.rate import RateSettings
from sidecar.policy.route import RouteSettings
from sidecar.policy.settings import BalancingSettings
from sidecar.policy.shedding import OverloadSettings
from sidecar.proxy.health_settings import HealthCheckSettings
from sidecar.proxy.settings import BufferSettings, ConnectionSettings, DrainSettings, Http2Settings, LimitSettings
from sidecar.units import Address, Count, Name


class StaticEndpoint(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A member that is written in the file. A plain string is short for `{address: ...}`."""

    address: Annotated[Address, Meta(description="host:port of the instance.", examples=["127.0.0.1:50061"])]
    weight: Annotated[Count, Meta(description="Its share of traffic.")] = 1
    priority: Annotated[
        int, Meta(ge=0, le=9, description="Its level: the next higher is used as far as the lower ones fall short.")
    ] = 0
    zone: Annotated[str, Meta(description="Where it is; `zone` of its meta if unset.")] = ""
    tags: Annotated[tuple[str, ...], Meta(description="As a registry would state them.")] = ()
    meta: Annotated[dict[str, str], Meta(description="As a registry would state it.")] = {}


class UpstreamEntry(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A service that the app calls, and the localhost address it dials for it."""

    service: Annotated[
        Name, Meta(description="The service's name in the registry, where it is found.", examples=["orders"])
    ]
    listen: Annotated[
        Address | None,
        Meta(
            description="Where the app dials it: `127.0.0.1:port`, `[::1]:port` or `unix:/path`. Unset: it is only what"
            " routes and mirrors of other upstreams lead to.",
            examples=["127.0.0.1:15001"],
        ),
    ] = None
    name: Annotated[
        Name | None,
        Meta(description="What the upstream is called, where several are of one service; the service's name if unset."),
    ] = None
    routes: Annotated[
        tuple[RouteSettings, ...],
        Meta(description="Which of the RPCs that the app sends here go to other upstreams; the first that fits."),
    ] = ()
    balancer: Annotated[
        str,
        Meta(
            description="peak_ewma, least_request, round_robin, weighted_round_robin, random, ring_hash, maglev,"
            " pick_first, or a Python class as `module:Class`."
        ),
    ] = "peak_ewma"
    balancing: Annotated[
        BalancingSettings, Meta(description="What is new, what is unhealthy, and what belongs together.")
    ] = BalancingSettings()
    endpoints: Annotated[
        tuple[str | StaticEndpoint, ...] | None,
        Meta(
            description="The members, when no registry is to be asked: `host:port`, or a section each.",
            examples=[["127.0.0.1:50061", "127.0.0.1:50062"]],
        ),
    ] = None
    discovery: Annotated[DiscoverySettings, Meta(description="Which instances are taken.")] = DiscoverySettings()
    connection: Annotated[ConnectionSettings, Meta(description="Connections to each of them.")] = ConnectionSettings()
    health_check: Annotated[
        HealthCheckSettings | None,
        Meta(description="Active checks of each of them; off unless set, since every caller checks every instance."),
    ] = None
    limits: Annotated[LimitSettings, Meta(description="What the upstream may hold.")] = LimitSettings()
    retry: Annotated[RetrySettings | None, Meta(description="Retries of RPCs that may have run; none if unset.")] = None
    hedge: Annotated[
        HedgeSettings | None, Meta(description="A second attempt beside a slow first one; none if unset.")
    ] = None
    ejection: Annotated[
        EjectionSettings,
        Meta(description="When an instance that fails is left out, and how it comes back."),
    ] = EjectionSettings()
    timeouts: Annotated[TimeoutSettings | None, Meta(description="How long an RPC may last; no limit if unset.")] = None
    rate: Annotated[
        RateSettings | None,
        Meta(description="RPCs per second, all methods together that have no `rate` of their own; any if unset."),
    ] = None
    methods: Annotated[
        dict[str, MethodSettings],
        Meta(
            description="Sections that differ by method: `/pkg.Service/Method`, or `/pkg.Service/*` for the rest of a"
            " service.",
            examples=[{"/pkg.Service/Method": {}}],
        ),
    ] = {}
    service_config: Annotated[
        str | None,
        Meta(
            description="gRPC's own service config, a path or the JSON itself: its retryPolicy, hedgingPolicy, timeout"
            " and retryThrottling. What is set here goes before it."
        ),
    ] = None
    retry_budget: Annotated[BudgetSettings, Meta(description="How much of the load may be retries.")] = BudgetSettings()
    retry_throttle: Annotated[
        ThrottleSettings | None,
        Meta(description="gRFC A6's tokens, beside the budget; if unset those of `service_config`, else as below."),
    ] = None
    faults: Annotated[
        tuple[FaultSettings, ...],
        Meta(description="Faults on purpose, for tests of the app; the first that is for an RPC decides."),
    ] = ()
    mirror: Annotated[MirrorSettings | None, Meta(description="Copies of its RPCs for another upstream.")] = None

    @property
    def known_as(self) -> str:
        """The upstream's name: in routes, messages, metrics and the admin API."""
        return self.name or self.service


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file."""

    service: Annotated[
        ServiceSettings | None, Meta(description="The co-located app; leave it out to register nothing.")
    ] = None
    registry: Annotated[RegistrySettings, Meta(description="Where services are registered and found.")] = (
        RegistrySettings()
    )
    upstreams: Annotated[tuple[UpstreamEntry, ...], Meta(description="The services that the app calls.")] = ()
    admin: Annotated[AdminSettings, Meta(description="The admin API.")] = AdminSettings()
    http2: Annotated[Http2Settings, Meta(description="The HTTP/2 protocol on both hops.")] = Http2Settings()
    buffers: Annotated[BufferSettings, Meta(description="Memory for data on its way.")] = BufferSettings()
    overload: Annotated[OverloadSettings, Meta(description="What is done when there is more to do than can be.")] = (
        OverloadSettings()
    )
    drain: Annotated[DrainSettings, Meta(description="How the sidecar ends.")] = DrainSettings()
    log: Annotated[LogSettings, Meta(description="What is logged, and how.")] = LogSettings()
    allow_remote_listeners: Annotated[
        bool, Meta(description="Accept listen addresses off loopback. Anyone who reaches them can call through.")
    ] = False

    @property
    def zone(self) -> str:
        """The zone that the co-located service is registered with; empty if it states none."""
        return self.service.meta.get("zone", "") if self.service is not None else ""
