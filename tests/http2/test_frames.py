"""Frames in general and stream states (H2-10 to H2-17, H2-27, H2-28)."""

from __future__ import annotations

import pytest

from sidecar.http2 import constants as c
from tests import frames
from tests.http2.conftest import MakeScript
from tests.http2.script import REQUEST, RESPONSE, TRAILERS


def test_a_frame_longer_than_announced_breaks_the_connection(server: MakeScript) -> None:
    script = server()
    script.request(1)
    assert script.breaks(frames.data(1, bytes(16_385))) == c.FRAME_SIZE_ERROR


def test_a_larger_announced_frame_size_is_honoured(server: MakeScript) -> None:
    script = server(max_frame_size=20_000)
    script.request(1)
    script.receive(frames.data(1, bytes(20_000)))
    assert script.heard("data") == [("data", 1, bytes(20_000), False)]


@pytest.mark.parametrize("kind", [0xA, 0xC, 0x10, 0xFF])
def test_unknown_frame_types_are_ignored(server: MakeScript, kind: int) -> None:
    script = server()
    script.request(1)
    script.heard()
    script.receive(frames.raw(kind, 0xFF, 0, b"what"), frames.raw(kind, 0, 1, b"what"), frames.raw(kind, 0, 99, b""))
    assert (script.heard(), script.sent()) == ([], [])


def test_unknown_flags_and_the_reserved_bit_are_ignored(server: MakeScript) -> None:
    script = server()
    script.request(1)
    script.receive(frames.raw(c.DATA, 0xF6, 0x8000_0001, b"abc"), frames.raw(c.PING, 0xFE, 0x8000_0000, b"12345678"))
    assert script.heard("data") == [("data", 1, b"abc", False)]
    assert script.sent("Ping")[0].ack


@pytest.mark.parametrize(
    "frame",
    [
        frames.data(3),
        frames.rst_stream(3, c.CANCEL),
        frames.window_update(3, 1),
        frames.data(2),
        frames.rst_stream(2, 0),
    ],
    ids=["data", "reset", "window", "data-even", "reset-even"],
)
def test_a_frame_on_an_idle_stream_breaks_the_connection(server: MakeScript, frame: bytes) -> None:
    script = server()
    script.request(1)
    assert script.breaks(frame) == c.PROTOCOL_ERROR


@pytest.mark.parametrize(
    "frame",
    [
        frames.data(0, b"x"),
        frames.raw(c.HEADERS, frames.END_HEADERS, 0),
        frames.priority(0),
        frames.rst_stream(0, c.CANCEL),
        frames.raw(c.CONTINUATION, frames.END_HEADERS, 0),
        frames.raw(c.PING, 0, 1, b"12345678"),
        frames.raw(c.GOAWAY, 0, 1, bytes(8)),
    ],
    ids=["data", "headers", "priority", "reset", "continuation", "ping", "goaway"],
)
def test_a_frame_on_the_wrong_kind_of_stream_breaks_the_connection(server: MakeScript, frame: bytes) -> None:
    script = server()
    script.request(1)
    assert script.breaks(frame) == c.PROTOCOL_ERROR


@pytest.mark.parametrize(
    "frame",
    [
        frames.raw(c.RST_STREAM, 0, 1, b"123"),
        frames.raw(c.WINDOW_UPDATE, 0, 1, b"12345"),
        frames.raw(c.WINDOW_UPDATE, 0, 0, b"123"),
        frames.raw(c.PING, 0, 0, b"1234567"),
        frames.raw(c.GOAWAY, 0, 0, b"1234567"),
    ],
    ids=["reset", "window", "window-connection", "ping", "goaway"],
)
def test_a_frame_of_the_wrong_length_breaks_the_connection(server: MakeScript, frame: bytes) -> None:
    script = server()
    script.request(1)
    assert script.breaks(frame) == c.FRAME_SIZE_ERROR


def test_an_even_stream_id_breaks_the_connection(server: MakeScript) -> None:
    script = server()
    assert script.breaks(script.peer.headers(2, REQUEST)) == c.PROTOCOL_ERROR


def test_a_skipped_stream_id_cannot_be_used_later(server: MakeScript) -> None:
    script = server()
    script.request(5)
    assert script.breaks(script.peer.headers(3, REQUEST)) == c.PROTOCOL_ERROR


def test_headers_on_a_closed_stream_break_the_connection(server: MakeScript) -> None:
    script = server()
    script.answer(script.request(1, end_stream=True), end_stream=True)
    assert script.codec.open_streams == 0
    assert script.breaks(script.peer.headers(1, REQUEST)) == c.STREAM_CLOSED


def test_data_on_a_closed_stream_breaks_the_connection(server: MakeScript) -> None:
    script = server()
    script.answer(script.request(1, end_stream=True), end_stream=True)
    script.sent()
    assert script.breaks(frames.data(1, b"x")) == c.STREAM_CLOSED


