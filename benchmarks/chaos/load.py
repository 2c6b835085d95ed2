"""The caller: a generator that survives failures and records what became of every RPC.

`python -m benchmarks.chaos.load --target 127.0.0.1:P --rate 300 --start FILE --seconds 20 --out FILE`. RPC number n
departs n/rate seconds after the start, whatever became of the earlier ones, with a deadline and an id of its own. With
`--callers 32` in place of the rate, so many RPCs are out at any time: the next departs when one has ended. It is ready
when it says so, and starts at the monotonic instant that is then written to the file.
"""

from __future__ import annotations

import argparse
import gc
import select
import socket
import time
from collections import deque
from pathlib import Path
from urllib.parse import unquote

import hpack

from benchmarks.chaos.behaviour import METHOD
from benchmarks.chaos.recording import (
    CANCELLED,
    DEADLINE_EXCEEDED,
    INTERNAL,
    OK,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
    Rpc,
    save,
)
from benchmarks.wire import (
    ACK,
    DATA,
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
    SETTING_WINDOW,
    SETTINGS,
    Unexpected,
    frame,
    settings,
    window_update,
)

GRACE = 0.25  # seconds after its deadline at which the caller stops waiting for the proxy's word on it
IN_VAIN = "the caller waited in vain for the proxy to say that the deadline has passed"
BY_RESET = {7: UNAVAILABLE, 8: CANCELLED, 11: RESOURCE_EXHAUSTED}  # gRPC's mapping of HTTP/2 codes; others are INTERNAL
STEP = 0.02  # seconds: the longest sleep between two looks at what is past its deadline
UNKNOWN = 2
READY = "ready"


class Call:
    """One RPC that is out."""

    __slots__ = ("connection", "ended", "id", "planned_at", "stream")

    def __init__(self, number: int, planned_at: float, connection: Connection, stream: int) -> None:
        self.id = number
        self.planned_at = planned_at
        self.connection = connection
        self.stream = stream
        self.ended = False


class Caller:
    """The plan, the calls that are out, and the record."""

    def __init__(self, target: tuple[str, int], timeout: float, connections: int) -> None:
        self.target = target
        self.timeout = timeout
        self.records: list[Rpc] = []
        self.out: deque[Call] = deque()  # in the order of their deadlines
        self.connections = [Connection(self) for _ in range(connections)]

    def call(self, number: int, planned_at: float) -> None:
        """Depart; a connection that was lost is replaced first."""
        place = number % len(self.connections)
        if self.connections[place].lost:
            self.connections[place] = Connection(self)
        self.out.append(self.connections[place].call(number, planned_at))

    def end(self, call: Call, status: int, text: str) -> None:
        """Record the end of a call, once."""
        if not call.ended:
            call.ended = True
            self.records.append(Rpc(call.id, call.planned_at, time.monotonic() - call.planned_at, status, text))

    def give_up(self, now: float) -> None:
        """End what is past its deadline and its grace."""
        while self.out and (self.out[0].ended or now > self.out[0].planned_at + self.timeout + GRACE):
            call = self.out.popleft()
            if not call.ended:
                call.connection.cancel(call)
                self.end(call, DEADLINE_EXCEEDED, IN_VAIN)

    def read(self, patience: float) -> None:
        """Take what has come, or comes within so many seconds."""
        alive = {connection.socket.fileno(): connection for connection in self.connections if not connection.lost}
        readable, _, _ = select.select(list(alive), (), (), patience)
        for descriptor in readable:
            alive[descriptor].receive()
        self.give_up(time.monotonic())

    def read_until(self, instant: float) -> None:
        """Take what comes until then."""
        while (left := instant - time.monotonic()) > 0:
            self.read(min(left, STEP))

    def run_closed(self, first: int, callers: int, start_at: float, seconds: float) -> None:
        """As many calls as `callers` can make that wait for each answer, and the end of the last ones."""
        self.read_until(start_at)
        departed = 0
        while (now := time.monotonic()) < start_at + seconds:
            while departed - len(self.records) < callers:
                self.call(first + departed, now)
                departed += 1
            self.read(STEP)
        self.read_until(time.monotonic() + self.timeout + 2 * GRACE)

    def run(self, first: int, rate: float, start_at: float, seconds: float) -> None:
        """All calls, and the end of the last one."""
        for number in range(int(rate * seconds)):
            planned_at = start_at + number / rate
            self.read_until(planned_at)
            self.call(first + number, planned_at)
        self.read_until(time.monotonic() + self.timeout + 2 * GRACE)


