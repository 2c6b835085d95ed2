"""The open-loop generator: RPCs leave when the plan says so, whatever became of the earlier ones.

`python -m benchmarks.openloop --target 127.0.0.1:P --rate 1000 --seconds 5`. Latency counts from the planned instant to
the last frame of the reply, so a stall shows in every RPC that it delayed (no coordinated omission). One thread, plain
sockets and select(2), whose timeout is in microseconds; asyncio's timers tick in milliseconds.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import select
import socket
import sys
import time

from benchmarks.stats import Histogram
from benchmarks.wire import (
    ACK,
    DATA,
    DEFAULT_TABLE_SIZE,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEAD,
    HEAD_SIZE,
    HEADERS,
    LARGE_WINDOW,
    PING,
    PREFACE,
    RST_STREAM,
    SETTING_TABLE_SIZE,
    SETTING_WINDOW,
    SETTINGS,
    RequestBlocks,
    Unexpected,
    frame,
    grpc_message,
    parse_settings,
    settings,
    window_update,
)

DRAIN = 5.0  # seconds for replies that are still out at the end
PR_SET_TIMERSLACK = 29
SPIN = 0.0002  # seconds before a planned instant in which the generator does not sleep: waking up takes that long


class Connection:
    """One connection: what is out on it, and when that was planned."""

    def __init__(self, target: tuple[str, int], message: bytes, reply: int) -> None:
        self.socket = socket.create_connection(target, timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.blocks = RequestBlocks(b"%s:%d" % (target[0].encode(), target[1]))
        self.message = message
        self.reply = reply
        self.out: dict[int, tuple[int, int]] = {}  # stream -> planned instant in ns, octets of body so far
        self.tail = b""
        self.next_stream = 1
        self.uncredited = 0
        self.socket.sendall(
            PREFACE + settings({SETTING_WINDOW: LARGE_WINDOW}) + window_update(0, LARGE_WINDOW - DEFAULT_WINDOW)
        )

    def call(self, planned: int) -> None:
        """Send one RPC: HEADERS and DATA in one write."""
        stream = self.next_stream
        block = self.blocks.first if stream == 1 else self.blocks.others
        self.next_stream += 2
        self.out[stream] = (planned, 0)
        self.socket.sendall(frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, self.message))

    def receive(self, latencies: list[int]) -> None:
        """Take what has come; completed RPCs add their latency, as of the moment of reading."""
        data = self.socket.recv(262_144)
        now = time.monotonic_ns()
        if not data:
            raise Unexpected(f"the connection was closed with {len(self.out)} RPCs out")
        if self.tail:
            data = self.tail + data
        position = 0
        while len(data) - position >= HEAD_SIZE:
            high, low, kind, flags, stream = HEAD.unpack_from(data, position)
            start = position + HEAD_SIZE
            end = start + (high << 8 | low)
            if end > len(data):
                break
            position = end
            if kind == DATA:
                planned, octets = self.out[stream]
                self.out[stream] = (planned, octets + end - start)
                self.uncredited += end - start
                if flags & END_STREAM:
                    raise Unexpected("a reply ended without trailers")
            elif kind == HEADERS and flags & END_STREAM:
                planned, octets = self.out.pop(stream)
                if octets != self.reply:
                    raise Unexpected(f"a reply ended after {octets} of {self.reply} octets: {data[start:end]!r}")
                latencies.append(now - planned)
            elif kind != HEADERS:
                self.control(kind, flags, data[start:end])
        self.tail = data[position:]
        if self.uncredited > LARGE_WINDOW // 2:
            self.socket.sendall(window_update(0, self.uncredited))
            self.uncredited = 0

    def control(self, kind: int, flags: int, payload: bytes) -> None:
        """What concerns the connection, or ends an RPC before its time."""
        if kind == SETTINGS and not flags & ACK:
            if parse_settings(payload).get(SETTING_TABLE_SIZE, DEFAULT_TABLE_SIZE) < DEFAULT_TABLE_SIZE:
                raise Unexpected("the subject's header table is too small for this generator")
            self.socket.sendall(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self.socket.sendall(frame(PING, ACK, 0, payload))
        elif kind in (RST_STREAM, GOAWAY):
            raise Unexpected(f"a frame of type {kind} with {payload!r} and {len(self.out)} RPCs out")


class OpenLoop:
    """The plan: call number n leaves n/rate seconds after the start, on the connections in turn."""

    def __init__(self, connections: list[Connection], rate: float) -> None:
        self.connections = connections
        self.by_descriptor = {connection.socket.fileno(): connection for connection in connections}
        self.interval = 1e9 / rate
        self.latencies: list[int] = []
        self.lateness: list[int] = []  # how long after its plan a call left: the generator's own fault

    def run(self, count: int) -> None:
        """Make `count` calls and wait for the last reply."""
        began = time.monotonic_ns() + 1_000_000
        for number in range(count):
            planned = began + int(number * self.interval)
            self.receive_until(planned)
            self.connections[number % len(self.connections)].call(planned)
            self.lateness.append(time.monotonic_ns() - planned)
        deadline = time.monotonic_ns() + int(DRAIN * 1e9)
        while any(connection.out for connection in self.connections):
            if time.monotonic_ns() > deadline:
                left = sum(len(connection.out) for connection in self.connections)
                raise Unexpected(f"{left} of {count} replies did not come within {DRAIN:.0f} s of the last call")
            self.receive_until(time.monotonic_ns() + 1_000_000)

    def receive_until(self, instant: int) -> None:
        """Read replies until then."""
        descriptors = list(self.by_descriptor)
        while (left := (instant - time.monotonic_ns()) / 1e9) > 0:
            readable, _, _ = select.select(descriptors, (), (), max(0.0, left - SPIN))
            for descriptor in readable:
                self.by_descriptor[descriptor].receive(self.latencies)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.openloop", description=__doc__)
    parser.add_argument("--target", required=True)
    parser.add_argument("--rate", type=float, required=True, help="RPCs per second")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warm-up", type=float, default=1.0, help="seconds at the same rate that do not count")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--size", type=int, default=71, help="octets of a request")
    parser.add_argument("--reply", type=int, default=76, help="octets of a reply")
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)  # 50 us by default
    host, _, port = options.target.rpartition(":")
    message = grpc_message(options.size)
    connections = [Connection((host, int(port)), message, options.reply) for _ in range(options.connections)]
    gc.disable()
    try:
        OpenLoop(connections, options.rate).run(int(options.rate * options.warm_up))
        loop = OpenLoop(connections, options.rate)
        loop.run(int(options.rate * options.seconds))
    except Unexpected as error:
        sys.exit(str(error))
    latency, lateness = Histogram(), Histogram()
    latency.record(loop.latencies)
    lateness.record(loop.lateness)
    print(json.dumps({"latency": latency.counts, "lateness": lateness.counts}))


if __name__ == "__main__":
    main()
