"""An app's connection: who may open one, how it begins, and the two steps in which it is asked to go (H2-83)."""

from __future__ import annotations

import pytest

from sidecar.http2.constants import LARGEST_STREAM_ID, NO_ERROR, PREFACE
from sidecar.http2.interface import Codec
from sidecar.proxy.settings import Http2Settings
from tests.proxy.stage import on_loop, started


@pytest.mark.parametrize("piece", [1, 5, 100])
@on_loop
async def test_http1_gets_one_plain_sentence(codec: type[Codec], piece: int) -> None:
    """However its request is cut."""
    stage = await started(codec)
    app = stage.app(speaking=False)
    request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    for start in range(0, len(request), piece):
        app.write(request[start : start + piece])
    await stage.run()
    head, _, body = app.raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 505 HTTP Version Not Supported\r\n")
    assert b"content-length: %d" % len(body) in head
    assert body == (
        b"This port carries gRPC to 'greeter' over HTTP/2 with prior knowledge; HTTP/1 is not served here.\n"
    )
    assert app.lost
    assert stage.listener_metrics.refused == {"http1": 1}
    assert stage.listener.connections == set()


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00\x01", b"SSH-2.0-x\r\n", b"\x00" * 40, PREFACE[:10] + b"!"])
@on_loop
async def test_garbage_gets_the_end_of_the_connection(codec: type[Codec], garbage: bytes) -> None:
    stage = await started(codec)
    app = stage.app(speaking=False)
    app.write(garbage)
    await stage.run()
    assert (app.raw, app.lost) == (b"", True)
    assert stage.listener_metrics.refused == {"not_http2": 1}


@on_loop
async def test_preface_may_come_octet_by_octet(codec: type[Codec]) -> None:
    stage = await started(codec)
    app = stage.app(speaking=False)
    for octet in PREFACE:
        assert app.raw == b""
        app.write(bytes((octet,)))
    await stage.run()
    assert app.raw[3:4] == b"\x04"  # SETTINGS
    assert not app.lost


@pytest.mark.parametrize("sent", [b"", PREFACE[:12]])
@on_loop
async def test_app_that_does_not_finish_its_preface_is_cut(codec: type[Codec], sent: bytes) -> None:
    stage = await started(codec, http2=Http2Settings(preface_timeout=5))
    app = stage.app(speaking=False)
    app.write(sent)
    await stage.advance(4.9)
    assert not app.lost
    await stage.advance(0.2)
    assert app.lost
    assert stage.listener_metrics.refused == {"no_preface": 1}


@on_loop
async def test_connections_beyond_the_limit_are_refused_and_others_served(codec: type[Codec]) -> None:
    stage = await started(codec, http2=Http2Settings(max_connections=2))
    first, _, third = stage.app(), stage.app(), stage.app()
    await stage.run()
    assert third.lost
    assert stage.listener_metrics.refused == {"too_many": 1}
    assert stage.listener_metrics.open == 2
    call = first.call(end=True)
    await stage.run()
    stage.server.connection.answer(stage.server.request)
    await stage.run()
    assert call.status == 0
    first.hang_up()
    await stage.run()
    fourth = stage.app()
    await stage.run()
    assert not fourth.lost


@on_loop
async def test_drain_announces_first_and_names_the_last_id_after_a_round_trip(codec: type[Codec]) -> None:
    """RPCs that were on their way when the app was told are served all the same."""
    stage = await started(codec)
    app = stage.app()
    await stage.run()
    first = app.call(end=True)
    await stage.run()
    stage.listener.drain()
    late = app.call(end=True)  # leaves before the app hears
    app.write(app.codec.data_to_send())
    await stage.run()
    assert app.goaways == [(LARGEST_STREAM_ID, NO_ERROR), (3, NO_ERROR)]
    assert len(stage.server.requests) == 2
    assert not app.lost
    for request in stage.server.requests:
        stage.server.connection.answer(request)
    await stage.run()
    assert (first.status, late.status) == (0, 0)
    assert app.lost
    assert stage.leaks() == []


@on_loop
async def test_drain_of_an_app_that_does_not_answer_pings_goes_on_after_five_seconds(codec: type[Codec]) -> None:
    stage = await started(codec)
    app = stage.app()
    call = app.call(end=True)
    await stage.run()
    app.reading = False
    stage.listener.drain()
    await stage.advance(4.9)
    assert stage.downstream[0].state == "announced"
    await stage.advance(0.2)
    assert stage.downstream[0].state == "last"
    stage.server.connection.answer(stage.server.request)
    app.reading = True
    await stage.run()
    assert call.status == 0
    assert app.lost


@on_loop
async def test_idle_connection_that_is_drained_closes_at_once(codec: type[Codec]) -> None:
    stage = await started(codec)
    app, silent = stage.app(), stage.app(speaking=False)
    await stage.run()
    stage.listener.drain()
    await stage.run()
    assert app.lost
    assert silent.lost


@on_loop
async def test_app_that_dials_while_the_process_ends_is_served_once_and_asked_to_go(codec: type[Codec]) -> None:
    """Refusing it would fail RPCs (RL-02)."""
    stage = await started(codec)
    stage.listener.drain()
    app = stage.app()
    await stage.run()
    call = app.call(end=True)
    await stage.run()
    assert app.goaways == []
    stage.server.connection.answer(stage.server.request)
    await stage.run()
    assert call.status == 0
    assert app.goaways == [(LARGEST_STREAM_ID, NO_ERROR), (1, NO_ERROR)]
    assert app.lost


@on_loop
async def test_connection_error_of_an_app_ends_its_rpcs_and_names_the_error(codec: type[Codec]) -> None:
    stage = await started(codec)
    app, other = stage.app(), stage.app()
    await stage.run()
    app.call()
    kept = other.call(end=True)
    await stage.run()
    app.write(b"\x00\x00\x04\x03\x00\x00\x00\x00\x00\x00\x00\x00\x08")  # RST_STREAM on stream 0
    await stage.run()
    assert app.lost
    assert stage.listener_metrics.protocol_errors == {"PROTOCOL_ERROR": 1}
    assert app.goaways == [(1, 1)]
    assert stage.server.requests[0].reset == 8
    stage.server.connection.answer(stage.server.requests[1])
    await stage.run()
    assert kept.status == 0
    assert stage.leaks() == []
