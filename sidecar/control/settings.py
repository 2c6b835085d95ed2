"""The settings of the control room: what to register, with which registry, and how to watch it."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from sidecar.units import Address, Count, Duration, Fraction, Name, Port


class GrpcCheck(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Ask the app's grpc.health.v1 service."""

    service: Annotated[str, Meta(description="The name asked for; empty means the whole server.")] = ""
    port: Annotated[Port | None, Meta(description="Where the app answers; the service's port if unset.")] = None


class HttpCheck(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """GET a path of the app: 2xx passes, 429 warns, anything else is critical (as Consul judges it)."""

    path: Annotated[str, Meta(pattern="^/", description="The path asked for.")] = "/health"
    port: Annotated[Port | None, Meta(description="Where the app answers; the service's port if unset.")] = None


class TcpCheck(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Open a TCP connection to the app."""

    port: Annotated[Port | None, Meta(description="Where the app answers; the service's port if unset.")] = None


class CheckSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the health of the app is found out. At most one of grpc, http and tcp; tcp if none is given."""

    grpc: Annotated[GrpcCheck | None, Meta(description="Ask grpc.health.v1.")] = None
    http: Annotated[HttpCheck | None, Meta(description="Ask over HTTP/1.1.")] = None
    tcp: Annotated[TcpCheck | None, Meta(description="Only connect.")] = None
    by: Annotated[
        Literal["sidecar", "agent"],
        Meta(
            description="Who probes: the sidecar (feeding a TTL check, with the reason in its output), or the Consul"
            " agent."
        ),
    ] = "sidecar"
    interval: Annotated[Duration, Meta(ge=0.001, description="Between two probes.")] = 5.0  # Dapr 5 s
    timeout: Annotated[Duration, Meta(ge=0.001, description="For one probe.")] = 0.5  # Dapr 500 ms
    failures: Annotated[Count, Meta(description="Failed probes in a row that make the app critical.")] = 3  # Dapr 3
    passes: Annotated[Count, Meta(description="Passed probes in a row that make it passing.")] = 1  # Nerve 1
    ttl: Annotated[
        Duration | None,
        Meta(
            description="Without news for this long, Consul calls it critical; three intervals, at least 10s, if unset."
        ),
    ] = None
    deregister_after: Annotated[
        Duration, Meta(ge=60, description="Critical for this long, Consul removes it. Consul's minimum is 1m.")
    ] = 60.0


class WeightSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The share of traffic this instance asks for."""

    passing: Annotated[Count, Meta(description="While passing.")] = 1
    warning: Annotated[Count, Meta(description="While warning.")] = 1


class ServiceSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The co-located app that is registered. Leave `service` out to register nothing."""

    name: Annotated[Name, Meta(description="The service's name in the registry.", examples=["greeter"])]
    port: Annotated[Port, Meta(description="The app's port.", examples=[50051])]
    address: Annotated[
        str | None,
        Meta(description="The address other machines reach the app at; the machine's outgoing address if unset."),
    ] = None
    id: Annotated[
        str | None,
        Meta(description="A stable instance id; made of name, address and port (and the pod's UID) if unset."),
    ] = None
    probe_address: Annotated[str, Meta(description="Where the sidecar itself reaches the app.")] = "127.0.0.1"
    tags: Annotated[tuple[str, ...], Meta(description="Registry tags.")] = ()
    meta: Annotated[dict[str, str], Meta(description="Registry metadata.")] = {}
    weights: Annotated[WeightSettings, Meta(description="Registry weights.")] = WeightSettings()
    check: Annotated[CheckSettings, Meta(description="How its health is found out.")] = CheckSettings()


class ConsulSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A Consul agent. Consul's own environment variables (CONSUL_HTTP_ADDR, ...) fill what is left out."""

    address: Annotated[
        str | None, Meta(description="`host:port`, `http(s)://host:port` or `unix:///path`; 127.0.0.1:8500 if unset.")
    ] = None
    token: Annotated[str | None, Meta(description="ACL token. Prefer token_file.", extra={"secret": True})] = None
    token_file: Annotated[str | None, Meta(description="A file with the ACL token, read again when it changes.")] = None
    datacenter: Annotated[str | None, Meta(description="Ask this datacenter; the agent's own if unset.")] = None
    namespace: Annotated[str | None, Meta(description="Consul Enterprise namespace.")] = None
    partition: Annotated[str | None, Meta(description="Consul Enterprise partition.")] = None
    ca_file: Annotated[str | None, Meta(description="CA certificates for https.")] = None
    cert_file: Annotated[str | None, Meta(description="Client certificate for https.")] = None
    key_file: Annotated[str | None, Meta(description="Key of the client certificate.")] = None
    verify: Annotated[
        bool | None, Meta(description="Check the agent's certificate; true if unset here and in the environment.")
    ] = None
    wait: Annotated[Duration, Meta(ge=1, le=600, description="How long one blocking query may hang.")] = 60.0
    timeout: Annotated[Duration, Meta(ge=0.001, description="For every other request.")] = 5.0
    consistency: Annotated[
        Literal["stale", "default"], Meta(description="Which servers may answer; stale is right for a sidecar.")
    ] = "stale"


class FileSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A directory of small JSON leases, shared by the sidecars of one machine: for development and edge."""

    path: Annotated[
        str, Meta(min_length=1, description="The directory; made if missing.", examples=["/run/sidecar/registry"])
    ]
    ttl: Annotated[Duration, Meta(ge=0.001, description="A lease not renewed for this long has expired.")] = 3.0
    poll_interval: Annotated[Duration, Meta(ge=0.001, description="Between two looks at the directory.")] = 0.25


class RegistrySettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which registry, at most one, and how its answers are trusted."""

    consul: Annotated[ConsulSettings | None, Meta(description="A Consul agent.")] = None
    file: Annotated[FileSettings | None, Meta(description="A directory on this machine.")] = None
    empty_grace: Annotated[
        Duration, Meta(description="How long an empty answer is disbelieved and the last list kept.")
    ] = 30.0
    removal_guard: Annotated[
        Fraction,
        Meta(description="An answer that removes more than this share keeps the removed as last resort; 1 is off."),
    ] = 0.5
    cache_dir: Annotated[
        str | None, Meta(description="Where the last good lists are kept for a restart during an outage; off if unset.")
    ] = None
    reconcile_interval: Annotated[
        Duration, Meta(ge=0.001, description="How often the registration is compared with the registry and repaired.")
    ] = 5.0
    stale_warning: Annotated[
        Duration, Meta(description="Membership older than this is reported as stale (log and metric).")
    ] = 300.0


class Selection(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which instances of a service are taken, on one level of an upstream. Nothing is inherited from another level."""

    datacenter: Annotated[str | None, Meta(description="Consul datacenter; the agent's own if unset.")] = None
    tags: Annotated[tuple[str, ...], Meta(description="Only instances that carry all of these.")] = ()
    meta: Annotated[
        dict[str, str],
        Meta(description="Only instances whose metadata says exactly this.", examples=[{"version": "v2"}]),
    ] = {}
    filter: Annotated[
        str | None, Meta(description="A Consul filter expression, such as `Service.Meta.version == v1`.")
    ] = None
    passing_only: Annotated[
        bool, Meta(description="Leave out instances in warning too, instead of giving them their warning weight.")
    ] = False


class DiscoverySettings(Selection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which instances of a service an upstream takes."""

    failover: Annotated[
        tuple[Selection, ...],
        Meta(
            description="Further levels. Each takes what those before it fall short of, when fewer than 72 % of their"
            " instances are available.",
            examples=[[{"datacenter": "dc2"}]],
        ),
    ] = ()
    subset_size: Annotated[
        Count | None,
        Meta(
            description="Use only so many instances of each level, others in each sidecar: for services of hundreds."
            " All if unset."
        ),
    ] = None  # gRFC A68; 20 to 50 is usual


__all__ = [
    "Address",
    "CheckSettings",
    "ConsulSettings",
    "DiscoverySettings",
    "FileSettings",
    "GrpcCheck",
    "HttpCheck",
    "RegistrySettings",
    "Selection",
    "ServiceSettings",
    "TcpCheck",
    "WeightSettings",
]
