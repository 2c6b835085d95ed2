"""Streams from open to closed, half-close, resets, concurrency, ids, GOAWAY and PING (H2-60 to H2-85)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sidecar.http2 import constants as c
from sidecar.http2.errors import LocalProtocolError, StreamsExhausted
from sidecar.http2.interface import HeaderBlock, Stream, StreamSink
from tests import frames
from tests.http2.conftest import MakeScript
from tests.http2.script import REQUEST, RESPONSE, TRAILERS, RecordingStream, Script

# -- half-close (H2-61, H2-62, H2-66) -------------------------------------------------------------------


def test_either_half_may_close_first(server: MakeScript) -> None:
    script = server()
    stream = script.request(1)
    script.answer(stream)
    script.codec.send_trailers(stream, HeaderBlock(TRAILERS))
    assert (stream.local_closed, stream.remote_closed, script.codec.open_streams) == (True, False, 1)
    script.receive(frames.data(1, b"still talking"), frames.data(1, b"", end_stream=True))
    assert script.heard("data") == [("data", 1, b"still talking", False), ("data", 1, b"", True)]
    assert (stream.remote_closed, script.codec.open_streams) == (True, 0)


def test_the_response_flows_after_the_request_has_ended(client: MakeScript) -> None:
    script = client()
    stream = script.open()
    script.codec.send_data(stream, b"", True)
    assert (stream.local_closed, script.codec.open_streams) == (True, 1)
    script.respond()
    script.receive(frames.data(1, b"a"), script.peer.headers(1, TRAILERS, end_stream=True))
    assert [one[0] for one in script.heard()] == ["headers", "data", "trailers"]
    assert script.codec.open_streams == 0


def test_an_empty_trailing_block_still_ends_the_stream(server: MakeScript) -> None:
    script = server()
    stream = script.request(1)
    script.receive(script.peer.headers(1, (), end_stream=True))
    assert script.heard()[1:] == [("trailers", 1, ())]
    script.answer(stream)
    script.codec.send_trailers(stream, HeaderBlock(()))
    assert [one.end_stream for one in script.sent()] == [False, True]
    assert script.codec.open_streams == 0


def test_an_early_complete_response_leaves_the_request_half_open(client: MakeScript) -> None:
    script = client()
    stream = script.open()
    script.respond(end_stream=True)
    assert (stream.local_closed, stream.remote_closed) == (False, True)
    assert script.codec.send_data(stream, b"more", False) == 4
    script.codec.reset_stream(stream, c.NO_ERROR)
    assert script.resets() == [(1, c.NO_ERROR)]
    assert script.codec.open_streams == 0


def test_an_empty_data_frame_is_told_only_if_it_ends_the_stream(server: MakeScript) -> None:
    script = server()
    script.request(1)
    script.receive(
        frames.data(1), frames.data(1, b"", padding=3), frames.data(1, b"x"), frames.data(1, end_stream=True)
    )
    assert script.heard("data") == [("data", 1, b"x", False), ("data", 1, b"", True)]


def test_streams_end_independently_of_their_order(client: MakeScript) -> None:
    script = client()
    for _ in range(3):
        script.open(end_stream=True)
    for stream_id in (5, 1, 3):
        script.respond(stream_id, end_stream=True)
    assert [one[1] for one in script.heard("headers")] == [5, 1, 3]
    assert script.codec.open_streams == 0


# -- commands from inside callbacks ---------------------------------------------------------------------


def _on(script: Script, word: str, act: Callable[[Stream], object]) -> Stream:
    """Open a stream whose sink acts once when it hears `word`."""
    stream = script.open()
    sink = stream.sink
    assert isinstance(sink, RecordingStream)

    def then(heard: str) -> None:
        if heard == word:
            sink.then = None
            act(stream)

    sink.then = then
    return stream


@pytest.mark.parametrize("word", ["headers", "data"])
def test_a_stream_reset_from_its_own_callback_hears_nothing_more(client: MakeScript, word: str) -> None:
    script = client()
    _on(script, word, lambda stream: script.codec.reset_stream(stream, c.CANCEL))
    script.receive(
        script.peer.headers(1, RESPONSE),
        frames.data(1, b"a"),
        frames.data(1, b"b"),
        script.peer.headers(1, TRAILERS, end_stream=True),
    )
    assert script.heard()[-1][0] == word
    assert script.resets() == [(1, c.CANCEL)]
    assert script.codec.receive_window == script.codec.settings.connection_window


def test_a_server_may_answer_from_inside_on_request(server: MakeScript) -> None:
    script = server()

    def answer(stream: Stream) -> None:
        script.codec.send_headers(stream, HeaderBlock(RESPONSE), False)
        script.codec.send_data(stream, b"reply", False)
        script.codec.send_trailers(stream, HeaderBlock(TRAILERS))

    script.sink.then = answer
    for stream_id in (1, 3):
        script.receive(script.peer.headers(stream_id, REQUEST, end_stream=True))
    assert [(one.kind, one.stream_id) for one in script.sent()] == [
        (kind, stream_id) for stream_id in (1, 3) for kind in ("Headers", "Data", "Headers")
    ]
    assert script.codec.open_streams == 0


def test_a_server_may_reset_from_inside_on_request(server: MakeScript) -> None:
    script = server()
    script.sink.then = lambda stream: script.codec.reset_stream(stream, c.REFUSED_STREAM)
    script.receive(script.peer.headers(1, REQUEST), frames.data(1, b"dropped", end_stream=True))
    assert [one[0] for one in script.heard()] == ["request"]
    assert script.resets() == [(1, c.REFUSED_STREAM)]


def test_a_new_stream_may_be_opened_from_inside_on_reset(client: MakeScript) -> None:
    script = client()
    _on(script, "reset", lambda _: script.open())
    script.receive(frames.rst_stream(1, c.REFUSED_STREAM))
    assert [one.stream_id for one in script.sent("Headers")] == [1, 3]
    assert script.codec.open_streams == 1


def test_data_may_be_sent_from_inside_on_window(client: MakeScript) -> None:
    script = client()
    script.receive(frames.settings((c.SETTINGS_INITIAL_WINDOW_SIZE, 2)))
    stream = _on(script, "window", lambda stream: script.codec.send_data(stream, b"abcd", True, 2))
    assert script.codec.send_data(stream, b"abcd", True) == 2
    script.receive(frames.window_update(1, 2))
    assert b"".join(one.data for one in script.sent("Data")) == b"abcd"


# -- concurrency and ids (H2-70 to H2-74) ---------------------------------------------------------------


def test_streams_beyond_our_limit_are_refused_and_never_heard_of(server: MakeScript) -> None:
    script = server(max_concurrent_streams=2)
    for stream_id in (1, 3, 5):
        script.receive(script.peer.headers(stream_id, REQUEST))
    assert [one[1] for one in script.heard("request")] == [1, 3]
    assert script.resets() == [(5, c.REFUSED_STREAM)]
    script.receive(frames.data(5, b"on its way"))
    assert script.sent() == []


def test_a_slot_is_free_again_when_both_halves_are_closed(server: MakeScript) -> None:
    script = server(max_concurrent_streams=1)
    stream = script.request(1, end_stream=True)
    script.answer(stream)
    script.codec.send_trailers(stream, HeaderBlock(TRAILERS))
    script.request(3)
    assert script.resets() == []


def test_the_peers_limit_is_never_exceeded(client: MakeScript) -> None:
    script = client()
    script.receive(frames.settings((c.SETTINGS_MAX_CONCURRENT_STREAMS, 2)))
    script.open()
    script.open()
    with pytest.raises(StreamsExhausted):
        script.codec.open_stream(StreamSink())
    script.receive(frames.rst_stream(1, c.CANCEL))
    script.open()


def test_a_limit_lowered_below_use_lets_open_streams_finish(client: MakeScript) -> None:
    script = client()
    script.open(end_stream=True)
    script.open(end_stream=True)
    script.receive(frames.settings((c.SETTINGS_MAX_CONCURRENT_STREAMS, 0)))
    with pytest.raises(StreamsExhausted):
        script.codec.open_stream(StreamSink())
    script.respond(1, end_stream=True)
    script.respond(3, end_stream=True)
    assert len(script.heard("headers")) == 2


def test_a_stream_taken_but_not_used_costs_nothing(client: MakeScript) -> None:
    script = client()
    unused = script.codec.open_stream(StreamSink())
    script.codec.reset_stream(unused, c.CANCEL)
    assert (script.codec.open_streams, script.codec.next_stream_id, script.sent()) == (0, 1, [])
    assert script.open().id == 1


def test_ids_run_out_before_they_overflow(client: MakeScript) -> None:
    script = client(first_stream_id=2**31 - 3)
    assert script.codec.next_stream_id == 2**31 - 3
    assert script.open(end_stream=True).id == 2**31 - 3
    assert script.open(end_stream=True).id == 2**31 - 1
    with pytest.raises(StreamsExhausted):
        script.codec.open_stream(StreamSink())
    script.respond(2**31 - 1, end_stream=True)
    assert script.heard("headers") == [("headers", 2**31 - 1, RESPONSE, True)]


def test_the_highest_stream_of_the_peer_is_known(server: MakeScript) -> None:
    script = server()
    assert script.codec.highest_remote_stream_id == 0
    script.request(1)
    script.request(9)
    assert script.codec.highest_remote_stream_id == 9


# -- GOAWAY (H2-81, H2-83, H2-85) -----------------------------------------------------------------------


def test_goaway_refuses_what_is_above_and_lets_the_rest_finish(client: MakeScript) -> None:
    script = client()
    for _ in range(3):
        script.open(end_stream=True)
    script.sent()
    script.receive(frames.goaway(3, c.NO_ERROR, b"rolling"))
    assert script.heard() == [("reset", 5, c.REFUSED_STREAM, True), ("goaway", 3, c.NO_ERROR, b"rolling")]
    assert script.sent() == []
    script.respond(1, end_stream=True)
    script.respond(3, end_stream=True)
    assert [one[1] for one in script.heard("headers")] == [1, 3]
    assert script.codec.open_streams == 0


def test_what_a_server_still_sends_on_a_refused_stream_is_dropped(client: MakeScript) -> None:
    script = client()
    script.open(end_stream=True)
    script.open(end_stream=True)
    script.sent()
    script.receive(frames.goaway(1))
    script.heard()
    script.receive(script.peer.headers(3, RESPONSE), frames.data(3, b"x", end_stream=True))
    assert (script.heard(), script.sent()) == ([], [])


def test_no_stream_is_opened_after_a_goaway(client: MakeScript) -> None:
    script = client()
    script.receive(frames.goaway(2**31 - 1))
    with pytest.raises(StreamsExhausted):
        script.codec.open_stream(StreamSink())


def test_a_second_goaway_may_lower_the_last_id(client: MakeScript) -> None:
    script = client()
    script.open()
    script.open()
    script.receive(frames.goaway(2**31 - 1), frames.goaway(1), frames.goaway(1))
    assert [one[:2] for one in script.heard() if one[0] in ("reset", "goaway")] == [
        ("goaway", 2**31 - 1),
        ("reset", 3),
        ("goaway", 1),
        ("goaway", 1),
    ]


def test_a_second_goaway_cannot_raise_the_last_id(client: MakeScript) -> None:
    script = client()
    script.open()
    assert script.breaks(frames.goaway(1), frames.goaway(3)) == c.PROTOCOL_ERROR


def test_goaway_cannot_name_an_even_stream(client: MakeScript) -> None:
    assert client().breaks(frames.goaway(2)) == c.PROTOCOL_ERROR


def test_a_client_that_goes_away_is_served_to_the_end(server: MakeScript) -> None:
    script = server()
    stream = script.request(1, end_stream=True)
    script.receive(frames.goaway(0, c.NO_ERROR))
    script.answer(stream, end_stream=True)
    assert script.heard()[1:] == [("goaway", 0, c.NO_ERROR, b"")]
    assert [one.kind for one in script.sent()] == ["Headers"]


def test_a_first_graceful_goaway_keeps_accepting(server: MakeScript) -> None:
    script = server()
    script.codec.send_goaway(2**31 - 1, c.NO_ERROR)
    script.request(1)
    assert [(one.kind, one.last_stream_id) for one in script.sent()] == [("GoAway", 2**31 - 1)]
    assert [one[0] for one in script.heard()] == ["request"]


def test_requests_above_our_goaway_are_ignored_but_decoded(server: MakeScript) -> None:
    script = server()
    script.request(1)
    script.codec.send_goaway(1, c.NO_ERROR, b"bye")
    assert [(one.last_stream_id, one.data) for one in script.sent()] == [(1, b"bye")]
    script.heard()
    fields = (*REQUEST, (b"x-new-entry", b"kept"))
    script.receive(
        script.peer.headers(3, fields),
        frames.window_update(3, 1),
        frames.data(3, b"x", end_stream=True),
        frames.rst_stream(3, c.CANCEL),
        script.peer.headers(5, fields, end_stream=True),
        script.peer.headers(1, ((b"x-new-entry", b"kept"),), end_stream=True),
    )
    assert script.heard() == [("trailers", 1, ((b"x-new-entry", b"kept"),))]
    assert (script.sent(), script.codec.highest_remote_stream_id, script.codec.open_streams) == ([], 1, 1)


# -- PING (H2-80) ---------------------------------------------------------------------------------------


def test_a_ping_is_answered_with_its_octets(server: MakeScript) -> None:
    script = server()
    script.receive(frames.ping(b"\x00\x01\x02\x03\xfc\xfd\xfe\xff"))
    assert [(one.kind, one.ack, one.data) for one in script.sent()] == [
        ("Ping", True, b"\x00\x01\x02\x03\xfc\xfd\xfe\xff")
    ]


def test_a_ping_is_answered_ahead_of_other_frames(server: MakeScript) -> None:
    script = server()
    script.answer(script.request(1))
    script.receive(frames.ping())
    assert [one.kind for one in script.sent()] == ["Ping", "Headers"]


def test_only_the_ack_of_a_ping_that_was_sent_is_told(client: MakeScript) -> None:
    script = client()
    script.codec.send_ping(b"12345678")
    assert [one.data for one in script.sent()] == [b"12345678"]
    script.receive(frames.ping(b"elsewise", ack=True), frames.ping(b"12345678", ack=True))
    script.receive(frames.ping(b"12345678", ack=True))
    assert script.heard() == [("ping_ack", b"12345678")]


def test_a_ping_of_another_size_is_our_bug(client: MakeScript) -> None:
    with pytest.raises(LocalProtocolError):
        client().codec.send_ping(b"short")
