"""Who we are in the registry: the instance's address and its stable id, from the settings and the environment."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping

from sidecar.control.registry import Instance
from sidecar.control.settings import ServiceSettings


def instance_of(settings: ServiceSettings, registry_host: str, environment: Mapping[str, str]) -> Instance:
    """The registration to keep. `registry_host` is where the registry is; empty when it is on this machine.

    The id survives a restart, so that a restarted instance replaces its own entry.
    """
    address = settings.address or environment.get("POD_IP") or outgoing_address(registry_host)
    place = address or socket.gethostname()
    parts = [settings.name, place, str(settings.port)]
    if environment.get("POD_UID"):
        parts.append(environment["POD_UID"])
    return Instance(id=settings.id or "-".join(parts), address=address, settings=settings)


def outgoing_address(registry_host: str) -> str:
    """The address from which this machine reaches the registry; no packet is sent.

    Empty when the registry is on this machine, or cannot be found: the agent then knows the machine's address better
    than we do, and an entry without an address is reached at the agent's.
    """
    if not registry_host:
        return ""
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(registry_host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(target)
            found: str = probe.getsockname()[0]
    except OSError:
        return ""
    return "" if ipaddress.ip_address(found.partition("%")[0]).is_loopback else found