def test_data_after_the_peers_own_reset_breaks_the_connection(server: MakeScript) -> None:
    script = server()
    script.request(1)
    script.receive(frames.rst_stream(1, c.CANCEL))
    assert script.breaks(frames.data(1, b"x")) == c.STREAM_CLOSED


def test_data_after_end_stream_resets_the_stream(server: MakeScript) -> None:
    script = server()
    script.request(1, end_stream=True)
    script.receive(frames.data(1, b"x"))
    assert script.heard()[1:] == [("reset", 1, c.STREAM_CLOSED, False)]
    assert script.resets() == [(1, c.STREAM_CLOSED)]


def test_headers_after_end_stream_reset_the_stream(server: MakeScript) -> None:
    script = server()
    script.request(1, end_stream=True)
    script.receive(script.peer.headers(1, TRAILERS, end_stream=True))
    assert script.resets() == [(1, c.STREAM_CLOSED)]


def test_a_response_on_a_stream_never_opened_breaks_the_connection(client: MakeScript) -> None:
    script = client()
    assert script.breaks(script.peer.headers(1, RESPONSE)) == c.PROTOCOL_ERROR


def test_a_response_on_an_even_stream_breaks_the_connection(client: MakeScript) -> None:
    script = client()
    script.open()
    assert script.breaks(script.peer.headers(2, RESPONSE)) == c.PROTOCOL_ERROR


def test_what_crosses_our_reset_is_dropped_in_silence(client: MakeScript) -> None:
    script = client()
    stream = script.open()
    script.codec.reset_stream(stream, c.CANCEL)
    assert script.resets() == [(1, c.CANCEL)]
    fields = (*RESPONSE, (b"x-indexed", b"by the peer"))
    script.receive(
        script.peer.headers(1, fields), frames.data(1, b"late"), frames.window_update(1, 5), frames.priority(1)
    )
    script.receive(script.peer.headers(1, TRAILERS, end_stream=True))
    assert (script.heard(), script.sent()) == ([], [])
    script.open()
    script.respond(3, fields=fields)
    assert script.heard() == [("headers", 3, fields, False)]


def test_request_trailers_that_cross_our_reset_are_dropped(server: MakeScript) -> None:
    script = server()
    stream = script.request(1)
    script.codec.reset_stream(stream, c.NO_ERROR)
    script.sent()
    script.receive(frames.data(1, b"late"), script.peer.headers(1, TRAILERS, end_stream=True))
    assert (script.heard()[1:], script.sent()) == ([], [])


def test_a_reset_is_never_answered_with_a_reset(server: MakeScript) -> None:
    script = server()
    stream = script.request(1)
    script.receive(frames.rst_stream(1, c.CANCEL), frames.rst_stream(1, c.CANCEL))
    script.codec.reset_stream(stream, c.CANCEL)
    assert script.heard()[1:] == [("reset", 1, c.CANCEL, True)]
    assert script.sent() == []


def test_one_reset_at_most_leaves_for_a_stream(server: MakeScript) -> None:
    script = server()
    stream = script.request(1, end_stream=True)
    script.receive(frames.data(1, b"x"), frames.data(1, b"y"))
    script.codec.reset_stream(stream, c.CANCEL)
    assert script.resets() == [(1, c.STREAM_CLOSED)]


def test_a_finished_stream_is_not_reset(server: MakeScript) -> None:
    script = server()
    stream = script.request(1, end_stream=True)
    script.answer(stream, end_stream=True)
    script.codec.reset_stream(stream, c.CANCEL)
    assert [one.kind for one in script.sent()] == ["Headers"]


def test_an_unknown_error_code_counts_as_internal_error(client: MakeScript) -> None:
    script = client()
    script.open()
    script.receive(frames.rst_stream(1, 0xDEAD), frames.goaway(1, 0xBEEF))
    assert script.heard() == [("reset", 1, c.INTERNAL_ERROR, True), ("goaway", 1, c.INTERNAL_ERROR, b"")]


def test_a_reset_may_follow_a_complete_response(client: MakeScript) -> None:
    script = client()
    script.open()
    script.respond()
    script.receive(script.peer.headers(1, TRAILERS, end_stream=True), frames.rst_stream(1, c.NO_ERROR))
    assert [one[0] for one in script.heard()] == ["headers", "trailers", "reset"]


# -- padding (H2-27) ------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [0, 1, 255])
def test_padding_is_not_payload(server: MakeScript, padding: int) -> None:
    script = server()
    script.receive(script.peer.headers(1, REQUEST, padding=padding), frames.data(1, b"abc", padding=padding))
    assert script.heard() == [("request", 1, REQUEST, False), ("data", 1, b"abc", False)]


