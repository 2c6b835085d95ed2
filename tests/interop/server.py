"""The interoperability service, written once, served by grpcio or by grpclib: `python -m tests.interop.server STACK`.

The process prints `listening on PORT` once it serves, and ends at SIGTERM.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, Protocol

import grpc
import grpclib
import grpclib.const
import grpclib.server

from tests.interop import messages as m

Metadata = Sequence[tuple[str, str | bytes]]
END: Any = vars(grpc.aio)["EOF"]  # absent from the published types
ECHO_INITIAL = "x-grpc-test-echo-initial"
ECHO_TRAILING = "x-grpc-test-echo-trailing-bin"


class Aborted(Exception):
    """The service ends the RPC with a status of its own."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


class Conversation(Protocol):
    """One RPC as the service sees it, on either stack."""

    def metadata(self) -> dict[str, str | bytes]: ...
    async def send_initial_metadata(self, metadata: Metadata) -> None: ...
    def set_trailing_metadata(self, metadata: Metadata) -> None: ...
    def compress(self) -> None: ...
    async def receive(self) -> Any: ...
    async def send(self, message: Any) -> None: ...


# -- the service -------------------------------------------------------------------------------------------------


async def _echo_metadata(rpc: Conversation) -> None:
    sent = rpc.metadata()
    if ECHO_TRAILING in sent:
        rpc.set_trailing_metadata([(ECHO_TRAILING, sent[ECHO_TRAILING])])
    if ECHO_INITIAL in sent:
        await rpc.send_initial_metadata([(ECHO_INITIAL, sent[ECHO_INITIAL])])


def _check_status(request: Any) -> None:
    if request.response_status.code:
        raise Aborted(request.response_status.code, request.response_status.message)


async def empty_call(rpc: Conversation) -> None:
    await _echo_metadata(rpc)
    await rpc.receive()
    await rpc.send(m.Empty())


async def unary_call(rpc: Conversation) -> None:
    request = await rpc.receive()
    await _echo_metadata(rpc)
    _check_status(request)
    if request.response_compressed.value:
        rpc.compress()
    await rpc.send(m.SimpleResponse(payload=m.Payload(body=bytes(request.response_size))))


async def streaming_input_call(rpc: Conversation) -> None:
    total = 0
    while (request := await rpc.receive()) is not None:
        total += len(request.payload.body)
    await rpc.send(m.StreamingInputCallResponse(aggregated_payload_size=total))


async def _send_all(rpc: Conversation, request: Any) -> None:
    for parameters in request.response_parameters:
        await asyncio.sleep(parameters.interval_us / 1e6)
        await rpc.send(m.StreamingOutputCallResponse(payload=m.Payload(body=bytes(parameters.size))))


async def streaming_output_call(rpc: Conversation) -> None:
    await _send_all(rpc, await rpc.receive())


async def full_duplex_call(rpc: Conversation) -> None:
    await _echo_metadata(rpc)
    while (request := await rpc.receive()) is not None:
        _check_status(request)
        await _send_all(rpc, request)


class Method(NamedTuple):
    """A method of the service: its handler, its types, and which sides stream."""

    handler: Callable[[Conversation], Awaitable[None]]
    request: Any
    response: Any
    request_streams: bool = False
    response_streams: bool = False


METHODS = {
    "EmptyCall": Method(empty_call, m.Empty, m.Empty),
    "UnaryCall": Method(unary_call, m.SimpleRequest, m.SimpleResponse),
    "StreamingInputCall": Method(
        streaming_input_call, m.StreamingInputCallRequest, m.StreamingInputCallResponse, request_streams=True
    ),
    "StreamingOutputCall": Method(
        streaming_output_call, m.StreamingOutputCallRequest, m.StreamingOutputCallResponse, response_streams=True
    ),
    "FullDuplexCall": Method(
        full_duplex_call, m.StreamingOutputCallRequest, m.StreamingOutputCallResponse, True, response_streams=True
    ),
}


# -- grpcio ------------------------------------------------------------------------------------------------------


