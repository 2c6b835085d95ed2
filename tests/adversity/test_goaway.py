"""GOAWAY and REFUSED_STREAM at every place of an RPC: what was not processed is tried elsewhere, unseen by the app."""

from __future__ import annotations

from typing import Any

import pytest
from hyperframe.frame import DataFrame, RstStreamFrame

from tests.adversity.bench import Lane
from tests.adversity.goaway import GOODBYES, POSITIONS, Goodbye, script, serve
from tests.adversity.wire import HEAD, NO_ERROR, OK, REFUSED_STREAM, Wire, message
from tests.services import echo


@pytest.mark.parametrize("position", range(len(POSITIONS)), ids=POSITIONS)
@pytest.mark.parametrize("goodbye", GOODBYES, ids=lambda goodbye: goodbye.name)
def test_goaway_at_every_place_of_an_rpc_ends_it_in_the_one_allowed_way(
    lane: Lane, goodbye: Goodbye, position: int
) -> None:
    with lane.serving(script(goodbye, position), serve):
        channel = lane.channel()
        first, *others = [echo(channel, b"%d" % number) for number in range(3)]
    assert first.status == goodbye.allowed(position), first.details
    if first.status != "OK":
        assert first.details.startswith(f"sidecar: {lane.service}: 127.0.0.1:{lane.upstream_port} ")
        assert first.details.endswith("; attempts: 1")
    for number, reply in enumerate(others, 1):
        assert (reply.status, reply.message) == ("OK", b"%d" % number), reply.details


def test_goaway_between_the_messages_of_a_request_replays_all_of_them(lane: Lane) -> None:
    def refuse(wire: Wire) -> None:
        wire.greet()
        stream, _ = wire.expect_request()
        wire.expect(DataFrame, stream)
        wire.send(wire.goaway(0))
        wire.wait_closed()

    def serve_slowly(wire: Wire) -> None:
        wire.greet()
        stream, _ = wire.expect_request()
        first = wire.expect(DataFrame, stream)
        replayed.append(first.data)
        wire.send(wire.headers(stream, HEAD))
        rest = wire.expect_body(stream)
        wire.send(wire.data(stream, first.data + rest), wire.headers(stream, OK, end=True))

    replayed: list[bytes] = []
    with lane.serving(refuse, serve_slowly):
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
        wire.greet(None, wire.goaway(0, NO_ERROR, b"max_age"))
        wire.wait_closed()

    with lane.serving(leave_at_once, leave_at_once, serve):
        reply = echo(lane.channel(), b"patience")
    assert (reply.status, reply.message) == ("OK", b"patience"), reply.details
