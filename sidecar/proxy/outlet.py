"""Where the octets of a connection leave it. One write hands over all that a turn has to say to one peer.

There are two: through the transport, which runs anywhere, and straight to the socket (`direct_outlet`), compiled. The
transport is asked for everything else: reading, closing, and what the socket does not take at once.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from importlib import import_module


class Outlet:
    """Writes through the transport."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def write(self, data: bytes) -> None:
        """Send `data`, or keep it until the peer takes it. Octets leave in the order of the calls."""
        self.transport.write(data)

    def shut(self) -> None:
        """Send nothing more: the socket's number may be another connection's soon."""


def open_outlet(transport: asyncio.Transport) -> Outlet:
    """The quickest way out through `transport` that there is here. TLS has to pass through its transport."""
    direct = _direct_outlet()
    socket = transport.get_extra_info("socket")
    if direct is None or socket is None or transport.get_extra_info("sslcontext") is not None:
        return Outlet(transport)
    return direct(transport, socket.fileno())


@functools.cache
def _direct_outlet() -> Callable[[asyncio.Transport, int], Outlet] | None:
    """The compiled class; None where it was not built."""
    try:
        built: Callable[[asyncio.Transport, int], Outlet] = import_module("sidecar.proxy.direct_outlet").DirectOutlet
    except ImportError:
        return None
    return built
