"""SIGTERM ends the sidecar without cutting what runs; a second one ends it at once (RL-02, RL-03, K3)."""

from __future__ import annotations

import signal
import threading

import pytest
from hyperframe.frame import GoAwayFrame, HeadersFrame

from tests.adversity.bench import Bench, Lane
from tests.adversity.wire import HEAD, OK, PATIENCE, WINDOW, Wire, message
from tests.conftest import CODEC_NAMES
from tests.services import echo

RESPONSES = 50  # linkerd's acceptance test: so many, with bodies of 16 KiB
BODY = bytes(16_384)


def _answer_when(released: threading.Event, count: int) -> object:
    """Send `count` heads at once and the rest of each response when released."""

    def script(wire: Wire) -> None:
        wire.greet()
        streams = []
        for _ in range(count):
            stream, _ = wire.expect_request()
            wire.send(wire.headers(stream, HEAD))
            streams.append(stream)
        assert released.wait(PATIENCE)
        for stream in streams:
            wire.send(wire.data(stream, BODY[:8192]), wire.data(stream, BODY[8192:]))
            wire.send(wire.headers(stream, OK, end=True))
        wire.wait_closed()

    return script


@pytest.mark.parametrize("bench", CODEC_NAMES, indirect=True)
def test_every_response_in_flight_at_sigterm_completes_and_then_the_connection_closes(bench: Bench) -> None:
    (lane,) = bench.open()
    released = threading.Event()
    with lane.serving(_answer_when(released, RESPONSES)):  # type: ignore[arg-type]
        app = lane.dial()
        streams = [app.request(end=True) for _ in range(RESPONSES)]
        for stream in streams:
            app.expect_response_head(stream)
        lane.sidecar.signal(signal.SIGTERM)
        first, last = app.expect(GoAwayFrame), app.expect(GoAwayFrame)
        released.set()
        app.wait_closed()
        assert lane.sidecar.wait() == 0
    assert (first.last_stream_id, last.last_stream_id) == (WINDOW, streams[-1])
    bodies = dict.fromkeys(streams, b"")
    ended = set()
    for frame in app.received:
        if frame.stream_id in bodies and hasattr(frame, "data") and not isinstance(frame, HeadersFrame):
            bodies[frame.stream_id] += frame.data
        if isinstance(frame, HeadersFrame) and "END_STREAM" in frame.flags:
            assert frame.fields == list(OK)  # type: ignore[attr-defined]
            ended.add(frame.stream_id)
    assert ended == set(streams)
    assert all(body == BODY for body in bodies.values())
    lane.close()


def test_idle_connection_is_closed_and_the_process_ends_without_waiting_for_its_grace(lane: Lane) -> None:
    app = lane.dial()
    app.round_trip()
    lane.sidecar.signal(signal.SIGTERM)
    app.wait_closed()
    assert lane.sidecar.wait(PATIENCE) == 0, "the grace is 30 s"


def test_rpcs_that_begin_while_it_ends_are_still_served(lane: Lane) -> None:
    """The app may live on for a while: refusing it would fail its RPCs."""
    released = threading.Event()

    def serve(wire: Wire) -> None:
        wire.greet()
        held, _ = wire.expect_request()
        wire.send(wire.headers(held, HEAD))
        for _ in range(3):
            stream, _ = wire.expect_request()
            wire.answer(stream, b"late")
        assert released.wait(PATIENCE)
        wire.send(wire.headers(held, OK, end=True))
        wire.wait_closed()

    with lane.serving(serve):
        app = lane.dial()
        held = app.request(end=True)
        app.expect_response_head(held)
        lane.sidecar.signal(signal.SIGTERM)
        app.expect(GoAwayFrame)
        app.expect(GoAwayFrame)
        for _ in range(3):
            other = lane.dial()
            assert other.response(other.request(end=True)).data == message(b"late")
        released.set()
        assert app.response(held).trailers == list(OK)
        assert lane.sidecar.wait(PATIENCE) == 0


def test_second_sigterm_answers_what_runs_and_ends_at_once(lane: Lane) -> None:
    def hold(wire: Wire) -> None:
        wire.greet()
        stream, _ = wire.expect_request()
        wire.send(wire.headers(stream, HEAD), wire.data(stream, message(b"half")))
        wire.wait_closed()

    with lane.serving(hold):
        app = lane.dial()
        stream = app.request(end=True)
        app.expect_response_head(stream)
        assert app.expect_data(stream) == message(b"half")
        lane.sidecar.signal(signal.SIGTERM)
        app.expect(GoAwayFrame)
        assert lane.sidecar.poll() is None, "an RPC runs"
        lane.sidecar.signal(signal.SIGTERM)
        seen = app.response(stream)
        assert lane.sidecar.wait(PATIENCE) == 0, "the grace is 30 s"
    assert seen.status == 14
    assert "shutting down" in seen.text


def test_grace_bounds_how_long_an_rpc_may_keep_the_process(bench: Bench) -> None:
    (lane,) = bench.open(drain={"grace": "200ms"})

    def hold(wire: Wire) -> None:
        wire.greet()
        wire.wait_closed()

    with lane.serving(hold):
        app = lane.dial()
        stream = app.request(end=True)
        app.round_trip()
        lane.sidecar.signal(signal.SIGTERM)
        seen = app.response(stream)
        assert lane.sidecar.wait(PATIENCE) == 0
    assert seen.status == 14
    lane.close()


def test_killed_sidecar_is_unavailable_and_its_successor_serves_on_the_same_port(lane: Lane) -> None:
    def serve(wire: Wire) -> None:
        wire.greet()
        while True:
            stream, _ = wire.expect_request()
            wire.answer(stream, b"answer")

    with lane.serving(serve):
        channel = lane.channel()
        assert echo(channel).status == "OK"
        lane.sidecar.kill()
        assert echo(channel, timeout=PATIENCE).status == "UNAVAILABLE"
        lane.sidecar.start()
        lane.sidecar.wait_ready()
        assert echo(lane.channel()).status == "OK"
