"""The interoperability cases of gRPC (doc/interop-test-descriptions.md), each written once.

A case drives a client and returns everything that was observed, after having checked what the case demands. What it
returns must not depend on the route taken: that is compared by the tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple

import grpc

from tests.interop import messages as m
from tests.interop.clients import Client, Observed
from tests.interop.server import ECHO_INITIAL, ECHO_TRAILING, METHODS

REQUEST_SIZES = (27182, 8, 1828, 45904)
RESPONSE_SIZES = (31415, 9, 2653, 58979)
SPECIAL_MESSAGE = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
SOAK_RPCS = 100
SOAK_CHANNELS = 10


def _request(response: int = 314159, request: int = 271828, **more: Any) -> Any:
    return m.SimpleRequest(response_size=response, payload=m.Payload(body=bytes(request)), **more)


def _response(size: int = 314159) -> bytes:
    return bytes(m.SimpleResponse(payload=m.Payload(body=bytes(size))).SerializeToString())


def _streamed(size: int) -> bytes:
    return bytes(m.StreamingOutputCallResponse(payload=m.Payload(body=bytes(size))).SerializeToString())


def _ask(size: int, body: int) -> Any:
    parameters = [m.ResponseParameters(size=size)]
    return m.StreamingOutputCallRequest(response_parameters=parameters, payload=m.Payload(body=bytes(body)))


async def empty_unary(client: Client) -> list[Observed]:
    seen = await client.unary("EmptyCall", m.Empty())
    assert (seen.status, seen.messages) == ("OK", (b"",))
    return [seen]


async def large_unary(client: Client) -> list[Observed]:
    seen = await client.unary("UnaryCall", _request())
    assert (seen.status, seen.messages) == ("OK", (_response(),))
    return [seen]


async def client_compressed_unary(client: Client) -> list[Observed]:
    seen = await client.unary("UnaryCall", _request(), compress=True)
    assert (seen.status, seen.messages) == ("OK", (_response(),))
    return [seen]


async def server_compressed_unary(client: Client) -> list[Observed]:
    seen = await client.unary("UnaryCall", _request(response_compressed=m.BoolValue(value=True)))
    assert (seen.status, seen.messages) == ("OK", (_response(),))
    return [seen]


async def client_streaming(client: Client) -> list[Observed]:
    rpc = client.open("StreamingInputCall", METHODS["StreamingInputCall"])
    for size in REQUEST_SIZES:
        await rpc.send(m.StreamingInputCallRequest(payload=m.Payload(body=bytes(size))))
    await rpc.end()
    seen = await rpc.observe()
    expected = m.StreamingInputCallResponse(aggregated_payload_size=sum(REQUEST_SIZES))
    assert (seen.status, seen.messages) == ("OK", (expected.SerializeToString(),))
    return [seen]


async def server_streaming(client: Client) -> list[Observed]:
    parameters = [m.ResponseParameters(size=size) for size in RESPONSE_SIZES]
    seen = await client.unary("StreamingOutputCall", m.StreamingOutputCallRequest(response_parameters=parameters))
    assert (seen.status, seen.messages) == ("OK", tuple(map(_streamed, RESPONSE_SIZES)))
    return [seen]


async def ping_pong(client: Client) -> list[Observed]:
    rpc = client.open("FullDuplexCall", METHODS["FullDuplexCall"])
    for size, body in zip(RESPONSE_SIZES, REQUEST_SIZES, strict=True):
        await rpc.send(_ask(size, body))
        assert len((await rpc.receive()).payload.body) == size
    await rpc.end()
    seen = await rpc.observe()
    assert (seen.status, seen.messages) == ("OK", tuple(map(_streamed, RESPONSE_SIZES)))
    return [seen]


async def empty_stream(client: Client) -> list[Observed]:
    rpc = client.open("FullDuplexCall", METHODS["FullDuplexCall"])
    await rpc.end()
    seen = await rpc.observe()
    assert (seen.status, seen.messages) == ("OK", ())
    return [seen]


async def custom_metadata(client: Client) -> list[Observed]:
    metadata: list[tuple[str, str | bytes]] = [
        (ECHO_INITIAL, "test_initial_metadata_value"),
        (ECHO_TRAILING, b"\x0a\x0b\x0a\x0b\x00\xff"),
    ]
    unary = await client.unary("UnaryCall", _request(), metadata=metadata)
    rpc = client.open("FullDuplexCall", METHODS["FullDuplexCall"], metadata)
    await rpc.send(_ask(314159, 271828))
    await rpc.receive()
    await rpc.end()
    streamed = await rpc.observe()
    for seen in (unary, streamed):
        assert seen.status == "OK"
        assert metadata[0] in seen.initial
        assert metadata[1] in seen.trailing
    return [unary, streamed]


async def _echo_status(client: Client, code: int, message: str) -> list[Observed]:
    status = m.EchoStatus(code=code, message=message)
    unary = await client.unary("UnaryCall", m.SimpleRequest(response_status=status))
    rpc = client.open("FullDuplexCall", METHODS["FullDuplexCall"])
    await rpc.send(m.StreamingOutputCallRequest(response_status=status))
    await rpc.end()
    return [unary, await rpc.observe()]


async def status_code_and_message(client: Client) -> list[Observed]:
    both = await _echo_status(client, 2, "test status message")
    assert [(seen.status, seen.details) for seen in both] == [("UNKNOWN", "test status message")] * 2
    return both


async def special_status_message(client: Client) -> list[Observed]:
    both = await _echo_status(client, 2, SPECIAL_MESSAGE)
    assert [(seen.status, seen.details) for seen in both] == [("UNKNOWN", SPECIAL_MESSAGE)] * 2
    return both


async def every_status_code(client: Client) -> list[Observed]:
    """Not of the list: no status of the service is rewritten on its way, whatever its number."""
    seen = []
    for code in range(1, 17):
        seen += await _echo_status(client, code, f"status {code}")
    assert [each.details for each in seen] == [f"status {code}" for code in range(1, 17) for _ in range(2)]
    return seen


def _check_unimplemented(seen: Observed) -> None:
    # grpclib's server answers this without a content-type, and grpclib's client then refuses to read the status
    assert seen.status == "UNIMPLEMENTED" or seen.details == "Missing content-type header"


async def unimplemented_method(client: Client) -> list[Observed]:
    seen = await client.unary("UnimplementedCall", m.Empty())
    _check_unimplemented(seen)
    return [seen]


async def unimplemented_service(client: Client) -> list[Observed]:
    seen = await client.unary("UnimplementedCall", m.Empty(), service="grpc.testing.UnimplementedService")
    _check_unimplemented(seen)
    return [seen]


async def cancel_after_begin(client: Client) -> list[Observed]:
    rpc = client.open("StreamingInputCall", METHODS["StreamingInputCall"])
    await rpc.cancel()
    seen = await rpc.observe()
    assert (seen.status, seen.messages) == ("CANCELLED", ())
    return [seen]


async def cancel_after_first_response(client: Client) -> list[Observed]:
    rpc = client.open("FullDuplexCall", METHODS["FullDuplexCall"])
    await rpc.send(_ask(RESPONSE_SIZES[0], REQUEST_SIZES[0]))
    await rpc.receive()
    await rpc.cancel()
    seen = await rpc.observe()
    assert (seen.status, seen.messages) == ("CANCELLED", (_streamed(RESPONSE_SIZES[0]),))
    return [seen]


# What else than DEADLINE_EXCEEDED is said of a deadline that passed at a bad time: by grpcio, when a batch is begun on
# a call that is over; by grpclib's server, when its handler meets a stream that is.
LATE_WORDS = ("Internal error from Core", "Internal Server Error")


async def timeout_on_sleeping_server(client: Client, seconds: float = 0.001) -> list[Observed]:
    """The text is left out: whether the client's own clock or an answer from behind comes first is a matter of luck."""
    rpc = client.open("FullDuplexCall", METHODS["FullDuplexCall"], timeout=seconds)
    # when the deadline passes before the message is out, grpcio says so in one of three ways
    with suppress(asyncio.InvalidStateError, grpc.aio.UsageError, grpc.aio.AioRpcError):
        await rpc.send(_ask(31415, 27182))
    seen = await rpc.observe()
    if seen.status != "DEADLINE_EXCEEDED" and seen.details not in LATE_WORDS:
        raise AssertionError(f"{seen.status}: {seen.details}")
    return [Observed("DEADLINE_EXCEEDED", "", (), (), ())]


async def rpc_soak(client: Client) -> list[Observed]:
    seen = [await client.unary("UnaryCall", _request(response=3141, request=2718)) for _ in range(SOAK_RPCS)]
    assert {(each.status, each.messages) for each in seen} == {("OK", (_response(3141),))}
    return seen


class Case(NamedTuple):
    """A case, and whether it needs a stack that compresses."""

    run: Callable[[Client], Awaitable[list[Observed]]]
    compresses: bool = False


CASES = {
    case.run.__name__: case
    for case in (
        Case(empty_unary),
        Case(large_unary),
        Case(client_compressed_unary, compresses=True),
        Case(server_compressed_unary, compresses=True),
        Case(client_streaming),
        Case(server_streaming),
        Case(ping_pong),
        Case(empty_stream),
        Case(custom_metadata),
        Case(status_code_and_message),
        Case(special_status_message),
        Case(every_status_code),
        Case(unimplemented_method),
        Case(unimplemented_service),
        Case(cancel_after_begin),
        Case(cancel_after_first_response),
        Case(timeout_on_sleeping_server),
        Case(rpc_soak),
    )
}
