"""A real gRPC service for tests that need a server or a client and no protobuf: octets in, octets out, on grpcio.

`python -m tests.services NAME PORT [HOST]` serves it as an app would: with grpc.health.v1, ending in order at SIGTERM.
Every answer names the instance in its trailing metadata.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any, NamedTuple, Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tests.processes import PATIENCE, Process

SERVICE = "probe.Probe"
ECHO = f"/{SERVICE}/Echo"  # unary: the request comes back
DOWNLOAD = f"/{SERVICE}/Download"  # server streaming: `count,size,interval` asks for so many messages
UPLOAD = f"/{SERVICE}/Upload"  # client streaming: answers the number of octets
TALK = f"/{SERVICE}/Talk"  # bidirectional: each message comes back
INSTANCE = "instance"  # trailing metadata: who answered
OPTIONS = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def download_request(count: int, size: int, interval: float = 0.0) -> bytes:
    """What DOWNLOAD is asked: `count` messages of `size` octets with `interval` seconds between two."""
    return f"{count},{size},{interval}".encode()


class ProbeService:
    """The methods, on grpcio's synchronous server."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ending = threading.Event()

    def _sign(self, context: Any) -> None:
        context.set_trailing_metadata(((INSTANCE, self.name),))

    def echo(self, request: bytes, context: Any) -> bytes:
        self._sign(context)
        return request

    def download(self, request: bytes, context: Any) -> Iterator[bytes]:
        self._sign(context)
        count, size, interval = request.decode().split(",")
        payload = bytes(int(size))
        for number in range(int(count)):
            if number and float(interval):
                time.sleep(float(interval))
            yield payload

    def upload(self, requests: Iterator[bytes], context: Any) -> bytes:
        self._sign(context)
        return str(sum(map(len, requests))).encode()

    def talk(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        self._sign(context)
        yield from requests

    def handlers(self) -> Any:
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Echo": grpc.unary_unary_rpc_method_handler(self.echo),
                "Download": grpc.unary_stream_rpc_method_handler(self.download),
                "Upload": grpc.stream_unary_rpc_method_handler(self.upload),
                "Talk": grpc.stream_stream_rpc_method_handler(self.talk),
            },
        )


class ProbeServer:
    """The service in this process, on a port of its own, for the length of a `with` block."""

    def __init__(self, name: str = "probe", port: int = 0, workers: int = 64, host: str = "127.0.0.1") -> None:
        self.server = grpc.server(futures.ThreadPoolExecutor(workers), options=OPTIONS)
        self.server.add_generic_rpc_handlers((ProbeService(name).handlers(),))
        self.health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        self.health.set("", health_pb2.HealthCheckResponse.SERVING)
        self.port = self.server.add_insecure_port(f"{host}:{port}")

    def __enter__(self) -> Self:
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop(0).wait(PATIENCE)


class AppProcess(Process):
    """The service in a process of its own, as the co-located app of a sidecar."""

    def __init__(self, name: str, port: int, directory: Path) -> None:
        super().__init__(name, [sys.executable, "-m", "tests.services", name, str(port)], directory)
        self.port = port

    def wait_serving(self) -> Self:
        self.wait_for_line("serving")
        return self


class Reply(NamedTuple):
    """What became of one RPC."""

    status: str
    details: str
    message: bytes | None
    instance: str | None


def connect(port: int) -> grpc.Channel:
    """A channel of its own to a loopback port, quick to try again."""
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 200),
        ("grpc.enable_retries", 0),  # what fails must be seen to fail
    ]
    return grpc.insecure_channel(f"127.0.0.1:{port}", options=options)


def echo(channel: grpc.Channel, request: bytes = b"hello", timeout: float | None = PATIENCE) -> Reply:
    """One unary RPC, and everything about its end."""
    octets: Any = channel
    try:
        message, rpc = octets.unary_unary(ECHO).with_call(request, timeout=timeout)
    except grpc.RpcError as error:
        failure: Any = error
        return Reply(failure.code().name, failure.details(), None, _instance(failure))
    return Reply("OK", "", message, _instance(rpc))


def _instance(rpc: Any) -> str | None:
    return next((str(value) for key, value in rpc.trailing_metadata() or () if key == INSTANCE), None)


def main(name: str, port: str, host: str = "127.0.0.1") -> None:
    ended = threading.Event()
    stop: Callable[..., None] = lambda *_: ended.set()  # noqa: E731
    signal.signal(signal.SIGTERM, stop)
    server = ProbeServer(name, int(port), host=host)
    with server:
        print(f"{name} serving on {server.port}", flush=True)
        ended.wait()
        server.server.stop(PATIENCE).wait()


if __name__ == "__main__":
    main(*sys.argv[1:4])
