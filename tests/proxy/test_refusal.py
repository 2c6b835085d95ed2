"""Every answer that the sidecar makes in an endpoint's place, and what a mistake of our own costs."""

from __future__ import annotations

import pytest

from sidecar.http2 import constants as h2
from sidecar.http2.interface import Codec, CodecSettings, HeaderBlock
from sidecar.policy.balancer import Balancer, PickContext
from sidecar.policy.cluster import Cluster
from sidecar.policy.endpoint import Endpoint
from sidecar.proxy import failure
from sidecar.proxy.settings import BufferSettings, LimitSettings
from tests.proxy.call import OK, PLAIN, called
from tests.proxy.pipe import REQUEST, RESPONSE
from tests.proxy.stage import on_loop, started

# === refusals of the sidecar's own ===


@on_loop
async def test_connect_is_not_supported(codec: type[Codec]) -> None:
    stage = await started(codec)
    app = stage.app()
    await stage.run()
    call = app.call(head=[(b":method", b"CONNECT"), (b":authority", b"x:1")])
    await stage.run()
    assert (call.head or {})[b":status"] == b"404"
    assert stage.server.requests == []
    assert stage.leaks() == []


@on_loop
async def test_more_rpcs_than_the_cap_are_refused_with_its_name(codec: type[Codec]) -> None:
    stage, call, server, request = await called(codec, end=True, limits=LimitSettings(max_in_flight=1))
    second = stage.apps[0].call(end=True)
    await stage.run()
    assert (second.status, second.trailers_only) == (14, True)
    assert second.message == "sidecar: greeter: 1 RPCs are in flight, which is its limit; attempts: 0"
    assert stage.metrics.refusals == {"in_flight_cap": 1}
    server.answer(request)
    await stage.run()
    third = stage.apps[0].call(end=True)
    await stage.run()
    server.answer(stage.server.requests[1])
    await stage.run()
    assert (call.status, third.status) == (0, 0)
    assert stage.leaks() == []


@on_loop
async def test_full_buffers_refuse_new_rpcs_and_no_others(codec: type[Codec]) -> None:
    stage = await started(codec, buffers=BufferSettings(soft_limit=50_000, hard_limit=100_000))
    app = stage.app()
    await stage.run()
    stalled = app.call()
    await stage.run()
    stalled.crediting = False
    stage.server.connection.respond(stage.server.request)
    stage.server.request.send(b"x" * 500_000)
    await stage.run()
    assert stage.engine.full
    refused = app.call(end=True)
    await stage.run()
    assert (refused.status, stage.metrics.refusals) == (8, {"buffers_full": 1})
    assert "buffers are full" in refused.message
    stalled.crediting = True
    stalled.give_back()
    stage.server.request.end(OK)
    await stage.run()
    assert (len(stalled.data), stalled.reset, stalled.status) == (500_000, h2.NO_ERROR, 0)
    later = app.call(end=True)
    await stage.run()
    stage.server.connection.answer(stage.server.requests[-1])
    await stage.run()
    assert later.status == 0
    assert stage.leaks() == []


@on_loop
async def test_plain_http_request_gets_a_plain_http_error(codec: type[Codec]) -> None:
    stage = await started(codec, servers=[])
    app = stage.app()
    stage.discover()
    await stage.run()
    call = app.call(head=PLAIN, end=True)
    await stage.run()
    assert (call.head or {})[b":status"] == b"503"
    assert b"grpc-status" not in (call.head or {})
    assert stage.leaks() == []


# === field lists that a peer does not take (H2-26) ===


@on_loop
async def test_server_that_accepts_no_such_request_head_is_an_answer_8(codec: type[Codec]) -> None:
    stage = await started(codec, server_settings=CodecSettings(max_header_list_size=300))
    app = stage.app()
    await stage.run()
    call = app.call((b"x-large", b"x" * 500), end=True)
    await stage.run()
    assert call.status == 8
    assert stage.server.requests == []
    assert stage.leaks() == []


