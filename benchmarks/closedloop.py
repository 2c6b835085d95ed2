"""A small closed-loop generator for the gate and for connections that are to stand idle: no program to install.

For saturation there is h2load, which is faster; here it only matters that every RPC is made and is whole.
"""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.openloop import Connection
from benchmarks.wire import Unexpected, grpc_message

SILENCE = 30.0  # seconds without any reply


@contextmanager
def connected(target: tuple[str, int], count: int, *, size: int = 71, reply: int = 76) -> Iterator[list[Connection]]:
    """`count` connections, each after one good RPC, so that whatever a subject allocates on first use is allocated."""
    connections = [Connection(target, grpc_message(size), reply) for _ in range(count)]
    try:
        for connection in connections:
            connection.call(0)
            latencies: list[int] = []
            while not latencies:
                connection.receive(latencies)
        yield connections
    finally:
        for connection in connections:
            connection.socket.close()


def run(connections: list[Connection], rpcs: int, in_flight: int) -> None:
    """Make `rpcs` RPCs, `in_flight` at a time on each connection. Raises Unexpected if one is not whole."""
    by_descriptor = {connection.socket.fileno(): connection for connection in connections}
    shares = {descriptor: rpcs // len(connections) for descriptor in by_descriptor}
    for descriptor, connection in by_descriptor.items():
        for _ in range(min(in_flight, shares[descriptor])):
            shares[descriptor] -= 1
            connection.call(0)
    while by_descriptor:
        readable, _, _ = select.select(list(by_descriptor), (), (), SILENCE)
        if not readable:
            raise Unexpected(f"no reply for {SILENCE:.0f} s")
        for descriptor in readable:
            connection = by_descriptor[descriptor]
            done: list[int] = []
            connection.receive(done)
            for _ in range(min(len(done), shares[descriptor])):
                shares[descriptor] -= 1
                connection.call(0)
            if not connection.out and not shares[descriptor]:
                del by_descriptor[descriptor]
