"""The settings in force in a few lines, for someone who just changed the file."""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.config.model import Config, UpstreamEntry
from sidecar.config.quantity import build_duration
from sidecar.policy.service_config import parse_service_config


def summary(config: Config) -> Iterator[str]:
    """What this sidecar would do, a line each."""
    yield f"service   {_service(config)}"
    yield f"registry  {_registry(config)}"
    for entry in config.upstreams:
        where = f"on {entry.listen}" if entry.listen else "for routes and mirrors"
        yield f"upstream  {entry.known_as} {where}, {entry.balancer}, {_members(entry)}"
        if entry.service_config is not None:
            ignored = ", ".join(parse_service_config(entry.service_config).ignored)
            yield f"          with gRPC's service config; ignored of it: {ignored or 'nothing'}"
    if not config.upstreams:
        yield "upstream  none"
    yield f"admin     {config.admin.listen or 'off'}" + (
        f", probes on {config.admin.probe_listen}" if config.admin.probe_listen else ""
    )
    yield f"log       {config.log.level}, {config.log.format}, access {config.log.access}"
    yield f"codec     {config.http2.codec}"


def _service(config: Config) -> str:
    service = config.service
    if service is None:
        return "none; nothing is registered"
    check = service.check
    kind = next((kind for kind in ("grpc", "http") if getattr(check, kind) is not None), "tcp")
    return f"{service.name}, port {service.port}, {kind} check every {build_duration(check.interval)} by the {check.by}"


def _registry(config: Config) -> str:
    if config.registry.consul is not None:
        return f"consul at {config.registry.consul.address or 'the address in CONSUL_HTTP_ADDR, or 127.0.0.1:8500'}"
    return f"the directory {config.registry.file.path}" if config.registry.file is not None else "none"


def _members(entry: UpstreamEntry) -> str:
    if entry.endpoints is None:
        return "members from the registry"
    return f"{len(entry.endpoints)} static endpoint" + ("" if len(entry.endpoints) == 1 else "s")