class GrpcioConversation:
    """One RPC on grpcio's asyncio server. A unary request is given, a unary response is kept for the return."""

    def __init__(self, context: Any, request: Any = None) -> None:
        self._context = context
        self._request = request
        self._unary = request is not None
        self.answer: Any = None
        self.response_streams = False

    def metadata(self) -> dict[str, str | bytes]:
        return dict(self._context.invocation_metadata())

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        await self._context.send_initial_metadata(tuple(metadata))

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        self._context.set_trailing_metadata(tuple(metadata))

    def compress(self) -> None:
        self._context.set_compression(grpc.Compression.Gzip)

    async def receive(self) -> Any:
        if self._unary:
            request, self._request = self._request, None
            return request
        message = await self._context.read()
        return None if message is END else message

    async def send(self, message: Any) -> None:
        if self.response_streams:
            await self._context.write(message)
        else:
            self.answer = message


def _grpcio_handler(method: Method) -> grpc.RpcMethodHandler[Any, Any]:
    async def serve(request: Any, context: Any) -> Any:
        rpc = GrpcioConversation(context, None if method.request_streams else request)
        rpc.response_streams = method.response_streams
        try:
            await method.handler(rpc)
        except Aborted as abort:
            code = next(code for code in grpc.StatusCode if code.value[0] == abort.code)
            context.set_code(code)
            context.set_details(abort.message)
        return rpc.answer

    async def serve_stream(request: Any, context: Any) -> None:
        await serve(request, context)

    kind = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[method.request_streams, method.response_streams]
    make: Any = kind
    handler: grpc.RpcMethodHandler[Any, Any] = make(
        serve_stream if method.response_streams else serve,
        request_deserializer=method.request.FromString,
        response_serializer=method.response.SerializeToString,
    )
    return handler


async def serve_grpcio() -> tuple[int, Callable[[], Awaitable[Any]]]:
    """Serve with grpcio on a free port. Returns the port, and how to end."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handlers = {name: _grpcio_handler(method) for name, method in METHODS.items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(m.SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return port, lambda: server.stop(1)


# -- grpclib -----------------------------------------------------------------------------------------------------


class GrpclibConversation:
    """One RPC on grpclib."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.trailing: Metadata = ()

    def metadata(self) -> dict[str, str | bytes]:
        return dict(self._stream.metadata)

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        await self._stream.send_initial_metadata(metadata=list(metadata))

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        self.trailing = metadata

    def compress(self) -> None:
        raise Aborted(grpc.StatusCode.UNIMPLEMENTED.value[0], "grpclib does not compress")

    async def receive(self) -> Any:
        return await self._stream.recv_message()

    async def send(self, message: Any) -> None:
        await self._stream.send_message(message)


class GrpclibService:
    """The service in the shape that grpclib asks for."""

    def __mapping__(self) -> dict[str, grpclib.const.Handler]:
        return {f"/{m.SERVICE}/{name}": self._handler(method) for name, method in METHODS.items()}

    @staticmethod
    def _handler(method: Method) -> grpclib.const.Handler:
        async def serve(stream: Any) -> None:
            rpc = GrpclibConversation(stream)
            status, message = grpclib.Status.OK, None
            try:
                await method.handler(rpc)
            except Aborted as abort:
                status, message = grpclib.Status(abort.code), abort.message
            await stream.send_trailing_metadata(status=status, status_message=message, metadata=list(rpc.trailing))

        cardinality = {
            (False, False): grpclib.const.Cardinality.UNARY_UNARY,
            (True, False): grpclib.const.Cardinality.STREAM_UNARY,
            (False, True): grpclib.const.Cardinality.UNARY_STREAM,
            (True, True): grpclib.const.Cardinality.STREAM_STREAM,
        }[method.request_streams, method.response_streams]
        return grpclib.const.Handler(serve, cardinality, method.request, method.response)


async def serve_grpclib() -> tuple[int, Callable[[], Awaitable[Any]]]:
    """Serve with grpclib on a free port. Returns the port, and how to end."""
    server = grpclib.server.Server([GrpclibService()])
    await server.start("127.0.0.1", 0)
    inner: Any = server._server
    port = int(inner.sockets[0].getsockname()[1])

    async def end() -> None:
        server.close()
        await server.wait_closed()

    return port, end


STACKS = {"grpcio": serve_grpcio, "grpclib": serve_grpclib}


async def main(stack: str) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    port, end = await STACKS[stack]()
    print(f"listening on {port}", flush=True)
    await ended.wait()
    await end()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
