"""The negative servers of gRPC's HTTP/2 interoperability tests, scripted; the sidecar is the client under test."""

from __future__ import annotations

from concurrent import futures

import pytest
from hyperframe.frame import DataFrame, PingFrame, WindowUpdateFrame

from sidecar.proxy.settings import Http2Settings
from tests.adversity.bench import Lane
from tests.adversity.wire import CANCEL, HEAD, OK, PROTOCOL_ERROR, Wire, message
from tests.services import echo

MAX_CONCURRENT_STREAMS = 3


def _serve(wire: Wire) -> None:
    """Echo unary RPCs in order, for ever."""
    wire.greet()
    while True:
        _serve_one(wire)


def _serve_one(wire: Wire) -> int:
    stream, _ = wire.expect_request()
    body = wire.expect_body(stream)
    wire.send(wire.headers(stream, HEAD), wire.data(stream, body), wire.headers(stream, OK, end=True))
    return stream


def test_goaway_after_the_first_rpc_sends_the_next_ones_over_a_new_connection(lane: Lane) -> None:
    connections: list[int] = []

    def goaway_after_one(wire: Wire) -> None:
        wire.greet()
        connections.append(1)
        stream = _serve_one(wire)
        wire.send(wire.goaway(stream))
        wire.wait_closed()

    with lane.serving(goaway_after_one):
        channel = lane.channel()
        replies = [echo(channel, b"%d" % number) for number in range(5)]
    assert [(reply.status, reply.message) for reply in replies] == [("OK", b"%d" % number) for number in range(5)]
    assert len(connections) >= len(replies)


@pytest.mark.parametrize("code", [PROTOCOL_ERROR, CANCEL])
@pytest.mark.parametrize("sent", ["head", "half of a message", "whole message"])
def test_reset_in_a_response_delivers_what_was_sent_and_then_an_error(lane: Lane, code: int, sent: str) -> None:
    whole = message(b"answer")
    data = {"head": b"", "half of a message": whole[:7], "whole message": whole}[sent]

    def reset(wire: Wire) -> None:
        wire.greet()
        stream, _ = wire.expect_request()
        wire.send(wire.headers(stream, HEAD))
        if data:
            wire.send(wire.data(stream, data))
        wire.send(wire.reset(stream, code))
        _serve_one(wire)

    with lane.serving(reset):
        app = lane.dial()
        seen = app.response(app.request(body=b"question"))
        assert seen.data == data
        assert seen.status == {PROTOCOL_ERROR: 13, CANCEL: 1}[code]
        assert f"127.0.0.1:{lane.upstream_port}" in seen.text
        assert seen.trailers is not None
        assert seen.ended
        assert app.response(app.request(body=b"again")).status == 0


def test_reset_after_head_reaches_grpcio_as_an_error_that_names_the_upstream(lane: Lane) -> None:
    def reset(wire: Wire) -> None:
        wire.greet()
        stream, _ = wire.expect_request()
        wire.send(wire.headers(stream, HEAD), wire.reset(stream, PROTOCOL_ERROR))
        wire.wait_closed()

    with lane.serving(reset):
        reply = echo(lane.channel())
    assert reply.status == "INTERNAL"
    assert f"127.0.0.1:{lane.upstream_port}" in reply.details


def test_pings_are_answered_between_the_frames_of_a_response(lane: Lane) -> None:
    def ping(wire: Wire) -> None:
        wire.greet()
        wire.round_trip(b"opening")
        stream, _ = wire.expect_request()
        wire.round_trip(b"request")
        wire.send(wire.headers(stream, HEAD))
        wire.round_trip(b"head")
        wire.send(wire.data(stream, message(b"answer")))
        wire.round_trip(b"data")
        wire.send(wire.headers(stream, OK, end=True))
        wire.round_trip(b"trailers")

    with lane.serving(ping):
        reply = echo(lane.channel())
    assert (reply.status, reply.message) == ("OK", b"answer")


def test_no_more_streams_are_opened_on_a_connection_than_the_peer_allows(lane: Lane) -> None:
    open_at_once = []

    def limited(wire: Wire) -> None:
        """Answer each RPC only after a round trip, in which more could come if more were sent."""
        wire.greet({0x3: MAX_CONCURRENT_STREAMS})
        opened: list[int] = []
        while True:
            frame = wire.receive()
            if isinstance(frame, DataFrame) and "END_STREAM" in frame.flags:
                opened.append(frame.stream_id)
                open_at_once.append(len(opened))
                wire.send(PingFrame(0, b"anymore?"))
            elif isinstance(frame, PingFrame) and "ACK" in frame.flags:
                wire.answer(opened.pop(0), b"answer")

    with lane.serving(limited), futures.ThreadPoolExecutor(20) as pool:
        channel = lane.channel()
        replies = list(pool.map(lambda _: echo(channel), range(60)))
    assert {(reply.status, reply.details) for reply in replies} == {("OK", "")}
    assert len(open_at_once) == len(replies)
    assert max(open_at_once) <= MAX_CONCURRENT_STREAMS


def test_padding_of_data_is_dropped_and_its_credit_given_back(lane: Lane) -> None:
    payload = bytes(range(256)) * 100  # padded, more than a stream window

    def padded(wire: Wire) -> None:
        wire.greet()
        stream, _ = wire.expect_request()
        wire.send(wire.headers(stream, HEAD))
        window = Http2Settings().stream_window  # of the sidecar, without which nothing may be sent
        whole = message(payload)
        for start in range(0, len(whole), 5):
            if window < 5 + 256:
                window += wire.expect(WindowUpdateFrame, stream).window_increment
            wire.send(wire.data(stream, whole[start : start + 5], padding=255))
            window -= 5 + 256
        wire.send(wire.headers(stream, OK, end=True))
        wire.wait_closed()

    with lane.serving(padded):
        reply = echo(lane.channel())
    assert reply.status == "OK"
    assert reply.message == payload
