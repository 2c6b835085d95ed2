"""What an upstream sets by method, as an RPC meets it: the timeout, and what a reload makes of it."""

from __future__ import annotations

from sidecar.http2 import constants as h2
from sidecar.http2.interface import Codec
from sidecar.policy.method import MethodTable
from sidecar.policy.method_settings import MethodSettings, TimeoutSettings
from tests.proxy.call import called
from tests.proxy.stage import on_loop

SHORT = MethodTable(MethodSettings(), {"/greeter.Greeter/*": MethodSettings(timeouts=TimeoutSettings(total=2.0))})


@on_loop
async def test_a_methods_timeout_is_a_deadline_that_the_endpoint_is_told(codec: type[Codec]) -> None:
    stage, call, _, request = await called(codec, methods=SHORT)
    assert request.request[b"grpc-timeout"] == b"2000000u"
    await stage.advance(2.002)
    assert call.status == 4
    assert "deadline exceeded after 2.0" in call.message
    assert request.reset == h2.CANCEL
    assert stage.leaks() == []


@on_loop
async def test_an_earlier_deadline_of_the_caller_stands(codec: type[Codec]) -> None:
    stage, call, _, request = await called(codec, (b"grpc-timeout", b"1S"), methods=SHORT)
    assert request.request[b"grpc-timeout"] == b"1000000u"
    await stage.advance(1.002)
    assert call.status == 4


@on_loop
async def test_a_malformed_timeout_passes_untouched_and_the_methods_own_counts(codec: type[Codec]) -> None:
    stage, call, _, request = await called(codec, (b"grpc-timeout", b"soon"), methods=SHORT)
    assert request.request[b"grpc-timeout"] == b"soon"
    await stage.advance(2.002)
    assert call.status == 4


@on_loop
async def test_a_reload_holds_for_rpcs_from_then_on(codec: type[Codec]) -> None:
    stage, first, server, _ = await called(codec, methods=SHORT)
    stage.dispatch.reconfigure(stage.dispatch.connection, stage.dispatch.limits, None)
    second = stage.apps[0].call(end=True)
    await stage.run()
    await stage.advance(2.002)
    assert (first.status, second.status) == (4, None)
    server.answer(server.streams[1])
    await stage.run()
    assert second.status == 0
    assert stage.leaks() == []
