"""Every shape a response can have reaches the app as it was: order, halves, trailers or none (1.6, GR-30..GR-34)."""

from __future__ import annotations

import threading

import pytest
from hyperframe.frame import DataFrame, RstStreamFrame

from tests.adversity.bench import Lane
from tests.adversity.wire import CANCEL, HEAD, NO_ERROR, OK, PATIENCE, PROTOCOL_ERROR, Response, Wire, message
from tests.services import echo

TRAILERS_ONLY = (*HEAD, (b"grpc-status", b"9"), (b"grpc-message", b"not%20today"), (b"shard", b"7"))


def _exchange(lane: Lane, script: object, body: bytes | None = b"question") -> Response:
    """What the app hears of one RPC."""
    with lane.serving(script):  # type: ignore[arg-type]
        app = lane.dial()
        return app.response(app.request(body=body))


def test_trailers_only_response_stays_trailers_only(lane: Lane) -> None:
    def refuse(wire: Wire) -> None:
        wire.greet()
        stream, _ = wire.expect_request()
        wire.expect_body(stream)
        wire.send(wire.headers(stream, TRAILERS_ONLY, end=True))
        wire.wait_closed()

    seen = _exchange(lane, refuse)
    assert seen.trailers_only
    assert seen.head == list(TRAILERS_ONLY)


@pytest.mark.parametrize("apart", [False, True], ids=["in one write", "a round trip apart"])
def test_head_data_and_trailers_arrive_as_they_were_sent(lane: Lane, apart: bool) -> None:
    trailers = ((b"grpc-status", b"0"), (b"b", b"2"), (b"a", b"1"), (b"b", b"3"), (b"x-bin", b"AAEC/w=="))
    head = (*HEAD, (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"odd", b"\x80\xff"))

    def respond(wire: Wire) -> None:
        wire.greet()
        stream, _ = wire.expect_request()
        frames = [wire.headers(stream, head), wire.data(stream, message(b"answer"))]
        frames.append(wire.headers(stream, trailers, end=True))
        if not apart:
            wire.send(*frames)
        for frame in frames if apart else ():
            wire.send(frame)
            wire.round_trip()
        wire.wait_closed()

    seen = _exchange(lane, respond)
    assert seen.head == list(head)
    assert seen.data == message(b"answer")
    assert seen.trailers == list(trailers)
    assert seen.reset in (None, NO_ERROR)


def test_response_without_a_message_keeps_its_separate_head_and_trailers(lane: Lane) -> None:
    def respond(wire: Wire) -> None:
        wire.greet()
        stream, _ = wire.expect_request()
        wire.send(wire.headers(stream, HEAD), wire.headers(stream, ((b"grpc-status", b"5"),), end=True))
        wire.wait_closed()

    seen = _exchange(lane, respond)
    assert (seen.trailers_only, seen.data, seen.trailers) == (False, b"", [(b"grpc-status", b"5")])


@pytest.mark.parametrize("empty", [False, True], ids=["on the last DATA", "on an empty DATA"])
def test_response_without_trailers_is_passed_on_as_it_is(lane: Lane, empty: bool) -> None:
    def respond(wire: Wire) -> None:
        wire.greet()
        stream, _ = wire.expect_request()
        wire.send(wire.headers(stream, HEAD), wire.data(stream, message(b"answer"), end=not empty))
        if empty:
            wire.send(wire.data(stream, b"", end=True))
        wire.wait_closed()

    seen = _exchange(lane, respond)
    assert (seen.data, seen.trailers, seen.ended, seen.status) == (message(b"answer"), None, True, None)


def test_early_response_reaches_the_app_whole_and_both_streams_are_freed(lane: Lane) -> None:
    """H2-62: the server ends before the app has; the rest of the request is not wanted, and nobody is to blame."""

    def answer_early(wire: Wire) -> None:
        wire.greet()
        stream, _ = wire.expect_request()
        wire.expect(DataFrame, stream)
        wire.answer(stream, b"enough")
        reset = wire.expect(RstStreamFrame, stream)
        assert reset.error_code == NO_ERROR
        _serve_one(wire)

    with lane.serving(answer_early):
        app = lane.dial()
        stream = app.request()
        app.send(app.data(stream, message(b"first of many")))
        seen = app.response(stream)
        assert (seen.data, seen.status, seen.ended) == (message(b"enough"), 0, True)
        assert app.expect(RstStreamFrame, stream).error_code == NO_ERROR
        app.send(app.data(stream, message(b"sent before it knew")))
        assert app.response(app.request(body=b"next")).status == 0


def _serve_one(wire: Wire) -> None:
    stream, _ = wire.expect_request()
    body = wire.expect_body(stream)
    wire.send(wire.headers(stream, HEAD), wire.data(stream, body), wire.headers(stream, OK, end=True))


def test_response_flows_on_after_the_app_has_ended_its_half(lane: Lane) -> None:
    def respond_after(wire: Wire) -> None:
        wire.greet()
        stream, _ = wire.expect_request()
        assert wire.expect_body(stream) == message(b"question")
        wire.send(wire.headers(stream, HEAD))
        for number in range(5):
            wire.send(wire.data(stream, message(b"%d" % number)))
            wire.round_trip()
        wire.send(wire.headers(stream, OK, end=True))
        wire.wait_closed()

    seen = _exchange(lane, respond_after)
    assert seen.data == b"".join(message(b"%d" % number) for number in range(5))
    assert seen.status == 0