class Connection:
    """One HTTP/2 connection to the proxy."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.calls: dict[int, Call] = {}
        self.fields: dict[int, dict[str, str]] = {}  # of answers whose head came
        self.decoder = hpack.Decoder()
        self.lost = False
        self.tail = b""
        self.next_stream = 1
        host, port = caller.target
        head = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", METHOD),
            (":authority", f"{host}:{port}"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("grpc-timeout", f"{int(caller.timeout * 1000)}m"),
        ]
        encoder = hpack.Encoder()
        self.first, self.others = encoder.encode(head), encoder.encode(head)  # literals, then their indices
        self.socket = socket.create_connection(caller.target, timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        greeting = settings({SETTING_WINDOW: LARGE_WINDOW}) + window_update(0, LARGE_WINDOW - DEFAULT_WINDOW)
        self.socket.sendall(PREFACE + greeting)

    def call(self, number: int, planned_at: float) -> Call:
        """Send one RPC whose message is its number."""
        stream = self.next_stream
        self.next_stream += 2
        call = self.calls[stream] = Call(number, planned_at, self, stream)
        body = b"%d" % number
        message = b"\0" + len(body).to_bytes(4, "big") + body
        head = frame(HEADERS, END_HEADERS, stream, self.first if stream == 1 else self.others)
        self.send(head + frame(DATA, END_STREAM, stream, message))
        return call

    def cancel(self, call: Call) -> None:
        """Take a call back."""
        if self.calls.pop(call.stream, None):
            self.send(frame(RST_STREAM, 0, call.stream, (8).to_bytes(4, "big")))

    def send(self, octets: bytes) -> None:
        if not self.lost:
            try:
                self.socket.sendall(octets)
            except OSError as error:
                self.lose(f"the proxy closed the caller's connection: {error}")

    def lose(self, why: str) -> None:
        """Every call on it fails."""
        self.lost = True
        self.socket.close()
        for call in self.calls.values():
            self.caller.end(call, UNAVAILABLE, why)
        self.calls.clear()

    def receive(self) -> None:
        """Take what has come."""
        try:
            data = self.socket.recv(262_144)
        except OSError as error:
            return self.lose(f"the proxy reset the caller's connection: {error}")
        if not data:
            return self.lose("the proxy closed the caller's connection")
        data = self.tail + data
        position = 0
        while len(data) - position >= HEAD_SIZE:
            high, low, kind, flags, stream = HEAD.unpack_from(data, position)
            start = position + HEAD_SIZE
            end = start + (high << 8 | low)
            if end > len(data):
                break
            position = end
            self.receive_frame(kind, flags, stream, data[start:end])
        self.tail = data[position:]
        return None

    def receive_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """One whole frame."""
        if kind == HEADERS:
            if not flags & END_HEADERS:
                raise Unexpected("a header block in several frames")
            fields = self.fields.setdefault(stream, {})
            fields.update(self.decoder.decode(payload))
        if stream and flags & END_STREAM and kind in (HEADERS, DATA):
            self.end(stream, self.fields.pop(stream, {}))
        elif kind == RST_STREAM:
            code = int.from_bytes(payload, "big")
            self.fields.pop(stream, None)
            if call := self.calls.pop(stream, None):
                self.caller.end(call, BY_RESET.get(code, INTERNAL), f"the proxy reset the stream with code {code}")
        elif kind == SETTINGS and not flags & ACK:
            self.send(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self.send(frame(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            raise Unexpected(f"the proxy sent the caller away: {payload!r}")

    def end(self, stream: int, fields: dict[str, str]) -> None:
        """The trailers have come."""
        if call := self.calls.pop(stream, None):
            status = int(fields.get("grpc-status", UNKNOWN))
            text = unquote(fields.get("grpc-message", "")) if status != OK else ""
            self.caller.end(call, status, text)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos.load", description=__doc__)
    parser.add_argument("--target", required=True)
    pace = parser.add_mutually_exclusive_group(required=True)
    pace.add_argument("--rate", type=float, help="RPCs per second")
    pace.add_argument("--callers", type=int, help="RPCs that are out at any time")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument(
        "--start", type=Path, required=True, help="file that will hold the instant of the first departure"
    )
    parser.add_argument("--first-id", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=1.0, help="deadline of each RPC, in seconds")
    parser.add_argument("--connections", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    host, _, port = options.target.rpartition(":")
    gc.disable()
    caller = Caller((host, int(port)), options.timeout, options.connections)
    print(READY, flush=True)
    while not options.start.exists():
        caller.read_until(time.monotonic() + STEP)
    start_at = float(options.start.read_text())
    if options.callers:
        caller.run_closed(options.first_id, options.callers, start_at, options.seconds)
    else:
        caller.run(options.first_id, options.rate, start_at, options.seconds)
    save(options.out, caller.records)


if __name__ == "__main__":
    main()