@pytest.mark.parametrize("part", ["head", "trailers"])
@pytest.mark.parametrize("limit", [400, 10])
@on_loop
async def test_app_that_accepts_no_such_response_costs_that_rpc_alone(
    codec: type[Codec], part: str, limit: int
) -> None:
    """With a limit below our own small answer there is no status left to send: the stream is reset."""
    stage = await started(codec)
    app, other = stage.app(CodecSettings(max_header_list_size=limit)), stage.app()
    await stage.run()
    call, neighbour = app.call(end=True), other.call(end=True)
    await stage.run()
    server, large = stage.server.connection, (b"x-large", b"x" * 500)
    request = stage.server.requests[0]
    if part == "head":
        server.respond(request, large)
    else:
        server.respond(request, head=RESPONSE if limit > 10 else [(b":status", b"200")])
    request.send(b"data")
    request.end([*OK, large])
    server.answer(stage.server.requests[1])
    await stage.run()
    if limit > 10:
        assert call.status == 8
    else:
        assert call.reset == h2.INTERNAL_ERROR
    assert neighbour.status == 0
    assert stage.metrics.exchange_status[8] == 1
    assert stage.leaks() == []


@on_loop
async def test_informational_head_that_the_app_does_not_take_is_left_out(codec: type[Codec]) -> None:
    stage = await started(codec)
    app = stage.app(CodecSettings(max_header_list_size=400))
    await stage.run()
    call = app.call(end=True)
    await stage.run()
    server, request = stage.server.connection, stage.server.request
    server.codec.send_informational(request.stream, HeaderBlock([(b":status", b"103"), (b"link", b"x" * 500)]))
    server.answer(request)
    await stage.run()
    assert (call.status, call.informational) == (0, [])


# === mistakes of our own ===


class Broken(Balancer):
    """Fails for a path that says so."""

    def pick(self, cluster: Cluster, context: PickContext | None, now: float) -> Endpoint:
        assert context is not None
        if context.head.path == b"/broken":
            raise ZeroDivisionError("a bug")
        return cluster.pickable[0]


@on_loop
async def test_mistake_in_a_pick_costs_that_rpc_and_no_other(codec: type[Codec]) -> None:
    stage = await started(codec, balancer=Broken())
    app = stage.app()
    await stage.run()
    head = [(name, b"/broken" if name == b":path" else value) for name, value in REQUEST]
    good, bad = app.call(end=True), app.call(head=head, end=True)
    await stage.run()
    assert (bad.status, bad.message) == (13, "sidecar: greeter: internal error: ZeroDivisionError; attempts: 0")
    stage.server.connection.answer(stage.server.request)
    await stage.run()
    assert good.status == 0
    assert app.goaways == []
    assert stage.leaks() == []


@pytest.mark.parametrize("event", ["on_response_head", "on_response_data", "on_response_trailers", "reset"])
@on_loop
async def test_mistake_while_an_answer_is_read_costs_that_rpc_and_not_the_shared_connection(
    codec: type[Codec], event: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, call, server, request = await called(codec, end=True)
    other = stage.apps[0].call(end=True)
    await stage.run()
    exchange = next(exchange for exchange in stage.downstream[0].exchanges if exchange.stream.id == 1)
    place = failure if event == "reset" else type(exchange)
    original = getattr(place, event)

    def broken(self: object, *args: object) -> None:
        if exchange in (self, getattr(self, "exchange", None)):
            raise ZeroDivisionError("a bug")
        original(self, *args)

    try:
        monkeypatch.setattr(place, event, broken)
    except TypeError:
        pytest.skip("compiled: its methods cannot be replaced")
    server.respond(request)
    request.send(b"x")
    if event == "reset":
        await stage.run()
        request.cancel()
    else:
        request.end(OK)
    server.answer(stage.server.requests[1])
    await stage.run()
    assert call.status == 13
    assert other.status == 0
    assert (app_goaways := stage.apps[0].goaways) == [], app_goaways
    assert stage.leaks() == []


@pytest.mark.parametrize(("early", "status"), [(0.0005, 4), (0.005, 1)])
@on_loop
async def test_a_cancel_within_a_millisecond_of_the_deadline_stands_for_it(
    codec: type[Codec], early: float, status: int
) -> None:
    stage, call, _, request = await called(codec, (b"grpc-timeout", b"1S"), end=True)
    await stage.advance(1 - early)
    request.cancel()
    await stage.run()
    assert call.status == status
