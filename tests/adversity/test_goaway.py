"""GOAWAY and REFUSED_STREAM at every place of an RPC: what was not processed is tried elsewhere, unseen by the app."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hyperframe.frame import DataFrame, RstStreamFrame

from tests.adversity.bench import Lane
from tests.adversity.wire import (
    ENHANCE_YOUR_CALM,
    HEAD,
    NO_ERROR,
    OK,
    REFUSED_STREAM,
    WINDOW,
    Wire,
    message,
)
from tests.services import echo

PARTS = 4  # request head, request data, response head and data, trailers: five gaps


def _serve(wire: Wire) -> None:
    """Echo unary RPCs in order, for ever."""
    wire.greet()
    while True:
        _serve_one(wire)


def _serve_one(wire: Wire) -> None:
    stream, _ = wire.expect_request()
    body = wire.expect_body(stream)
    wire.send(wire.headers(stream, HEAD), wire.data(stream, body), wire.headers(stream, OK, end=True))


def _say_goaway_at(gap: int, say: Callable[[Wire, int], None], keep: bool) -> Callable[[Wire], None]:
    """Serve one RPC, and `say` goodbye in one of the gaps between its frames; then serve no other one."""

    def script(wire: Wire) -> None:
        wire.greet()
        if gap == 0:
            say(wire, 1)
        stream, _ = wire.expect_request()
        if gap == 1:
            say(wire, stream)
        body = wire.expect_body(stream)
        if gap == 2:
            say(wire, stream)
        if not keep and gap <= 2:
            wire.wait_closed()
        wire.send(wire.headers(stream, HEAD))
        if gap == 3:
            say(wire, stream)
        wire.send(wire.data(stream, body))
        if gap == 4:
            say(wire, stream)
        wire.send(wire.headers(stream, OK, end=True))
        if gap == 5:
            say(wire, stream)
        wire.wait_closed()

    return script


def _once(last: Callable[[int], int], code: int) -> Callable[[Wire, int], None]:
    def say(wire: Wire, stream: int) -> None:
        wire.send(wire.goaway(last(stream), code, b"going"))
        wire.round_trip()

    return say


def _twice(wire: Wire, stream: int) -> None:
    """The graceful way: announce, wait for a round trip, name the last stream."""
    wire.send(wire.goaway(WINDOW))
    wire.round_trip()
    wire.send(wire.goaway(stream))
    wire.round_trip()


KEEPS = {
    "last stream is the RPC": _once(lambda stream: stream, NO_ERROR),
    "two steps": _twice,
    "no last stream yet": _once(lambda _: WINDOW, NO_ERROR),
    "too many pings": _once(lambda stream: stream, ENHANCE_YOUR_CALM),
}


@pytest.mark.parametrize("gap", range(PARTS + 2))
@pytest.mark.parametrize("kind", KEEPS)
def test_goaway_that_covers_the_rpc_lets_it_finish(lane: Lane, gap: int, kind: str) -> None:
    with lane.serving(_say_goaway_at(gap, KEEPS[kind], keep=True), _serve):
        channel = lane.channel()
        for number in range(3):
            reply = echo(channel, b"%d" % number)
            assert (reply.status, reply.message) == ("OK", b"%d" % number), reply.details


@pytest.mark.parametrize("gap", range(3))
@pytest.mark.parametrize("code", [NO_ERROR, ENHANCE_YOUR_CALM])
def test_goaway_below_the_rpc_sends_it_over_another_connection(lane: Lane, gap: int, code: int) -> None:
    say = _once(lambda _: 0, code)
    with lane.serving(_say_goaway_at(gap, say, keep=False), _serve):
        channel = lane.channel()
        for number in range(3):
            reply = echo(channel, b"%d" % number)
            assert (reply.status, reply.message) == ("OK", b"%d" % number), reply.details


def test_goaway_between_the_messages_of_a_request_replays_all_of_them(lane: Lane) -> None:
    def refuse(wire: Wire) -> None:
        wire.greet()
        stream, _ = wire.expect_request()
        wire.expect(DataFrame, stream)
        wire.send(wire.goaway(0))
        wire.wait_closed()

    def serve(wire: Wire) -> None:
        wire.greet()
        stream, _ = wire.expect_request()
        first = wire.expect(DataFrame, stream)
        replayed.append(first.data)
        wire.send(wire.headers(stream, HEAD))
        rest = wire.expect_body(stream)
        wire.send(wire.data(stream, first.data + rest), wire.headers(stream, OK, end=True))

    replayed: list[bytes] = []
    with lane.serving(refuse, serve):
        app = lane.dial()
        stream = app.request()
        app.send(app.data(stream, message(b"first")))
        app.expect_response_head(stream)
        app.send(app.data(stream, message(b"second"), end=True))
        seen = app.response(stream)
    assert replayed == [message(b"first")]
    assert (seen.data, seen.status) == (message(b"first") + message(b"second"), 0)


def test_one_refusal_is_retried_without_the_app_noticing(lane: Lane) -> None:
    attempts: list[Any] = []

    def refuse_once(wire: Wire) -> None:
        wire.greet()
        while True:
            stream, fields = wire.expect_request()
            attempts.append(dict(fields))
            body = wire.expect_body(stream)
            if len(attempts) == 1:
                wire.send(wire.reset(stream, REFUSED_STREAM))
            else:
                wire.send(wire.headers(stream, HEAD), wire.data(stream, body), wire.headers(stream, OK, end=True))

    with lane.serving(refuse_once):
        reply = echo(lane.channel(), b"once more")
    assert (reply.status, reply.message) == ("OK", b"once more")
    assert len(attempts) == 2
    assert b"grpc-previous-rpc-attempts" not in attempts[0]


def test_lasting_refusal_is_unavailable_and_says_so(lane: Lane) -> None:
    attempts = []

    def refuse(wire: Wire) -> None:
        wire.greet()
        while True:
            stream, _ = wire.expect_request()
            attempts.append(stream)
            wire.send(wire.reset(stream, REFUSED_STREAM))

    with lane.serving(refuse):
        reply = echo(lane.channel())
    assert reply.status == "UNAVAILABLE"
    assert "refused" in reply.details
    assert f"127.0.0.1:{lane.upstream_port}" in reply.details
    assert len(attempts) == 2, "one immediate retry, then the answer (RT-06)"


def test_refusal_after_the_response_began_is_not_retried(lane: Lane) -> None:
    attempts = []

    def refuse_late(wire: Wire) -> None:
        wire.greet()
        while True:
            stream, _ = wire.expect_request()
            attempts.append(stream)
            wire.send(wire.headers(stream, HEAD), wire.data(stream, message(b"half")))
            wire.round_trip()
            wire.send(wire.reset(stream, REFUSED_STREAM))

    with lane.serving(refuse_late):
        app = lane.dial()
        seen = app.response(app.request(body=b"question"))
    assert (seen.data, seen.status) == (message(b"half"), 14)
    assert len(attempts) == 1


def test_a_refused_stream_is_never_shown_to_the_app_as_refused(lane: Lane) -> None:
    """The app would try again by itself what may have been served (RFC 9113 section 8.7)."""

    def lose(wire: Wire) -> None:
        wire.greet()
        wire.expect_request()
        wire.close(reset=True)

    with lane.serving(lose):
        app = lane.dial()
        seen = app.response(app.request(body=b"question"))
    assert seen.status == 14
    resets = [frame.error_code for frame in app.received if isinstance(frame, RstStreamFrame)]
    assert REFUSED_STREAM not in resets


def test_goaway_before_the_first_rpc_costs_no_rpc(lane: Lane) -> None:
    def leave_at_once(wire: Wire) -> None:
        wire.greet()
        wire.send(wire.goaway(0, NO_ERROR, b"max_age"))
        wire.wait_closed()

    with lane.serving(leave_at_once, leave_at_once, _serve):
        reply = echo(lane.channel(), b"patience")
    assert (reply.status, reply.message) == ("OK", b"patience"), reply.details
