"""Real gRPC on both ends: a grpcio server, a grpcio client that counts statuses, and one that is a load.

`python -m benchmarks.greeter serve --port P`, `... verify --target H:P`, `... load --target H:P --rpcs N`.
Messages are plain octets: no generated code is needed, and none is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator

import grpc
from grpc import aio

from benchmarks.stats import percentile

SERVICE = "helloworld.Greeter"
UNARY = f"/{SERVICE}/SayHello"
STREAM = f"/{SERVICE}/SayHellos"
COLLECT = f"/{SERVICE}/CollectHellos"
CHAT = f"/{SERVICE}/Chat"
REFUSE = f"/{SERVICE}/Refuse"
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
STREAMED = 50  # messages


class Greeter(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Echo in the four RPC kinds, and one method that refuses with a status of its own."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        match details.method:
            case "/helloworld.Greeter/SayHello":
                return grpc.unary_unary_rpc_method_handler(self.say_hello)
            case "/helloworld.Greeter/SayHellos":
                return grpc.unary_stream_rpc_method_handler(self.say_hellos)
            case "/helloworld.Greeter/CollectHellos":
                return grpc.stream_unary_rpc_method_handler(self.collect_hellos)
            case "/helloworld.Greeter/Chat":
                return grpc.stream_stream_rpc_method_handler(self.chat)
            case "/helloworld.Greeter/Refuse":
                return grpc.unary_unary_rpc_method_handler(self.refuse)
        return None

    async def say_hello(self, request: bytes, context: aio.ServicerContext) -> bytes:
        return request

    async def say_hellos(self, request: bytes, context: aio.ServicerContext) -> AsyncIterator[bytes]:
        for _ in range(STREAMED):
            yield request

    async def collect_hellos(self, requests: AsyncIterator[bytes], context: aio.ServicerContext) -> bytes:
        return b"".join([request async for request in requests])

    async def chat(self, requests: AsyncIterator[bytes], context: aio.ServicerContext) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    async def refuse(self, request: bytes, context: aio.ServicerContext) -> bytes:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "refused, as asked")
        raise AssertionError


async def serve(port: int) -> None:
    """Until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = aio.server(options=[*UNLIMITED, ("grpc.max_concurrent_streams", 10_000)])
    server.add_generic_rpc_handlers((Greeter(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await stop.wait()
    await server.stop(0)


async def verify_unary(target: str, calls: int, reply: int) -> Counter[str]:
    """Statuses of plain unary calls against the harness's own backend, which answers `reply` octets to anything."""
    statuses: Counter[str] = Counter()
    async with aio.insecure_channel(target, options=UNLIMITED) as channel:
        hello = channel.unary_unary(UNARY)

        async def one() -> None:
            try:
                answer = await hello(b"world", timeout=20)
            except aio.AioRpcError as error:
                statuses[f"{error.code().name}: {error.details()}"] += 1
            else:
                statuses["OK" if len(answer) == reply else f"a reply of {len(answer)} octets"] += 1

        for _ in range(0, calls, 20):
            await asyncio.gather(*(one() for _ in range(20)))
    return statuses


async def verify(target: str) -> list[str]:
    """The four kinds and an error, each against the grpcio server; returns what was wrong."""
    wrong: list[str] = []
    async with aio.insecure_channel(target, options=UNLIMITED) as channel:
        for size in (0, 66, 16_379, 65_531, 1_048_571):
            message = bytes(size)
            if await channel.unary_unary(UNARY)(message, timeout=20) != message:
                wrong.append(f"a unary echo of {size} octets came back different")
        message = bytes(range(256)) * 40
        streamed = [part async for part in channel.unary_stream(STREAM)(message, timeout=20)]
        if streamed != [message] * STREAMED:
            wrong.append(f"server streaming: {len(streamed)} of {STREAMED} messages")
        if await channel.stream_unary(COLLECT)(_some(message), timeout=20) != message * STREAMED:
            wrong.append("client streaming: the messages came back different")
        chat = channel.stream_stream(CHAT)(timeout=20)
        for number in range(STREAMED):
            await chat.write(message[number:])
            if await chat.read() != message[number:]:
                wrong.append(f"both ways: message {number} came back different")
        await chat.done_writing()
        if await chat.code() is not grpc.StatusCode.OK:
            wrong.append(f"both ways: ended with {await chat.code()}")
        try:
            await channel.unary_unary(REFUSE)(b"", timeout=20)
            wrong.append("a refusal arrived as OK")
        except aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION or error.details() != "refused, as asked":
                wrong.append(f"a refusal arrived as {error.code()}: {error.details()}")
    return wrong


async def _some(message: bytes) -> AsyncIterator[bytes]:
    for _ in range(STREAMED):
        yield message


async def load(target: str, rpcs: int, in_flight: int, size: int) -> dict[str, float]:
    """A closed loop of unary echoes; raises on the first status that is not OK."""
    took: list[float] = []
    message = bytes(size)
    async with aio.insecure_channel(target, options=UNLIMITED) as channel:
        hello = channel.unary_unary(UNARY)
        await hello(message, wait_for_ready=True, timeout=20)

        async def caller(count: int) -> None:
            for _ in range(count):
                began = time.perf_counter()
                answer = await hello(message, timeout=60)
                took.append(time.perf_counter() - began)
                if len(answer) != size:
                    raise SystemExit(f"a reply of {len(answer)} octets instead of {size}")

        began = time.perf_counter()
        await asyncio.gather(*(caller(rpcs // in_flight) for _ in range(in_flight)))
        seconds = time.perf_counter() - began
    took.sort()
    return {
        "rpcs": len(took),
        "seconds": seconds,
        "p50": percentile(took, 0.5) * 1e6,
        "p99": percentile(took, 0.99) * 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.greeter", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve").add_argument("--port", type=int, required=True)
    for name in ("verify", "verify-unary", "load"):
        command = commands.add_parser(name)
        command.add_argument("--target", required=True)
        command.add_argument("--rpcs", type=int, default=200)
        command.add_argument("--in-flight", type=int, default=1)
        command.add_argument("--size", type=int, default=66)
    options = parser.parse_args()
    if options.command == "serve":
        asyncio.run(serve(options.port))
    elif options.command == "load":
        print(json.dumps(asyncio.run(load(options.target, options.rpcs, options.in_flight, options.size))))
    elif options.command == "verify-unary":
        statuses = asyncio.run(verify_unary(options.target, options.rpcs, options.size))
        if set(statuses) != {"OK"}:
            sys.exit(f"statuses: {dict(statuses)}")
    else:
        try:
            wrong = asyncio.run(verify(options.target))
        except aio.AioRpcError as error:
            wrong = [f"{error.code().name}: {error.details()}"]
        if wrong:
            sys.exit("; ".join(wrong))


if __name__ == "__main__":
    main()
