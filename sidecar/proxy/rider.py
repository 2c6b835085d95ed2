"""What rides on a connection: the exchanges of an app's, the attempts of an endpoint's, chained through themselves.

A set would cost each RPC two hashes and, where a thousand connections take turns, cache lines that nobody has.
"""

from __future__ import annotations

from sidecar.http2.interface import StreamSink


class Rider(StreamSink):
    """Hears one stream of a connection. It is on the chain of one connection at most: see `Connection.mount`."""

    __slots__ = ("newer", "older")

    newer: Rider | None  # the one that came next; both are set by `Connection` and by nobody else
    older: Rider | None
