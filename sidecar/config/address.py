"""`host:port` and `unix:/path` as they stand in the file. Text only: nothing is looked up and nothing is opened."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

MAX_PORT = 65_535

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,5}", re.ASCII)


class HostPort(NamedTuple):
    """A TCP address; `host` without brackets. Port 0, where it is allowed, means any free port."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it, as far as the text can tell."""
        return self.host == "localhost" or _in(self.host, "is_loopback")

    @property
    def wildcard(self) -> bool:
        """Whether it takes the port on every address of the machine."""
        return _in(self.host, "is_unspecified")


class UnixPath(NamedTuple):
    """A Unix socket."""

    path: str


def parse_host_port(text: str, lowest_port: int = 1) -> HostPort:
    """Raises ValueError with a sentence."""
    host, colon, digits = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not _is_ip(host, 6):
            raise ValueError(f"'{host}' in brackets is not an IPv6 address")
    elif ":" in host or _is_ip(text, 6):
        raise ValueError(f"'{text}' is not host:port; write an IPv6 address in brackets, as in [::1]:15001")
    elif not colon or not host:
        raise ValueError(f"'{text}' is not host:port")
    elif not _HOST.fullmatch(host):
        raise ValueError(f"'{host}' is not the name or address of a machine")
    elif re.fullmatch(r"[0-9.]+", host) and not _is_ip(host, 4):
        raise ValueError(f"'{host}' is not an IPv4 address")
    if not _DIGITS.fullmatch(digits) or not lowest_port <= int(digits) <= MAX_PORT:
        raise ValueError(f"'{digits}' is not a port from {lowest_port} to {MAX_PORT}")
    return HostPort(host.lower(), int(digits))


def parse_listen(text: str) -> HostPort | UnixPath:
    """An address to listen on. Raises ValueError with a sentence."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/"):
            raise ValueError(f"'{text}' needs an absolute path, as in unix:/run/orders.sock")
        if len(path.encode()) > 107:  # unix(7): sun_path holds 108 octets with the final zero
            raise ValueError("the path of a Unix socket may have at most 107 octets")
        return UnixPath(path)
    return parse_host_port(text, lowest_port=0)


class Bindings:
    """The addresses that are spoken for, each by whom. Asking costs the same however many there are."""

    def __init__(self) -> None:
        self._taken: dict[int | str, dict[str, str]] = {}  # by port or path, then by host

    def take(self, address: HostPort | UnixPath, name: str) -> str | None:
        """Take `address` for `name`. Who has it, or a part of it, already; None if it was free."""
        if isinstance(address, UnixPath):
            holders = self._taken.setdefault(address.path, {})
            twin = holders.get("")
            holders.setdefault("", name)
            return twin
        if address.port == 0:
            return None
        holders = self._taken.setdefault(address.port, {})
        if address.wildcard:
            twin = next(iter(holders.values()), None)
        else:
            twin = holders.get(_plain(address.host)) or holders.get("*")
        holders.setdefault("*" if address.wildcard else _plain(address.host), name)
        return twin


def _plain(host: str) -> str:
    return "127.0.0.1" if host == "localhost" else host


def _is_ip(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text.partition("%")[0]).version == version
    except ValueError:
        return False


def _in(host: str, kind: str) -> bool:
    try:
        return bool(getattr(ipaddress.ip_address(host), kind))
    except ValueError:
        return False
