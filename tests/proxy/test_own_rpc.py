"""RPCs that the sidecar makes itself: what is sent and heard, how they end, and what they are not counted as."""

from __future__ import annotations

import pytest

from sidecar.http2 import constants as h2
from sidecar.http2.interface import Codec, CodecSettings
from sidecar.proxy.own_rpc import OwnRpc
from sidecar.proxy.settings import ConnectionSettings
from sidecar.proxy.upstream import UpstreamConnection
from sidecar.rpc.message import build_message
from sidecar.telemetry.metrics import UpstreamMetrics
from tests.proxy.stage import Stage, on_loop, started

PATH = b"/grpc.health.v1.Health/Watch"
OK = [(b"grpc-status", b"0")]


class Heard(OwnRpc):
    """Writes down what it is told."""

    __slots__ = ("end", "enough", "messages")

    def __init__(self, connection: UpstreamConnection, *, enough: int = 0) -> None:
        super().__init__(connection)
        self.messages: list[bytes] = []
        self.end: tuple[int, str] | None = None
        self.enough = enough

    def on_message(self, message: bytes) -> None:
        self.messages.append(message)
        if len(self.messages) == self.enough:
            self.close()

    def on_end(self, status: int, text: str) -> None:
        assert self.end is None
        self.end = (status, text)


class Faulty(Heard):
    """A mistake of ours."""

    __slots__ = ()

    def on_message(self, message: bytes) -> None:
        raise ValueError("a bug")


def connection_of(stage: Stage) -> UpstreamConnection:
    """The one connection to the one server."""
    (pool,) = stage.dispatch.pools.values()
    (connection,) = pool.connections
    return connection


async def asked(
    codec: type[Codec], kind: type[Heard] = Heard, *, enough: int = 0, message: bytes = b"", **options: object
) -> tuple[Stage, Heard]:
    """A stage on which one RPC of our own has reached the server."""
    stage = await started(codec, **options)
    rpc = kind(connection_of(stage), enough=enough)
    assert rpc.start(PATH, message, timeout=1.0)
    await stage.run()
    return stage, rpc


def check_at_rest(stage: Stage) -> None:
    """Nothing is left of it, and it is in no account of RPCs (GR-53)."""
    assert stage.leaks() == []
    fresh, metrics = UpstreamMetrics("greeter"), stage.metrics
    for name in ("exchange_started", "attempt_started", "attempt_status", "outcomes", "retries", "refusals"):
        assert getattr(metrics, name) == getattr(fresh, name), name
    assert [(e.successes, e.failures) for e in stage.cluster.endpoints] == [(0, 0)]
    assert stage.records == []


# === an answer ===


@on_loop
async def test_request_is_a_grpc_call_of_one_message(codec: type[Codec]) -> None:
    stage, rpc = await asked(codec, message=b"\x0a\x01x")
    request = stage.server.request
    assert request.request == {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": PATH,
        b":authority": b"greeter",
        b"content-type": b"application/grpc",
        b"te": b"trailers",
        b"grpc-timeout": b"1000000u",
    }
    assert (request.data, request.ended) == (build_message(b"\x0a\x01x"), True)
    stage.server.connection.answer(request, build_message(b"\x08\x01"))
    await stage.run()
    assert (rpc.messages, rpc.end) == ([b"\x08\x01"], (0, ""))
    check_at_rest(stage)


@on_loop
async def test_each_message_is_heard_when_it_comes(codec: type[Codec]) -> None:
    stage, rpc = await asked(codec)
    server, request = stage.server.connection, stage.server.request
    server.respond(request)
    for number in range(3):
        request.send(build_message(b"%d" % number))
        await stage.run()
        assert len(rpc.messages) == number + 1
    assert rpc.end is None
    request.end(OK)
    await stage.run()
    assert rpc.end == (0, "")
    check_at_rest(stage)


@on_loop
async def test_status_without_a_message_is_heard(codec: type[Codec]) -> None:
    stage, rpc = await asked(codec)
    stage.server.connection.respond(
        stage.server.request, (b"grpc-status", b"12"), (b"grpc-message", b"no such method"), end=True
    )
    await stage.run()
    assert (rpc.messages, rpc.end) == ([], (12, "no such method"))
    check_at_rest(stage)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (((b":status", b"404"),), 12),
        (((b":status", b"503"), (b"content-type", b"text/html")), 14),
        (((b":status", b"200"), (b"content-type", b"text/html")), 2),
    ],
)
@on_loop
async def test_answer_that_is_not_grpc_ends_with_the_status_of_its_http_status(
    codec: type[Codec], head: tuple[tuple[bytes, bytes], ...], status: int
) -> None:
    stage, rpc = await asked(codec)
    request = stage.server.request
    stage.server.connection.respond(request, head=head)
    request.send(b"<html>")
    request.end()
    await stage.run()
    assert rpc.end is not None and rpc.end[0] == status
    assert rpc.messages == []
    check_at_rest(stage)


