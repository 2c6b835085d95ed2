"""One small client interface over grpcio and over grpclib, and what either of them saw of an RPC.

Whatever a stack learns about an RPC ends in an `Observed`; two routes to the same server are equal if these are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import grpc
import grpclib
import grpclib.client
import grpclib.const

from tests.interop import messages as m
from tests.interop.server import METHODS, Method

Metadata = Sequence[tuple[str, str | bytes]]
END: Any = vars(grpc.aio)["EOF"]  # absent from the published types
# A server states its clock or its own name here: the same server answers differently from one second to the next.
NOISE = frozenset({"date", "server"})


class Observed(NamedTuple):
    """What the application saw of one RPC."""

    status: str
    details: str
    messages: tuple[bytes, ...]
    initial: tuple[tuple[str, str | bytes], ...]
    trailing: tuple[tuple[str, str | bytes], ...]


class Rpc(Protocol):
    """One RPC in progress."""

    async def send(self, message: Any) -> None: ...
    async def end(self) -> None: ...
    async def receive(self) -> Any: ...
    async def cancel(self) -> None: ...
    async def observe(self) -> Observed: ...


class Client(Protocol):
    """A channel to one address."""

    def open(self, name: str, method: Method, metadata: Metadata = (), timeout: float | None = None) -> Rpc: ...
    async def unary(
        self,
        name: str,
        request: Any,
        *,
        metadata: Metadata = (),
        timeout: float | None = None,
        compress: bool = False,
        service: str = m.SERVICE,
    ) -> Observed: ...
    async def close(self) -> None: ...


def _quiet(metadata: Any) -> tuple[tuple[str, str | bytes], ...]:
    return tuple((str(key), value) for key, value in metadata or () if key not in NOISE)


# -- grpcio ------------------------------------------------------------------------------------------------------


class GrpcioRpc:
    """An RPC on a grpcio asyncio call."""

    def __init__(self, call: Any, method: Method) -> None:
        self._call = call
        self._method = method
        self._messages: list[bytes] = []

    async def send(self, message: Any) -> None:
        if self._method.request_streams:
            await self._call.write(message)

    async def end(self) -> None:
        if self._method.request_streams:
            await self._call.done_writing()

    async def receive(self) -> Any:
        if not self._method.response_streams:
            message = await self._call
        else:
            message = await self._call.read()
            if message is END:
                return None
        self._messages.append(message.SerializeToString())
        return message

    async def cancel(self) -> None:
        self._call.cancel()

    async def observe(self) -> Observed:
        with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):  # told below, from the call itself
            if self._method.response_streams:
                while await self.receive() is not None:
                    pass
            elif not self._messages:
                await self.receive()
        return await _observe_grpcio(self._call, self._messages)


async def _observe_grpcio(call: Any, messages: Sequence[bytes]) -> Observed:
    code = await call.code()
    initial: Any = ()
    with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):  # a failed RPC may have none
        initial = await call.initial_metadata()
    trailing: Any = ()
    with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):  # likewise
        trailing = await call.trailing_metadata()
    details = await call.details() or ""
    return Observed(code.name, details, tuple(messages), _quiet(initial), _quiet(trailing))


class GrpcioClient:
    """grpcio's asyncio channel."""

    def __init__(self, port: int) -> None:
        # a connection of its own, so that two clients of one address do not share one
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])

    def open(self, name: str, method: Method, metadata: Metadata = (), timeout: float | None = None) -> Rpc:
        factory: Any = {
            (True, False): self._channel.stream_unary,
            (True, True): self._channel.stream_stream,
        }[method.request_streams, method.response_streams]
        multi = factory(
            f"/{m.SERVICE}/{name}",
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        return GrpcioRpc(multi(metadata=tuple(metadata), timeout=timeout), method)

    async def unary(
        self,
        name: str,
        request: Any,
        *,
        metadata: Metadata = (),
        timeout: float | None = None,
        compress: bool = False,
        service: str = m.SERVICE,
    ) -> Observed:
        method = METHODS.get(name, METHODS["EmptyCall"])
        factory: Any = self._channel.unary_stream if method.response_streams else self._channel.unary_unary
        call = factory(
            f"/{service}/{name}",
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )(
            request,
            metadata=tuple(metadata),
            timeout=timeout,
            compression=grpc.Compression.Gzip if compress else grpc.Compression.NoCompression,
        )
        return await GrpcioRpc(call, method).observe()

    async def close(self) -> None:
        await self._channel.close(None)


# -- grpclib -----------------------------------------------------------------------------------------------------


class GrpclibRpc:
    """An RPC on a grpclib stream."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._entered = False
        self._messages: list[bytes] = []
        self._ended: grpclib.Status | None = None  # by the client itself

    async def _enter(self) -> None:
        if not self._entered:
            self._entered = True
            await self._stream.__aenter__()

    async def send(self, message: Any, end: bool = False) -> None:
        try:
            await self._enter()
            await self._stream.send_message(message, end=end)
        except TimeoutError:
            self._ended = grpclib.Status.DEADLINE_EXCEEDED

    async def end(self) -> None:
        await self._enter()
        if not self._stream._send_request_done:
            await self._stream.send_request(end=True)
        else:
            await self._stream.end()

    async def receive(self) -> Any:
        message = await self._stream.recv_message()
        if message is not None:
            self._messages.append(message.SerializeToString())
        return message

    async def cancel(self) -> None:
        await self._enter()
        if not self._stream._send_request_done:
            await self._stream.send_request()
        self._ended = grpclib.Status.CANCELLED
        await self._stream.cancel()

    async def observe(self) -> Observed:
        status, details = grpclib.Status.OK, ""
        try:
            if self._ended is not None:
                status = self._ended
            else:
                while await self.receive() is not None:
                    pass
                await self._stream.recv_trailing_metadata()
            await self._stream.__aexit__(None, None, None)
        except grpclib.GRPCError as error:
            status, details = error.status, error.message or ""
            await self._stream.__aexit__(type(error), error, error.__traceback__)
        except TimeoutError as error:
            status = grpclib.Status.DEADLINE_EXCEEDED
            await self._stream.__aexit__(type(error), error, error.__traceback__)
        initial = (self._stream.initial_metadata or {}).items()
        trailing = (self._stream.trailing_metadata or {}).items()
        return Observed(status.name, details, tuple(self._messages), _quiet(initial), _quiet(trailing))


class GrpclibClient:
    """grpclib's channel."""

    def __init__(self, port: int) -> None:
        self._channel = grpclib.client.Channel("127.0.0.1", port)

    def _request(self, path: str, method: Method, metadata: Metadata, timeout: float | None) -> GrpclibRpc:
        cardinality = {
            (False, False): grpclib.const.Cardinality.UNARY_UNARY,
            (True, False): grpclib.const.Cardinality.STREAM_UNARY,
            (False, True): grpclib.const.Cardinality.UNARY_STREAM,
            (True, True): grpclib.const.Cardinality.STREAM_STREAM,
        }[method.request_streams, method.response_streams]
        return GrpclibRpc(
            self._channel.request(
                path, cardinality, method.request, method.response, timeout=timeout, metadata=list(metadata)
            )
        )

    def open(self, name: str, method: Method, metadata: Metadata = (), timeout: float | None = None) -> Rpc:
        return self._request(f"/{m.SERVICE}/{name}", method, metadata, timeout)

    async def unary(
        self,
        name: str,
        request: Any,
        *,
        metadata: Metadata = (),
        timeout: float | None = None,
        compress: bool = False,
        service: str = m.SERVICE,
    ) -> Observed:
        assert not compress, "grpclib does not compress"
        rpc = self._request(f"/{service}/{name}", METHODS.get(name, METHODS["EmptyCall"]), metadata, timeout)
        await rpc.send(request, end=True)
        return await rpc.observe()

    async def close(self) -> None:
        self._channel.close()


CLIENTS: dict[str, type[GrpcioClient] | type[GrpclibClient]] = {"grpcio": GrpcioClient, "grpclib": GrpclibClient}
