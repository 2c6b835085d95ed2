"""The settings of the proxy room: upstream connections, limits, listeners and the drain."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from sidecar.http2.interface import CodecSettings
from sidecar.policy.concurrency import ConcurrencySettings
from sidecar.units import Count, Duration, Size


class ConnectionSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The shared HTTP/2 connections to one endpoint of an upstream."""

    connect_timeout: Annotated[Duration, Meta(ge=0.001, description="From the first SYN to the peer's SETTINGS.")] = (
        1.0  # linkerd 1 s, Envoy 5 s
    )
    backoff_base: Annotated[Duration, Meta(ge=0.001, description="Wait after the first failed connect.")] = (
        0.1  # linkerd 100 ms, gRPC 1 s
    )
    backoff_max: Annotated[Duration, Meta(ge=0.001, description="The longest wait between connects.")] = (
        10.0  # linkerd 60 s, gRPC 120 s
    )
    eager: Annotated[bool, Meta(description="Connect when an endpoint is discovered, so that no RPC pays for it.")] = (
        True  # B9
    )
    max_connections: Annotated[
        Count, Meta(le=100, description="Connections to one endpoint once its stream limit is reached.")
    ] = 10  # gRFC A105's ceiling
    idle_timeout: Annotated[
        Duration,
        Meta(
            description="Close a connection without streams after this long, but for the last one when eager; 0 never."
        ),
    ] = 900.0  # gRPC 30 min, Envoy 1 h
    max_age: Annotated[
        Duration, Meta(description="Replace a connection after this long, +-10 %, without cutting a stream; 0 never.")
    ] = 1800.0  # gRFC A9 jitter
    user_timeout: Annotated[
        Duration,
        Meta(
            description="The kernel ends a connection when what was sent is not acknowledged for this long"
            " (TCP_USER_TIMEOUT); 0: after about 15 min."
        ),
    ] = 3.5  # gRFC A18: as keepalive_timeout, 20 s; retransmits come 0.2, 0.6, 1.4 and 3 s after the first octet
    idle_ping: Annotated[
        Duration,
        Meta(
            description="A connection from which nothing was read for this long is asked by a PING before it is used,"
            " and what is sent on it waits for the answer; 0: never."
        ),
    ] = 30.0  # Envoy's connection_idle_interval, off unless set
    ping_timeout: Annotated[
        Duration, Meta(ge=0.5, description="Without an answer to that PING for this long, the connection is dead.")
    ] = 2.0
    keepalive_interval: Annotated[
        Duration,
        Meta(
            description="A connection with open streams from which nothing was read for this long is asked by a PING;"
            " at least 10s, 0: never. A gRPC server may close connections that ask more often than every 5m."
        ),
    ] = 360.0  # gRPC off; its servers tolerate one PING in 5 min
    keepalive_timeout: Annotated[
        Duration, Meta(ge=0.5, description="Without an answer to that PING for this long, the connection is dead.")
    ] = 20.0  # gRFC A8
    drain_grace: Annotated[
        Duration, Meta(description="Streams on a removed endpoint may run on for this long; 0 means until they end.")
    ] = 0.0


class LimitSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one upstream may hold at a time."""

    max_in_flight: Annotated[Count, Meta(description="RPCs being served; more are refused with UNAVAILABLE.")] = (
        100_000  # linkerd 100 000, Envoy 1024
    )
    max_queued: Annotated[Count, Meta(description="RPCs waiting for a connection.")] = (
        10_000  # linkerd 10 000, Envoy 1024
    )
    queue_timeout: Annotated[
        Duration, Meta(ge=0.001, description="The longest wait for a connection while none is ready.")
    ] = 3.0  # linkerd 3 s
    replay_size: Annotated[
        Size, Meta(description="Request octets kept for a retry, per RPC; more commits the RPC (gRFC A6).")
    ] = 65_536  # linkerd 64 KiB, grpc-go 256 KiB
    adaptive: Annotated[
        ConcurrencySettings | None,
        Meta(description="A limit of RPCs in flight that follows the upstream's latency; none if unset."),
    ] = None


class BufferSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How much the whole process may buffer."""

    soft_limit: Annotated[
        Size, Meta(description="Above this, connections are credited only for what was forwarded.")
    ] = 32 * 2**20
    hard_limit: Annotated[Size, Meta(description="Above this, new RPCs are refused.")] = 64 * 2**20
    per_connection: Annotated[
        Size, Meta(ge=16_384, description="Octets queued towards one peer before its senders are held back.")
    ] = 262_144


class Http2Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The HTTP/2 protocol, both hops."""

    codec: Annotated[
        Literal["auto", "native", "reference"],
        Meta(description="native if it was built, else reference; or one of them by name."),
    ] = "auto"
    max_concurrent_streams: Annotated[Count, Meta(description="RPCs one app connection may have open.")] = (
        1000  # Envoy 1024, HAProxy 100
    )
    stream_window: Annotated[Size, Meta(ge=65_535, le=2**31 - 1, description="Octets in flight per stream.")] = (
        1_048_576  # Envoy 16 MiB, linkerd 64 KiB
    )
    connection_window: Annotated[
        Size, Meta(ge=65_535, le=2**31 - 1, description="Octets in flight per connection.")
    ] = 4_194_304
    max_header_list_size: Annotated[Size, Meta(ge=4_096, description="Octets of one header block, decoded.")] = 16_384
    max_header_fields: Annotated[Count, Meta(description="Fields of one header block.")] = 128
    preface_timeout: Annotated[Duration, Meta(ge=0.001, description="For the first octets of an app connection.")] = 5.0
    idle_timeout: Annotated[
        Duration, Meta(description="Close an app connection without streams after this long; 0 never.")
    ] = 3600.0  # Envoy 1 h
    max_connections: Annotated[Count, Meta(description="App connections per listener.")] = 10_000

    def codec_settings(self) -> CodecSettings:
        """The part of it that a codec announces and enforces."""
        return CodecSettings(
            max_concurrent_streams=self.max_concurrent_streams,
            stream_window=self.stream_window,
            connection_window=self.connection_window,
            max_header_list_size=self.max_header_list_size,
            max_header_fields=self.max_header_fields,
        )


class DrainSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The two-phase end."""

    propagation: Annotated[
        Duration, Meta(description="After deregistering, how long `sidecar drain` waits for callers to notice.")
    ] = 5.0  # Istio 5 s
    grace: Annotated[Duration, Meta(description="After SIGTERM, how long open RPCs may run on.")] = 30.0


class UpstreamSettings(Struct, frozen=True, kw_only=True):
    """One upstream as the proxy needs it: put together by `config` from its entry in the file."""

    service: str
    listen: str
    connection: ConnectionSettings = ConnectionSettings()
    limits: LimitSettings = LimitSettings()
