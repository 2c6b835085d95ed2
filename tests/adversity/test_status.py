"""Every row of the status tables that can be provoked from outside, with its text (6.1-6.3, GR-20..GR-24, D18)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures

import pytest
from hyperframe.frame import DataFrame, RstStreamFrame

from tests.adversity.bench import Bench, Lane
from tests.adversity.conftest import check_unharmed
from tests.adversity.wire import HEAD, NO_ERROR, OK, REQUEST, Wire, message
from tests.processes import wait_until
from tests.services import echo

RESET_TO_STATUS = {**dict.fromkeys((0, 1, 2, 3, 4, 5, 6, 9, 10, 13, 0xDEAD), 13), 8: 1, 11: 8, 12: 7}
PIECES = {"no data": b"", "a message": message(b"one"), "half a message": message(b"one")[:6]}
HTTP_TO_GRPCIO = {
    400: "INTERNAL",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "UNIMPLEMENTED",
    429: "UNAVAILABLE",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "UNAVAILABLE",
    500: "UNKNOWN",
    418: "UNKNOWN",
}


def _address(lane: Lane) -> str:
    return f"127.0.0.1:{lane.upstream_port}"


@pytest.mark.parametrize("code", RESET_TO_STATUS)
def test_reset_before_the_head_is_a_trailers_only_answer_with_the_mapped_status(lane: Lane, code: int) -> None:
    def reset(wire: Wire) -> None:
        wire.greet()
        stream, _ = wire.expect_request()
        wire.expect_body(stream)
        wire.send(wire.reset(stream, code))
        wire.wait_closed()

    with lane.serving(reset):
        app = lane.dial()
        seen = app.response(app.request(body=b"question"))
    assert (seen.status, seen.trailers_only) == (RESET_TO_STATUS[code], True)
    assert seen.head is not None
    assert dict(seen.head)[b":status"] == b"200"
    assert dict(seen.head)[b"content-type"] == b"application/grpc"
    assert _address(lane) in seen.text
    assert "sidecar" in seen.text


def test_answer_made_for_an_app_that_still_sends_is_followed_by_a_reset_without_error(lane: Lane) -> None:
    def reset(wire: Wire) -> None:
        wire.greet()
        stream, _ = wire.expect_request()
        wire.send(wire.reset(stream, 2))
        wire.wait_closed()

    with lane.serving(reset):
        app = lane.dial()
        stream = app.request()
        assert app.response(stream).status == 13
        assert app.expect(RstStreamFrame, stream).error_code == NO_ERROR


def test_content_type_of_the_request_returns_in_an_answer_of_ours(lane: Lane) -> None:
    def reset(wire: Wire) -> None:
        wire.greet()
        stream, _ = wire.expect_request()
        wire.send(wire.reset(stream, 2))
        wire.wait_closed()

    with lane.serving(reset):
        app = lane.dial()
        head = tuple((name, b"application/grpc+proto" if name == b"content-type" else value) for name, value in REQUEST)
        assert app.response(app.request(head, body=b"")).get(b"content-type") == b"application/grpc+proto"


@pytest.mark.parametrize("http", HTTP_TO_GRPCIO)
def test_http_answer_without_grpc_status_is_passed_on_for_the_client_to_judge(lane: Lane, http: int) -> None:
    head = ((b":status", b"%d" % http), (b"content-type", b"text/html"))

    def respond(wire: Wire) -> None:
        wire.greet()
        while True:
            stream, _ = wire.expect_request()
            wire.send(wire.headers(stream, head), wire.data(stream, b"<html>no", end=True))

    with lane.serving(respond):
        app = lane.dial()
        seen = app.response(app.request(body=b""))
        assert (seen.head, seen.data, seen.trailers) == (list(head), b"<html>no", None)
        assert echo(lane.channel()).status == HTTP_TO_GRPCIO[http]


@pytest.mark.parametrize("http", [b"200", b"503"])
def test_grpc_status_wins_over_the_http_status(lane: Lane, http: bytes) -> None:
    head = ((b":status", http), (b"content-type", b"application/grpc"), (b"grpc-status", b"5"))

    def respond(wire: Wire) -> None:
        wire.greet()
        stream, _ = wire.expect_request()
        wire.send(wire.headers(stream, head, end=True))
        wire.wait_closed()

    with lane.serving(respond):
        app = lane.dial()
        seen = app.response(app.request(body=b""))
    assert (seen.head, seen.trailers_only) == (list(head), True)


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
def test_connection_lost_before_the_head_is_unavailable(lane: Lane, reset: bool) -> None:
    def lose(wire: Wire) -> None:
        wire.greet()
        stream, _ = wire.expect_request()
        wire.expect_body(stream)
        wire.close(reset=reset)

    with lane.serving(lose):
        app = lane.dial()
        seen = app.response(app.request(body=b"question"))
    assert (seen.status, seen.trailers_only) == (14, True)
    assert _address(lane) in seen.text


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("piece", PIECES)
def test_connection_lost_after_the_head_is_unavailable_after_what_was_received(
    lane: Lane, reset: bool, piece: str
) -> None:
    data = PIECES[piece]

    def lose(wire: Wire) -> None:
        wire.greet()
        stream, _ = wire.expect_request()
        wire.expect_body(stream)
        wire.send(wire.headers(stream, HEAD), wire.data(stream, data))
        wire.round_trip()
        wire.close(reset=reset)

    with lane.serving(lose):
        app = lane.dial()
        seen = app.response(app.request(body=b"question"))
    assert (seen.status, seen.trailers_only, seen.data, seen.ended) == (14, False, data, True)


def test_refused_connection_is_unavailable_and_names_address_and_cause(lane: Lane) -> None:
    lane.listener.close()
    reply = echo(lane.channel())
    assert reply.status == "UNAVAILABLE"
    assert _address(lane) in reply.details
    assert "refused" in reply.details


def test_upstream_that_is_no_http2_server_is_unavailable(lane: Lane) -> None:
    def speak_http1(wire: Wire) -> None:
        wire.send_raw(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
        wire.close()

    with lane.serving(speak_http1):
        reply = echo(lane.channel())
    assert reply.status == "UNAVAILABLE"
    assert _address(lane) in reply.details


def test_head_larger_than_the_upstream_accepts_is_resource_exhausted_and_not_sent(lane: Lane) -> None:
    heads = []

    def small(wire: Wire) -> None:
        wire.greet({0x6: 1000})
        while True:
            stream, fields = wire.expect_request()
            heads.append(fields)
            wire.answer(stream)

    with lane.serving(small):
        app = lane.dial()
        assert app.response(app.request(body=b"")).status == 0
        seen = app.response(app.request((*REQUEST, (b"x-large", b"x" * 2000)), body=b""))
        assert seen.status == 8
        assert app.response(app.request(body=b"")).status == 0
    assert len(heads) == 2


def test_cancel_by_the_server_is_cancelled(lane: Lane) -> None:
    def cancel(wire: Wire) -> None:
        wire.greet()
        stream, _ = wire.expect_request()
        wire.send(wire.reset(stream, 8))
        wire.wait_closed()

    with lane.serving(cancel):
        assert echo(lane.channel()).status == "CANCELLED"


@pytest.fixture
def tight(bench: Bench) -> Iterator[Lane]:
    """A lane whose upstream may hold very little."""
    limits = {"max_in_flight": 4, "max_queued": 2, "queue_timeout": "300ms"}
    (lane,) = bench.open(connection={"max_connections": 1, "connect_timeout": "30s"}, limits=limits)
    yield lane
    lane.close()
    check_unharmed(lane.sidecar)


def test_rpcs_above_the_in_flight_limit_are_refused_at_once_with_the_limit_in_the_text(tight: Lane) -> None:
    full = threading.Event()
    release = threading.Event()

    def hold(wire: Wire) -> None:
        wire.greet()
        wire.answer(wire.expect(DataFrame).stream_id, b"connected")
        streams = [wire.expect(DataFrame).stream_id for _ in range(4)]
        full.set()
        release.wait(20)
        for stream in streams:
            wire.answer(stream)
        wire.wait_closed()

    with tight.serving(hold), futures.ThreadPoolExecutor(4) as pool:
        channel = tight.channel()
        assert echo(channel).message == b"connected"
        held = [pool.submit(echo, channel) for _ in range(4)]
        assert full.wait(20)
        reply = echo(channel)
        release.set()
        assert [each.result().status for each in held] == ["OK"] * 4
    assert reply.status == "UNAVAILABLE"
    assert "4" in reply.details
    assert "limit" in reply.details
    assert wait_until(lambda: tight.sidecar.clusters()[tight.service], "clusters")


def test_queue_is_bounded_in_count_and_in_time_and_says_which(tight: Lane) -> None:
    """The upstream accepts the connection and stays silent: two RPCs may wait, the third may not."""
    app = tight.dial()
    streams = [app.request(body=b"") for _ in range(3)]
    refused = app.response(streams[2])
    assert refused.status == 14
    assert "2" in refused.text
    waited = app.response(streams[0])
    assert waited.status == 14
    assert "connect" in waited.text
    assert waited.text != refused.text


def test_ok_after_trouble_is_ok(lane: Lane) -> None:
    def trouble(wire: Wire) -> None:
        wire.close(reset=True)

    def serve(wire: Wire) -> None:
        wire.greet()
        while True:
            stream, _ = wire.expect_request()
            body = wire.expect_body(stream)
            wire.send(wire.headers(stream, HEAD), wire.data(stream, body), wire.headers(stream, OK, end=True))

    with lane.serving(trouble, trouble, serve):
        channel = lane.channel()
        wait_until(lambda: echo(channel).status == "OK", "an RPC succeeds once the upstream behaves")
