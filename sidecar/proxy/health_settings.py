"""The settings of active health checks: what is asked of each endpoint of an upstream, how often, and what it takes."""

from typing import Annotated

from msgspec import Meta, Struct

from sidecar.units import Count, Duration, Fraction, Port


class GrpcHealth(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Ask the endpoint's grpc.health.v1 service, over a connection that its RPCs use."""

    service: Annotated[str, Meta(description="The name asked for; empty means the whole server.")] = ""
    watch: Annotated[
        bool,
        Meta(
            description="Keep one stream open on which the endpoint tells every change (gRFC A17), instead of asking"
            " again and again. Then rise, fall and the intervals have no effect."
        ),
    ] = True


class HttpHealth(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """GET a path of the endpoint, over a connection that its RPCs use: 2xx passes, every other answer denies."""

    path: Annotated[str, Meta(pattern="^/", description="The path asked for.")] = "/health"


class TcpHealth(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Open a TCP connection to the endpoint, and close it."""

    port: Annotated[Port | None, Meta(description="Where to; the endpoint's own port if unset.")] = None


class HealthCheckSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Active checks of every endpoint of the upstream. At most one of grpc, http and tcp; grpc if none is given."""

    grpc: Annotated[GrpcHealth | None, Meta(description="Ask grpc.health.v1.")] = None
    http: Annotated[HttpHealth | None, Meta(description="Ask by GET.")] = None
    tcp: Annotated[TcpHealth | None, Meta(description="Only connect.")] = None
    interval: Annotated[Duration, Meta(ge=0.1, description="Between two checks of an endpoint.")] = 5.0  # Consul 10 s
    idle_interval: Annotated[
        Duration, Meta(ge=0.1, description="The same while the upstream has no RPCs: nobody needs to know sooner.")
    ] = 60.0  # Envoy's no_traffic_interval 60 s
    jitter: Annotated[
        Fraction, Meta(description="By how much of itself each interval varies, so that checks do not come in bursts.")
    ] = 0.1
    timeout: Annotated[Duration, Meta(ge=0.01, description="For the answer, and for the first word of a watch.")] = 1.0
    rise: Annotated[Count, Meta(description="Passes in a row that bring an endpoint back.")] = 2  # HAProxy 2
    fall: Annotated[
        Count,
        Meta(description="Checks in a row without an answer that put it out; an answer that denies does so at once."),
    ] = 3  # HAProxy 3