def test_request_flows_on_after_the_response_has_begun(lane: Lane) -> None:
    def echo_each(wire: Wire) -> None:
        wire.greet()
        stream, _ = wire.expect_request()
        wire.send(wire.headers(stream, HEAD))
        for _ in range(5):
            wire.send(wire.data(stream, wire.expect(DataFrame, stream).data))
        assert wire.expect(DataFrame, stream).data == b""
        wire.send(wire.headers(stream, OK, end=True))
        wire.wait_closed()

    with lane.serving(echo_each):
        app = lane.dial()
        stream = app.request()
        app.expect_response_head(stream)
        for number in range(5):
            app.send(app.data(stream, message(b"%d" % number)))
            assert app.expect(DataFrame, stream).data == message(b"%d" % number)
        app.send(app.data(stream, b"", end=True))
        trailers = app.expect_response_head(stream)
    assert trailers == list(OK)


def test_end_of_the_request_reaches_the_server_as_such_with_or_without_data(lane: Lane) -> None:
    def check(wire: Wire) -> None:
        wire.greet()
        for _ in range(2):
            stream, _ = wire.expect_request()
            bodies.append(wire.expect_body(stream))
            wire.answer(stream)
        assert not [frame for frame in wire.received if isinstance(frame, RstStreamFrame)]

    bodies: list[bytes] = []
    with lane.serving(check):
        app = lane.dial()
        assert app.response(app.request(body=b"with the last message")).status == 0
        stream = app.request()
        app.send(app.data(stream, message(b"earlier")))
        app.round_trip()
        app.send(app.data(stream, b"", end=True))
        assert app.response(stream).status == 0
    assert bodies == [message(b"with the last message"), message(b"earlier")]


def test_informational_heads_come_first_and_in_order(lane: Lane) -> None:
    def inform(wire: Wire) -> None:
        wire.greet()
        stream, _ = wire.expect_request()
        wire.send(wire.headers(stream, ((b":status", b"103"), (b"link", b"</a>"))))
        wire.send(wire.headers(stream, ((b":status", b"102"),)))
        wire.round_trip()
        wire.answer(stream, b"answer")
        wire.wait_closed()

    seen = _exchange(lane, inform)
    assert [dict(head)[b":status"] for head in seen.informational] == [b"103", b"102"]
    assert (seen.data, seen.status) == (message(b"answer"), 0)


def test_reset_without_error_after_a_complete_response_takes_nothing_away(lane: Lane) -> None:
    def finish_and_reset(wire: Wire) -> None:
        wire.greet()
        stream, _ = wire.expect_request()
        wire.send(
            wire.headers(stream, HEAD),
            wire.data(stream, message(b"a" * 50_000)[:16_000]),
            wire.data(stream, message(b"a" * 50_000)[16_000:32_000]),
            wire.data(stream, message(b"a" * 50_000)[32_000:48_000]),
            wire.data(stream, message(b"a" * 50_000)[48_000:]),
            wire.headers(stream, OK, end=True),
            wire.reset(stream, NO_ERROR),
        )
        wire.wait_closed()

    with lane.serving(finish_and_reset):
        app = lane.dial()
        stream = app.request()
        seen = app.response(stream)
    assert (seen.data, seen.status) == (message(b"a" * 50_000), 0)


def test_cancel_of_the_app_reaches_the_server_and_frees_its_stream(lane: Lane) -> None:
    def hold(wire: Wire) -> None:
        wire.greet()
        stream, _ = wire.expect_request()
        arrived.set()
        reset = wire.expect(RstStreamFrame, stream)
        codes.append(reset.error_code)
        _serve_one(wire)

    codes: list[int] = []
    arrived = threading.Event()
    with lane.serving(hold):
        app = lane.dial()
        stream = app.request()
        app.send(app.data(stream, message(b"question")))
        assert arrived.wait(PATIENCE)
        app.send(app.reset(stream, CANCEL))
        assert app.response(app.request(body=b"next")).status == 0
    assert codes == [CANCEL]


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
def test_loss_of_the_apps_connection_cancels_every_stream_of_it(lane: Lane, reset: bool) -> None:
    def hold(wire: Wire) -> None:
        wire.greet()
        streams = {wire.expect_request()[0] for _ in range(3)}
        arrived.set()
        while streams:
            frame = wire.expect(RstStreamFrame)
            assert frame.error_code == CANCEL
            streams.discard(frame.stream_id)
        _serve_one(wire)

    arrived = threading.Event()
    with lane.serving(hold):
        app = lane.dial()
        for _ in range(3):
            app.request()
        assert arrived.wait(PATIENCE)
        app.close(reset=reset)
        assert echo(lane.channel()).status == "OK"


@pytest.mark.parametrize("code", [PROTOCOL_ERROR, 2, 11, 0xFF])
def test_every_other_reset_of_the_app_is_a_cancel_for_the_server(lane: Lane, code: int) -> None:
    def hold(wire: Wire) -> None:
        wire.greet()
        stream, _ = wire.expect_request()
        arrived.set()
        codes.append(wire.expect(RstStreamFrame, stream).error_code)
        _serve_one(wire)

    codes: list[int] = []
    arrived = threading.Event()
    with lane.serving(hold):
        app = lane.dial()
        stream = app.request()
        assert arrived.wait(PATIENCE)
        app.send(app.reset(stream, code))
        assert app.response(app.request(body=b"next")).status == 0
    assert codes == [CANCEL]
