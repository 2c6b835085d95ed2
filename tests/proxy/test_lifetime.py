"""How long an RPC may be silent, and how long it may last: off unless its method sets it (F15, P9)."""

from __future__ import annotations

from sidecar.http2 import constants as h2
from sidecar.http2.interface import Codec
from sidecar.policy.method import MethodTable
from sidecar.policy.method_settings import MethodSettings, TimeoutSettings
from tests.proxy.call import OK, called
from tests.proxy.stage import on_loop


def methods(idle: float = 0.0, max_duration: float = 0.0) -> MethodTable:
    return MethodTable(MethodSettings(timeouts=TimeoutSettings(idle=idle, max_duration=max_duration)), {})


@on_loop
async def test_a_silent_rpc_is_ended_and_its_sentence_names_the_setting(codec: type[Codec]) -> None:
    stage, call, _, request = await called(codec, methods=methods(idle=10.0))
    assert b"grpc-timeout" not in request.request
    await stage.advance(9.9)
    assert not call.ended
    await stage.advance(0.2)
    assert call.status == 4
    where = stage.server.address
    assert call.message == (
        f"sidecar: greeter: nothing was sent either way for 10s on {where}, its timeouts.idle; attempts: 1"
    )
    assert request.reset == h2.CANCEL
    assert stage.metrics.overstays == {"idle": 1}
    assert stage.leaks() == []


@on_loop
async def test_what_is_sent_either_way_keeps_an_rpc_alive(codec: type[Codec]) -> None:
    stage, call, server, request = await called(codec, methods=methods(idle=10.0))
    server.respond(request)
    for number in range(6):
        (call if number % 2 else request).send(b"x")
        await stage.run()
        await stage.advance(7)
    assert not call.ended
    await stage.advance(6)
    assert call.status == 4
    assert stage.leaks() == []


@on_loop
async def test_an_rpc_lasts_no_longer_than_its_method_allows(codec: type[Codec]) -> None:
    stage, call, server, request = await called(codec, methods=methods(max_duration=30.0))
    server.respond(request)
    for _ in range(29):
        request.send(b"x")
        await stage.run()
        await stage.advance(1)
    assert not call.ended
    await stage.advance(1.002)
    assert (call.status, len(call.data)) == (4, 29)
    assert "has lasted 30s" in call.message
    assert stage.metrics.overstays == {"max_duration": 1}
    assert stage.leaks() == []


@on_loop
async def test_an_rpc_that_ends_in_time_leaves_nothing(codec: type[Codec]) -> None:
    stage, call, server, request = await called(codec, end=True, methods=methods(1.0, 2.0))
    server.respond(request)
    request.end(OK)
    await stage.run()
    await stage.advance(5)
    assert call.status == 0
    assert stage.metrics.overstays == {}
    assert stage.leaks() == []


@on_loop
async def test_nothing_is_ended_that_was_not_asked_for(codec: type[Codec]) -> None:
    stage, call, server, request = await called(codec)
    server.respond(request)
    for _ in range(1000):
        await stage.advance(10)  # in steps, so that the endpoint can answer the keepalive
    assert not call.ended
    request.end(OK)
    await stage.run()
    assert call.status == 0