@pytest.mark.parametrize("kind", [c.DATA, c.HEADERS])
def test_padding_longer_than_the_frame_breaks_the_connection(server: MakeScript, kind: int) -> None:
    script = server()
    script.request(1)
    flags = frames.PADDED | frames.END_HEADERS
    assert script.breaks(frames.raw(kind, flags, 1, b"\x04abc")) == c.PROTOCOL_ERROR


@pytest.mark.parametrize("kind", [c.DATA, c.HEADERS])
def test_a_padded_frame_has_a_pad_length(server: MakeScript, kind: int) -> None:
    script = server()
    script.request(1)
    assert script.breaks(frames.raw(kind, frames.PADDED | frames.END_HEADERS, 1)) == c.FRAME_SIZE_ERROR


# -- PRIORITY (H2-28) -----------------------------------------------------------------------------------


def test_priority_has_no_effect_in_any_state(server: MakeScript) -> None:
    script = server()
    script.request(3)
    script.heard()
    script.receive(frames.priority(1), frames.priority(3, depends_on=1), frames.priority(7), frames.priority(2))
    assert (script.heard(), script.sent()) == ([], [])


def test_priority_fields_of_headers_are_skipped(server: MakeScript) -> None:
    script = server()
    script.receive(script.peer.headers(1, REQUEST, depends_on=0, padding=3))
    assert script.heard() == [("request", 1, REQUEST, False)]


@pytest.mark.parametrize(
    ("frame", "error_code"),
    [(frames.raw(c.PRIORITY, 0, 1, b"1234"), c.FRAME_SIZE_ERROR), (frames.priority(1, depends_on=1), c.PROTOCOL_ERROR)],
    ids=["length", "itself"],
)
def test_a_wrong_priority_is_a_stream_error(server: MakeScript, frame: bytes, error_code: int) -> None:
    script = server()
    script.request(1)
    script.receive(frame)
    assert script.heard()[1:] == [("reset", 1, error_code, False)]
    assert script.resets() == [(1, error_code)]


def test_headers_too_short_for_their_priority_break_the_connection(server: MakeScript) -> None:
    frame = frames.raw(c.HEADERS, frames.PRIORITY | frames.END_HEADERS, 1, b"1234")
    assert server().breaks(frame) == c.FRAME_SIZE_ERROR


@pytest.mark.parametrize("end_stream", [True, False], ids=["ended", "reset"])
def test_a_priority_of_wrong_length_is_a_stream_error_on_a_closed_stream_too(
    server: MakeScript, end_stream: bool
) -> None:
    script = server()
    stream = script.request(1, end_stream=end_stream)
    script.answer(stream, end_stream=True)
    script.codec.reset_stream(stream, c.NO_ERROR)
    script.sent()
    script.receive(frames.raw(c.PRIORITY, 0, 1, b"1234"))
    assert script.resets() == [(1, c.FRAME_SIZE_ERROR)]


def test_priorities_of_wrong_length_on_closed_streams_are_counted_as_answers(server: MakeScript) -> None:
    script = server(max_queued_control_frames=5)
    script.answer(script.request(1, end_stream=True), end_stream=True)
    assert script.breaks(frames.raw(c.PRIORITY, 0, 1, b"1234") * 7) == c.ENHANCE_YOUR_CALM


def test_a_closed_stream_that_depends_on_itself_is_nothing(server: MakeScript) -> None:
    script = server()
    script.answer(script.request(1, end_stream=True), end_stream=True)
    script.sent()
    script.receive(frames.priority(1, depends_on=1))
    assert script.sent() == []


def test_a_wrong_priority_on_an_idle_stream_breaks_the_connection(server: MakeScript) -> None:
    assert server().breaks(frames.priority(1, depends_on=1)) == c.PROTOCOL_ERROR


def test_a_request_that_depends_on_itself_is_refused(server: MakeScript) -> None:
    script = server()
    script.receive(script.peer.headers(1, REQUEST, depends_on=1))
    assert (script.heard(), script.resets()) == ([], [(1, c.PROTOCOL_ERROR)])


# -- after the end --------------------------------------------------------------------------------------


def test_a_dead_codec_hears_and_says_nothing_more(server: MakeScript) -> None:
    script = server()
    stream = script.request(1)
    assert script.breaks(frames.data(0, b"x")) == c.PROTOCOL_ERROR
    script.heard()
    script.receive(frames.ping(), script.peer.headers(3, REQUEST))
    script.codec.reset_stream(stream, c.CANCEL)
    script.codec.send_ping(b"12345678")
    assert (script.heard(), script.codec.has_data_to_send()) == ([], False)


def test_the_goaway_of_an_error_names_the_last_stream_served(server: MakeScript) -> None:
    script = server()
    script.request(1)
    script.request(7)
    script.sent()
    with pytest.raises(Exception, match="PROTOCOL_ERROR"):
        script.receive(frames.data(0, b"x"))
    assert [(one.kind, one.last_stream_id) for one in script.sent()] == [("GoAway", 7)]