@on_loop
async def test_answer_without_a_status_is_unknown(codec: type[Codec]) -> None:
    stage, rpc = await asked(codec)
    request = stage.server.request
    stage.server.connection.respond(request)
    request.send(build_message(b""))
    request.end()
    await stage.run()
    assert (rpc.messages, rpc.end) == ([b""], (2, "the answer ended without a status"))
    check_at_rest(stage)


@on_loop
async def test_message_that_cannot_be_read_ends_it(codec: type[Codec]) -> None:
    stage, rpc = await asked(codec)
    request = stage.server.request
    stage.server.connection.respond(request)
    request.send(b"\1\0\0\0\1x")
    await stage.run()
    assert rpc.end == (13, "a compressed message, although no compression was offered")
    assert request.reset == h2.CANCEL
    check_at_rest(stage)


# === other ends ===


@on_loop
async def test_after_close_the_server_is_told_and_nothing_more_is_heard(codec: type[Codec]) -> None:
    stage, rpc = await asked(codec, enough=1)
    request = stage.server.request
    stage.server.connection.respond(request)
    request.send(build_message(b"1") + build_message(b"2"))
    await stage.run()
    request.send(build_message(b"3"))
    await stage.run()
    assert (rpc.messages, rpc.end, request.reset) == ([b"1"], None, h2.CANCEL)
    check_at_rest(stage)


@on_loop
async def test_reset_is_its_end(codec: type[Codec]) -> None:
    stage, rpc = await asked(codec)
    stage.server.request.cancel(h2.REFUSED_STREAM)
    await stage.run()
    assert rpc.end == (14, "127.0.0.1:1 reset the stream: REFUSED_STREAM")
    check_at_rest(stage)


@on_loop
async def test_lost_connection_is_its_end(codec: type[Codec]) -> None:
    stage, rpc = await asked(codec)
    stage.server.connection.hang_up(ConnectionResetError(104, "reset"))
    await stage.run()
    assert rpc.end == (14, "connection lost: [Errno 104] reset")
    check_at_rest(stage)


@on_loop
async def test_goaway_is_its_end_and_the_connection_closes_without_waiting_for_it(codec: type[Codec]) -> None:
    stage, rpc = await asked(codec)
    stage.server.connection.codec.send_goaway(h2.LARGEST_STREAM_ID, h2.NO_ERROR)
    await stage.run()
    assert rpc.end == (14, "the connection is closing: goaway")
    assert stage.server.connections[0].lost
    check_at_rest(stage)


@on_loop
async def test_mistake_in_what_listens_costs_that_request_only(codec: type[Codec]) -> None:
    stage, rpc = await asked(codec, Faulty)
    request = stage.server.request
    stage.server.connection.respond(request)
    request.send(build_message(b"1"))
    await stage.run()
    assert (request.reset, rpc.end) == (h2.CANCEL, None)
    assert not stage.server.connection.lost
    check_at_rest(stage)


# === among the RPCs of the apps ===


@on_loop
async def test_it_takes_a_slot_and_gives_it_back(codec: type[Codec]) -> None:
    stage, rpc = await asked(codec, server_settings=CodecSettings(max_concurrent_streams=1, reset_burst=10**9))
    assert not Heard(rpc.connection).start(PATH, b"")
    call = stage.app().call(end=True)
    await stage.run()
    assert stage.server.dials == 2  # it does not queue behind ours
    rpc.close()
    await stage.run()
    assert Heard(rpc.connection).start(PATH, b"")
    del call


@on_loop
async def test_body_waits_for_the_window(codec: type[Codec]) -> None:
    settings = CodecSettings(stream_window=10, reset_burst=10**9)
    stage = await started(codec, server_settings=settings)
    stage.server.connection.crediting = False
    rpc = Heard(connection_of(stage))
    assert rpc.start(PATH, b"x" * 20)
    await stage.run()
    request = stage.server.request
    assert (len(request.data), request.ended) == (10, False)
    request.crediting = True
    request.give_back()
    await stage.run()
    assert (request.data, request.ended) == (build_message(b"x" * 20), True)
    stage.server.connection.answer(request)
    await stage.run()
    assert rpc.end == (0, "")
    check_at_rest(stage)


@on_loop
async def test_connection_without_any_rpc_of_the_app_is_idle(codec: type[Codec]) -> None:
    stage = await started(codec, connection=ConnectionSettings(eager=False, idle_timeout=5))
    call = stage.app().call(end=True)
    await stage.run()
    stage.server.connection.answer(stage.server.request)
    await stage.run()
    assert call.status == 0
    rpc = Heard(connection_of(stage))
    assert rpc.start(PATH, b"")
    await stage.advance(11)
    assert rpc.end == (14, "the connection is closing: idle")
    assert stage.leaks() == []
