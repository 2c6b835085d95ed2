"""Peers that do too much: a flood ends in ENHANCE_YOUR_CALM, what an honest peer does never does (SE-01 to SE-14)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sidecar.http2 import constants as c
from tests import frames
from tests.http2.conftest import MakeScript
from tests.http2.script import REQUEST, RESPONSE, TRAILERS, Script

CALM = c.ENHANCE_YOUR_CALM


def _headers(stream_id: int, encoded: bytes) -> bytes:
    return frames.raw(c.HEADERS, frames.END_HEADERS, stream_id, encoded)


# -- SE-01, SE-02: field lists --------------------------------------------------------------------------


def _fields(count: int, size: int = 0) -> tuple[tuple[bytes, bytes], ...]:
    return (*REQUEST, *((b"x-%d" % number, b"v" * size) for number in range(count - len(REQUEST))))


def test_as_many_fields_as_allowed_pass(server: MakeScript) -> None:
    script = server(max_header_fields=20)
    script.request(1, fields=_fields(20))
    assert script.heard("request") == [("request", 1, _fields(20), False)]


@pytest.mark.parametrize("fields", [_fields(21), _fields(12, 300)], ids=["count", "octets"])
def test_a_list_over_the_limit_costs_its_stream_and_keeps_the_table(server: MakeScript, fields: frames.Fields) -> None:
    script = server(max_header_fields=20, max_header_list_size=2000)
    script.receive(script.peer.headers(1, fields))
    assert (script.heard(), script.resets()) == ([], [(1, CALM)])
    few = (*REQUEST, list(fields)[-1])
    script.request(3, fields=few)
    assert script.heard("request") == [("request", 3, few, False)]


@pytest.mark.parametrize("fields", [_fields(81), _fields(20, 600)], ids=["count", "octets"])
def test_a_list_far_over_the_limit_costs_the_connection(server: MakeScript, fields: frames.Fields) -> None:
    script = server(max_header_fields=20, max_header_list_size=2000)
    assert script.breaks(script.peer.headers(1, fields)) == CALM


def test_a_response_over_the_limit_costs_its_stream(client: MakeScript) -> None:
    script = client(max_header_fields=20)
    script.open()
    script.receive(script.peer.headers(1, (*RESPONSE, *_fields(30)[6:])))
    assert script.heard() == [("reset", 1, CALM, False)]


def test_trailers_over_the_limit_cost_their_stream(client: MakeScript) -> None:
    script = client(max_header_fields=20)
    script.open()
    script.respond()
    script.receive(script.peer.headers(1, _fields(30)[6:], end_stream=True))
    assert script.heard()[1:] == [("reset", 1, CALM, False)]


def test_cookie_crumbs_count_one_by_one(server: MakeScript) -> None:
    script = server()
    script.receive(script.peer.headers(1, (*REQUEST, *((b"cookie", b"") for _ in range(128)))))
    assert script.resets() == [(1, CALM)]


def test_thousands_of_references_to_one_entry_cost_the_connection(server: MakeScript) -> None:
    script = server()
    script.request(1, fields=(*REQUEST, (b"x", b"")))
    newest = b"\xbe"
    assert script.breaks(_headers(3, newest * 16_000)) == CALM


def test_a_large_entry_referred_to_again_and_again_costs_the_connection(server: MakeScript) -> None:
    script = server()
    script.request(1, fields=(*REQUEST, (b"x", b"v" * 4000)))
    assert script.breaks(_headers(3, b"\xbe" * 100)) == CALM


# -- SE-03: blocks --------------------------------------------------------------------------------------


def test_a_block_in_too_many_frames_costs_the_connection(server: MakeScript) -> None:
    script = server(max_header_block_frames=4)
    script.receive(script.peer.headers(1, REQUEST, pieces=4))
    assert len(script.heard("request")) == 1
    assert script.breaks(script.peer.headers(3, REQUEST, pieces=5)) == CALM


def test_an_endless_empty_block_costs_the_connection(server: MakeScript) -> None:
    script = server()
    assert script.breaks(frames.raw(c.HEADERS, 0, 1), frames.raw(c.CONTINUATION, 0, 1) * 100) == CALM


def test_a_block_of_too_many_octets_costs_the_connection_before_it_ends(server: MakeScript) -> None:
    script = server()
    piece = bytes(16_000)
    never_ending = frames.raw(c.HEADERS, 0, 1, piece) + frames.raw(c.CONTINUATION, 0, 1, piece) * 2
    assert script.breaks(never_ending) == CALM


# -- SE-04, SE-12: resets -------------------------------------------------------------------------------


def _rapid_reset(script: Script, count: int, first: int = 1) -> bytes:
    return b"".join(
        script.peer.headers(stream_id, REQUEST) + frames.rst_stream(stream_id, c.CANCEL)
        for stream_id in range(first, first + 2 * count, 2)
    )


def test_resets_within_the_burst_are_an_honest_clients_right(server: MakeScript) -> None:
    script = server(reset_burst=10)
    script.receive(_rapid_reset(script, 10))
    assert len(script.heard("reset")) == 10


def test_rapid_reset_costs_the_connection(server: MakeScript) -> None:
    script = server(reset_burst=10)
    assert script.breaks(_rapid_reset(script, 11)) == CALM
    assert len(script.heard("reset")) == 10


def test_tokens_come_back_with_time(server: MakeScript) -> None:
    script = server(reset_burst=10, reset_rate=5.0)
    script.codec.refill(100.0)
    script.receive(_rapid_reset(script, 10))
    script.codec.refill(101.0)
    script.receive(_rapid_reset(script, 5, first=21))
    assert script.breaks(_rapid_reset(script, 1, first=31)) == CALM


def test_no_more_tokens_come_back_than_the_burst(server: MakeScript) -> None:
    script = server(reset_burst=10)
    script.codec.refill(100.0)
    script.codec.refill(1000.0)
    assert script.breaks(_rapid_reset(script, 11)) == CALM


def test_a_reset_after_the_response_head_costs_nothing(server: MakeScript) -> None:
    script = server(reset_burst=3)
    script.sink.then = script.answer
    script.receive(_rapid_reset(script, 20))
    assert len(script.heard("reset")) == 20


def test_an_upstreams_refusals_cost_nothing(client: MakeScript) -> None:
    script = client(reset_burst=3)
    for _ in range(20):
        stream = script.open()
        script.receive(frames.rst_stream(stream.id, c.REFUSED_STREAM))
    assert len(script.heard("reset")) == 20


def test_our_own_resets_cost_nothing(server: MakeScript) -> None:
    script = server(reset_burst=3)
    script.sink.then = lambda stream: script.codec.reset_stream(stream, c.CANCEL)
    for number in range(20):
        script.request(2 * number + 1)
    assert len(script.resets()) == 20


# Each makes us reset a stream after its request was taken (MadeYouReset), or refuse it.
PRIMITIVES: dict[str, Callable[[Script, int], bytes]] = {
    "window update by zero": lambda script, i: script.peer.headers(i, REQUEST) + frames.window_update(i, 0),
    "window overflow": lambda script, i: script.peer.headers(i, REQUEST) + frames.window_update(i, 2**31 - 1),
    "priority length": lambda script, i: script.peer.headers(i, REQUEST) + frames.raw(c.PRIORITY, 0, i, b"1234"),
    "priority on itself": lambda script, i: script.peer.headers(i, REQUEST) + frames.priority(i, depends_on=i),
    "headers after the end": lambda script, i: (
        script.peer.headers(i, REQUEST, end_stream=True) + script.peer.headers(i, TRAILERS, end_stream=True)
    ),
    "data after the end": lambda script, i: script.peer.headers(i, REQUEST, end_stream=True) + frames.data(i, b"x"),
    "malformed request": lambda script, i: script.peer.headers(i, REQUEST[1:]),
    "malformed trailers": lambda script, i: script.peer.headers(i, REQUEST) + script.peer.headers(i, TRAILERS),
    "field list too large": lambda script, i: script.peer.headers(i, _fields(200)),
}


@pytest.mark.parametrize("name", PRIMITIVES)
def test_making_us_reset_costs_the_connection_in_the_end(server: MakeScript, name: str) -> None:
    script = server(reset_burst=5, max_priority_frames=10_000)
    primitive = PRIMITIVES[name]
    for number in range(5):
        script.receive(primitive(script, 2 * number + 1))
    assert len(script.resets()) == 5
    assert script.breaks(primitive(script, 11)) == CALM


def test_streams_beyond_a_limit_that_the_peer_knows_cost_tokens(server: MakeScript) -> None:
    script = server(reset_burst=5, max_concurrent_streams=1)
    script.request(1)
    flood = b"".join(script.peer.headers(2 * number + 3, REQUEST) for number in range(6))
    assert script.breaks(flood) == CALM


def test_streams_beyond_a_limit_that_the_peer_cannot_know_are_only_refused(server: MakeScript) -> None:
    script = server(started=False, reset_burst=5, max_concurrent_streams=1)
    script.receive(frames.PREFACE, frames.settings())
    script.request(1)
    script.receive(*(script.peer.headers(2 * number + 3, REQUEST) for number in range(20)))
    assert len(script.resets()) == 20


def test_only_so_many_new_streams_are_taken_from_one_read(server: MakeScript) -> None:
    script = server(max_streams_per_read=3)
    script.codec.receive_data(b"".join(script.peer.headers(2 * number + 1, REQUEST) for number in range(5)))
    assert [one[1] for one in script.heard("request")] == [1, 3, 5]
    assert script.resets() == [(7, c.REFUSED_STREAM), (9, c.REFUSED_STREAM)]
    script.codec.receive_data(script.peer.headers(11, REQUEST))
    assert [one[1] for one in script.heard("request")] == [11]


# -- SE-05, SE-06, SE-08, SE-10: control frames ---------------------------------------------------------


@pytest.mark.parametrize("frame", [frames.ping(), frames.settings()], ids=["ping", "settings"])
def test_answers_that_nobody_fetches_cost_the_connection(server: MakeScript, frame: bytes) -> None:
    script = server(max_queued_control_frames=20)
    script.receive(frame * 20)
    assert len(script.sent()) == 20
    assert script.breaks(frame * 21) == CALM


def test_answers_that_are_fetched_cost_nothing(server: MakeScript) -> None:
    script = server(max_queued_control_frames=20)
    for _ in range(10):
        script.receive(frames.ping() * 15)
        assert len(script.sent()) == 15


def test_too_many_entries_in_settings_cost_the_connection(server: MakeScript) -> None:
    script = server()
    script.receive(frames.settings(*[(0x99, 0)] * 32))
    assert script.breaks(frames.settings(*[(0x99, 0)] * 33)) == CALM


def test_window_updates_that_answer_nothing_cost_the_connection(client: MakeScript) -> None:
    assert client().breaks(frames.window_update(0, 1) * 100) == CALM


def test_a_window_update_for_every_data_frame_is_honest(client: MakeScript) -> None:
    script = client()
    stream = script.open()
    for _ in range(200):
        script.codec.send_data(stream, b"0123456789", False)
        script.receive(frames.window_update(0, 10), frames.window_update(1, 10))
    assert len(script.sent("Data")) == 200


def test_empty_data_frames_in_a_row_cost_the_connection(server: MakeScript) -> None:
    script = server(max_empty_data_frames=10)
    script.request(1)
    script.receive((frames.data(1) * 10 + frames.data(1, b"x")) * 3)
    assert script.breaks(frames.data(1, b"", padding=1) * 11) == CALM


def test_priority_frames_without_end_cost_the_connection(server: MakeScript) -> None:
    script = server(max_priority_frames=20)
    script.request(1)
    script.receive(frames.priority(1) * 30)
    assert script.breaks(frames.priority(1)) == CALM
