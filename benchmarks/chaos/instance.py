"""One instance of the service under test: a real grpcio server whose failures are made on purpose.

`python -m benchmarks.chaos.instance --address 127.0.3.1:50051 --control c.sock --journal j.txt`. With `--next` it calls
the next service of a call tree before it answers, as an app does that knows nothing of proxies.
"""

from __future__ import annotations

import argparse
import asyncio
import signal

import grpc
from grpc import aio

from benchmarks.chaos.behaviour import HANG, METHOD, TRAILERS, TRAILERS_ONLY, Behaviour, Journal, obey

PREVIOUS_ATTEMPTS = "grpc-previous-rpc-attempts"
PUSHBACK = "grpc-retry-pushback-ms"
SAID = "told to fail"  # the message of its failures


class Service(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Answers with the request, unless told otherwise."""

    def __init__(self, behaviour: Behaviour, journal: Journal, following: str | None, cooperative: bool) -> None:
        self.cooperative = cooperative
        self.behaviour = behaviour
        self.journal = journal
        self.channel = aio.insecure_channel(following) if following else None

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return grpc.unary_unary_rpc_method_handler(self.do) if details.method == METHOD else None

    async def do(self, request: bytes, context: aio.ServicerContext) -> bytes:
        self.journal.write(request)
        if self.behaviour.fault == HANG:
            await asyncio.Event().wait()
        if self.behaviour.fault == TRAILERS:
            await context.send_initial_metadata(())
        if self.behaviour.fault in (TRAILERS, TRAILERS_ONLY):
            await context.abort(grpc.StatusCode.UNAVAILABLE, SAID)
        previous = dict(context.invocation_metadata() or ()).get(PREVIOUS_ATTEMPTS, 0)
        await asyncio.sleep(self.behaviour.seconds(int(request) + int(previous)))
        return request if self.channel is None else await self.call_next(request, context)

    async def call_next(self, request: bytes, context: aio.ServicerContext) -> bytes:
        """The next hop's answer, or its failure as ours."""
        assert self.channel is not None
        try:
            return bytes(await self.channel.unary_unary(METHOD)(request, timeout=context.time_remaining()))
        except aio.AioRpcError as error:
            await context.abort(error.code(), error.details() or "", self.passed_on(error))
            raise AssertionError from error

    def passed_on(self, error: aio.AioRpcError) -> tuple[tuple[str, str | bytes], ...]:
        """Of the failed call's trailers, what the caller is told too: that no more retries are wanted."""
        if not self.cooperative:
            return ()
        return tuple((key, value) for key, value in error.trailing_metadata() if key == PUSHBACK)


async def serve(options: argparse.Namespace) -> None:
    """Until SIGTERM, which is answered with a GOAWAY and `grace` seconds for what runs."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings: list[tuple[str, int]] = [("grpc.so_reuseport", 0), ("grpc.max_concurrent_streams", 10_000)]
    if options.max_age:
        settings += [("grpc.max_connection_age_ms", options.max_age), ("grpc.max_connection_age_grace_ms", 10_000)]
    server = aio.server(options=settings)
    behaviour = Behaviour(work=options.work, slow_every=options.slow_every, slow=options.slow)
    service = Service(behaviour, Journal(options.journal), options.next, options.passes_pushback_on)
    server.add_generic_rpc_handlers((service,))
    server.add_insecure_port(options.address)
    control = await obey(options.control, behaviour)
    await server.start()
    await stop.wait()
    control.close()
    await server.stop(options.grace)


def parser() -> argparse.ArgumentParser:
    """What every kind of instance is told."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--address", required=True, help="host:port")
    arguments.add_argument("--control", required=True, help="path of the Unix socket that takes commands")
    arguments.add_argument("--journal", required=True, help="path of the journal")
    arguments.add_argument("--work", type=float, default=0.002, help="seconds for each RPC")
    arguments.add_argument("--slow-every", type=int, default=0, help="every Nth RPC is slow")
    arguments.add_argument("--slow", type=float, default=0.5, help="seconds for a slow one")
    arguments.add_argument("--max-age", type=int, default=0, help="milliseconds after which a connection is told to go")
    arguments.add_argument("--next", help="host:port of the next service of a call tree")
    arguments.add_argument(
        "--passes-pushback-on", action="store_true", help=f"it tells its caller {PUSHBACK} of --next"
    )
    arguments.add_argument("--grace", type=float, default=2.0, help="seconds for what runs at SIGTERM")
    return arguments


if __name__ == "__main__":
    asyncio.run(serve(parser().parse_args()))
