"""The service of the demo: a gRPC greeter with grpc.health.v1, an app that knows nothing of sidecars.

`python -m sidecar.demo.greeter --port N --name greeter-1` serves it. Messages are plain text, so that no generated code
is needed. SIGTERM ends it in order: what runs is finished first.
"""

from __future__ import annotations

import argparse
import random
import signal
import threading
import time
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

SERVICE = "demo.Greeter"
HELLO = f"/{SERVICE}/Hello"
WORKERS = 64  # RPCs served at a time
GRACE = 10.0  # seconds for what still runs at SIGTERM
SPREAD = 0.5  # work takes between half and one and a half times the mean


def build_reply(name: str, request: bytes) -> bytes:
    """What the instance `name` says."""
    return name.encode() + b" greets " + request


def parse_reply(reply: bytes) -> str:
    """Who said it."""
    return reply.partition(b" ")[0].decode("ascii", "replace")


def build_server(name: str, port: int, work: float, host: str = "127.0.0.1") -> grpc.Server:
    """The server, not yet started; each RPC takes about `work` seconds, in which nothing is computed."""

    def hello(request: bytes, context: grpc.ServicerContext) -> bytes:
        time.sleep(work * random.uniform(1 - SPREAD, 1 + SPREAD))
        return build_reply(name, request)

    # Without reuseport a second greeter on the same port is an error and not a silent sharing of RPCs.
    server = grpc.server(futures.ThreadPoolExecutor(WORKERS), options=[("grpc.so_reuseport", 0)])
    methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {"Hello": grpc.unary_unary_rpc_method_handler(hello)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    status = health.HealthServicer()
    status.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    server.add_insecure_port(f"{host}:{port}")
    return server


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description="the greeter of `sidecar demo`")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 where others call it, as in a pod")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", default="greeter")
    parser.add_argument("--work", type=float, default=0.02, metavar="SECONDS", help="mean time that an RPC takes")
    args = parser.parse_args()
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    server = build_server(args.name, args.port, args.work, args.host)
    server.start()
    print(f"{args.name} serves {SERVICE} on {args.host}:{args.port}", flush=True)
    ending.wait()
    server.stop(GRACE).wait()


if __name__ == "__main__":
    main()
