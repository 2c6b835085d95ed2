"""Where the octets of a connection leave it. One write hands over all that a turn has to say to one peer.

A `Channel` is its own outlet: it writes to its socket. Any other transport is written through.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sidecar.http2.interface import Codec


class Outlet:
    """Takes octets for the peer."""

    def write(self, data: bytes) -> None:
        """Send `data`, or keep it until the peer takes it. Octets leave in the order of the calls."""
        raise NotImplementedError

    def write_queued(self, codec: Codec) -> int:
        """Send all that `codec` has queued, as `write` would. How many octets that were."""
        data = codec.data_to_send()
        if data:
            self.write(data)
        return len(data)


class TransportOutlet(Outlet):
    """Writes through the transport."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def write(self, data: bytes) -> None:
        self.transport.write(data)


def open_outlet(transport: asyncio.Transport) -> Outlet:
    """The way out through `transport`."""
    return transport if isinstance(transport, Outlet) else TransportOutlet(transport)
