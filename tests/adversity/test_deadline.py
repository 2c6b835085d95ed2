"""The app's deadline bounds everything, goes upstream as what is left of it, and ends both hops (GR-40..GR-44)."""

from __future__ import annotations

import threading
import time

import pytest
from hyperframe.frame import RstStreamFrame

from tests.adversity.bench import Lane
from tests.adversity.wire import CANCEL, HEAD, OK, REQUEST, Wire, message
from tests.services import echo

UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


def _seconds(value: bytes) -> float:
    return int(value[:-1]) * UNITS[value[-1:]]


def _hold(wire: Wire) -> None:
    """Take an RPC and never answer it; then serve the next."""
    wire.greet()
    stream, _ = wire.expect_request()
    assert wire.expect(RstStreamFrame, stream).error_code == CANCEL
    stream, _ = wire.expect_request()
    wire.answer(stream, b"alive")
    wire.wait_closed()


def test_expiry_answers_the_app_with_four_and_cancels_upstream(lane: Lane) -> None:
    with lane.serving(_hold):
        app = lane.dial()
        seen = app.response(app.request((*REQUEST, (b"grpc-timeout", b"200m")), body=b"question"))
        assert (seen.status, seen.trailers_only) == (4, True)
        assert f"127.0.0.1:{lane.upstream_port}" in seen.text
        assert app.response(app.request(body=b"next")).status == 0


def test_expiry_after_the_head_is_four_in_the_trailers_after_the_data(lane: Lane) -> None:
    def stall(wire: Wire) -> None:
        wire.greet()
        stream, _ = wire.expect_request()
        wire.send(wire.headers(stream, HEAD), wire.data(stream, message(b"half")))
        assert wire.expect(RstStreamFrame, stream).error_code == CANCEL

    with lane.serving(stall):
        app = lane.dial()
        seen = app.response(app.request((*REQUEST, (b"grpc-timeout", b"300m")), body=b"question"))
    assert (seen.status, seen.trailers_only, seen.data) == (4, False, message(b"half"))


def test_grpcio_sees_deadline_exceeded_and_never_unavailable(lane: Lane) -> None:
    with lane.serving(_hold):
        assert echo(lane.channel(), timeout=0.3).status == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize("value", [b"10S", b"9999m", b"99999999u", b"3H", b"59M", b"99999999H", b"77777777n"])
def test_upstream_deadline_is_what_is_left_and_never_later(lane: Lane, value: bytes) -> None:
    seen: list[bytes] = []

    def record(wire: Wire) -> None:
        wire.greet()
        stream, fields = wire.expect_request()
        seen.extend(field for name, field in fields if name == b"grpc-timeout")
        wire.answer(stream)
        wire.wait_closed()

    with lane.serving(record):
        app = lane.dial()
        assert app.response(app.request((*REQUEST, (b"grpc-timeout", value)), body=b"")).status in (0, 4)
    for sent in seen:
        assert len(sent) <= 9
        assert _seconds(sent) <= _seconds(value)
        assert _seconds(sent) > _seconds(value) - 30 - UNITS[sent[-1:]]


def test_time_spent_waiting_for_a_connection_is_taken_off(lane: Lane) -> None:
    waited = threading.Event()
    held = 0.2  # seconds
    seen: list[float] = []

    def hold_settings(wire: Wire) -> None:
        waited.wait(held)
        wire.greet()
        stream, fields = wire.expect_request()
        seen.append(_seconds(dict(fields)[b"grpc-timeout"]))
        wire.answer(stream)
        wire.wait_closed()

    with lane.serving(hold_settings):
        app = lane.dial()
        assert app.response(app.request((*REQUEST, (b"grpc-timeout", b"10S")), body=b"")).status == 0
    assert seen[0] <= 10 - held + 0.001


def test_deadline_passes_while_no_endpoint_answers(lane: Lane) -> None:
    """The upstream accepts and says nothing: the RPC waits for a connection, and its own deadline ends that."""
    app = lane.dial()
    before = time.monotonic()
    seen = app.response(app.request((*REQUEST, (b"grpc-timeout", b"100m")), body=b""))
    assert (seen.status, seen.trailers_only) == (4, True)
    assert time.monotonic() - before >= 0.1 * 0.99


def test_deadline_that_has_passed_already_costs_the_upstream_nothing(lane: Lane) -> None:
    heads: list[object] = []

    def record(wire: Wire) -> None:
        wire.greet()
        while True:
            stream, fields = wire.expect_request()
            heads.append(dict(fields).get(b"grpc-timeout"))
            wire.answer(stream)

    with lane.serving(record):
        app = lane.dial()
        assert app.response(app.request((*REQUEST, (b"grpc-timeout", b"0m")), body=b"")).status == 4
        assert app.response(app.request(body=b"")).status == 0
    assert heads == [None]


@pytest.mark.parametrize("value", [b"", b"1", b"m", b"-1S", b"1s", b"123456789m", b"1 S", b"1.5S"])
def test_malformed_timeout_is_passed_on_untouched_and_sets_no_deadline(lane: Lane, value: bytes) -> None:
    seen: list[bytes] = []

    def record(wire: Wire) -> None:
        wire.greet()
        stream, fields = wire.expect_request()
        seen.append(dict(fields)[b"grpc-timeout"])
        wire.answer(stream)
        wire.wait_closed()

    with lane.serving(record):
        app = lane.dial()
        assert app.response(app.request((*REQUEST, (b"grpc-timeout", value)), body=b"")).status == 0
    assert seen == [value]


def test_complete_answer_that_was_read_before_expiry_is_delivered(lane: Lane) -> None:
    """GR-44: the app reads slowly, and the deadline passes while the answer lies in the sidecar."""
    payload = message(b"a" * 200_000)

    def respond(wire: Wire) -> None:
        wire.greet()
        stream, _ = wire.expect_request()
        wire.send(wire.headers(stream, HEAD))
        for start in range(0, len(payload), 16_384):
            wire.send(wire.data(stream, payload[start : start + 16_384]))
        wire.send(wire.headers(stream, OK, end=True))
        wire.round_trip()
        answered.set()
        wire.wait_closed()

    answered = threading.Event()
    with lane.serving(respond):
        app = lane.dial()
        app.crediting = False
        app.answering = True
        stream = app.request((*REQUEST, (b"grpc-timeout", b"400m")), body=b"question")
        assert answered.wait(20)
        app.expect_response_head(stream)
        time.sleep(0.5)  # the deadline itself passes; there is nothing else to wait for
        app.crediting = True
        app.grant(stream, len(payload))
        seen = app.response(stream)
    assert seen.trailers == list(OK)


def test_no_deadline_is_ever_invented(lane: Lane) -> None:
    heads: list[bytes] = []

    def record(wire: Wire) -> None:
        wire.greet()
        stream, fields = wire.expect_request()
        heads.extend(name for name, _ in fields)
        wire.answer(stream)
        wire.wait_closed()

    with lane.serving(record):
        app = lane.dial()
        assert app.response(app.request(body=b"")).status == 0
    assert b"grpc-timeout" not in heads
