"""Malformed blocks cost their stream and reach nobody; everything else passes unchanged (H2-30 to H2-39, SE-20)."""

from __future__ import annotations

import pytest

from sidecar.http2 import constants as c
from sidecar.http2.interface import HeaderBlock, StreamSink
from tests import frames
from tests.http2 import corpus
from tests.http2.conftest import MakeScript
from tests.http2.script import REQUEST, RESPONSE, TRAILERS


@pytest.mark.parametrize("name", corpus.MALFORMED_REQUESTS)
def test_a_malformed_request_is_reset_and_never_heard_of(server: MakeScript, name: str) -> None:
    script = server()
    script.receive(script.peer.headers(1, corpus.MALFORMED_REQUESTS[name]))
    assert script.heard() == []
    assert script.resets() == [(1, c.PROTOCOL_ERROR)]
    script.request(3)
    assert script.heard("request") == [("request", 3, REQUEST, False)]


@pytest.mark.parametrize("name", corpus.ODD_REQUESTS)
def test_an_odd_request_passes_unchanged(server: MakeScript, name: str) -> None:
    script = server()
    script.request(1, fields=corpus.ODD_REQUESTS[name])
    assert script.heard() == [("request", 1, corpus.ODD_REQUESTS[name], False)]


@pytest.mark.parametrize("name", corpus.MALFORMED_RESPONSES)
def test_a_malformed_response_resets_its_stream(client: MakeScript, name: str) -> None:
    script = client()
    script.open()
    script.respond(fields=corpus.MALFORMED_RESPONSES[name])
    assert script.heard() == [("reset", 1, c.PROTOCOL_ERROR, False)]
    assert script.resets() == [(1, c.PROTOCOL_ERROR)]


@pytest.mark.parametrize("name", corpus.ODD_RESPONSES)
def test_an_odd_response_passes_unchanged(client: MakeScript, name: str) -> None:
    script = client()
    script.open()
    script.respond(fields=corpus.ODD_RESPONSES[name])
    assert script.heard() == [("headers", 1, corpus.ODD_RESPONSES[name], False)]


@pytest.mark.parametrize("name", corpus.MALFORMED_TRAILERS)
def test_malformed_response_trailers_reset_their_stream(client: MakeScript, name: str) -> None:
    script = client()
    script.open(end_stream=True)
    script.respond()
    script.receive(script.peer.headers(1, corpus.MALFORMED_TRAILERS[name], end_stream=True))
    assert script.heard()[1:] == [("reset", 1, c.PROTOCOL_ERROR, False)]
    assert script.resets() == [(1, c.PROTOCOL_ERROR)]


@pytest.mark.parametrize("name", corpus.MALFORMED_TRAILERS)
def test_malformed_request_trailers_reset_their_stream(server: MakeScript, name: str) -> None:
    script = server()
    script.request(1)
    script.receive(script.peer.headers(1, corpus.MALFORMED_TRAILERS[name], end_stream=True))
    assert script.heard()[1:] == [("reset", 1, c.PROTOCOL_ERROR, False)]


def test_trailers_without_end_stream_are_malformed(client: MakeScript) -> None:
    script = client()
    script.open()
    script.respond()
    script.receive(script.peer.headers(1, TRAILERS))
    assert script.heard()[1:] == [("reset", 1, c.PROTOCOL_ERROR, False)]


def test_a_second_request_head_is_malformed(server: MakeScript) -> None:
    script = server()
    script.request(1)
    script.receive(script.peer.headers(1, REQUEST))
    assert script.resets() == [(1, c.PROTOCOL_ERROR)]


def test_data_before_the_response_head_is_an_error(client: MakeScript) -> None:
    script = client()
    script.open()
    script.receive(frames.data(1, b"early"))
    assert script.heard() == [("reset", 1, c.PROTOCOL_ERROR, False)]


def test_data_after_an_informational_head_is_an_error(client: MakeScript) -> None:
    script = client()
    script.open()
    script.respond(fields=((b":status", b"100"),))
    script.receive(frames.data(1, b"early"))
    assert script.heard()[1:] == [("reset", 1, c.PROTOCOL_ERROR, False)]


# -- content-length (H2-35) -----------------------------------------------------------------------------

FIVE = (b"content-length", b"5")


def test_exactly_the_announced_octets_pass(server: MakeScript) -> None:
    script = server()
    script.request(1, fields=(*REQUEST, FIVE))
    script.receive(frames.data(1, b"ab", padding=9), frames.data(1, b"cde", end_stream=True))
    assert script.heard("data") == [("data", 1, b"ab", False), ("data", 1, b"cde", True)]


def test_the_frame_that_overflows_is_not_delivered(server: MakeScript) -> None:
    script = server()
    script.request(1, fields=(*REQUEST, FIVE))
    script.receive(frames.data(1, b"abc"), frames.data(1, b"def"))
    assert script.heard()[1:] == [("data", 1, b"abc", False), ("reset", 1, c.PROTOCOL_ERROR, False)]


def test_too_few_octets_are_an_error(server: MakeScript) -> None:
    script = server()
    script.request(1, fields=(*REQUEST, FIVE))
    script.receive(frames.data(1, b"abc", end_stream=True))
    assert script.heard()[1:] == [("reset", 1, c.PROTOCOL_ERROR, False)]


def test_too_few_octets_before_trailers_are_an_error(server: MakeScript) -> None:
    script = server()
    script.request(1, fields=(*REQUEST, FIVE))
    script.receive(script.peer.headers(1, TRAILERS, end_stream=True))
    assert script.heard()[1:] == [("reset", 1, c.PROTOCOL_ERROR, False)]


def test_a_request_that_ends_without_its_octets_is_malformed(server: MakeScript) -> None:
    script = server()
    script.receive(script.peer.headers(1, (*REQUEST, FIVE), end_stream=True))
    assert script.heard() == []
    assert script.resets() == [(1, c.PROTOCOL_ERROR)]


@pytest.mark.parametrize("status", [b"204", b"304"])
def test_a_response_without_content_may_announce_some(client: MakeScript, status: bytes) -> None:
    script = client()
    script.open(end_stream=True)
    script.respond(end_stream=True, fields=((b":status", status), FIVE))
    assert [one[0] for one in script.heard()] == ["headers"]


def test_the_answer_to_head_may_announce_content(client: MakeScript) -> None:
    script = client()
    script.open(end_stream=True, fields=((b":method", b"HEAD"), *REQUEST[1:]))
    script.respond(end_stream=True, fields=(*RESPONSE, FIVE))
    assert [one[0] for one in script.heard()] == ["headers"]


def test_a_response_that_ends_without_its_octets_is_malformed(client: MakeScript) -> None:
    script = client()
    script.open(end_stream=True)
    script.respond(end_stream=True, fields=(*RESPONSE, FIVE))
    assert script.heard() == [("reset", 1, c.PROTOCOL_ERROR, False)]


# -- 1xx (H2-37) ----------------------------------------------------------------------------------------


def test_informational_heads_are_told_in_order(client: MakeScript) -> None:
    script = client()
    script.open()
    script.respond(fields=((b":status", b"100"),))
    script.respond(fields=((b":status", b"103"), (b"link", b"x")))
    script.respond()
    assert [one[0] for one in script.heard()] == ["informational", "informational", "headers"]


def test_an_informational_head_cannot_end_the_stream(client: MakeScript) -> None:
    script = client()
    script.open()
    script.respond(end_stream=True, fields=((b":status", b"103"),))
    assert script.heard() == [("reset", 1, c.PROTOCOL_ERROR, False)]


def test_too_many_informational_heads_reset_the_stream(client: MakeScript) -> None:
    script = client(max_informational=3)
    script.open()
    for _ in range(4):
        script.respond(fields=((b":status", b"103"),))
    assert [one[0] for one in script.heard()] == ["informational"] * 3 + ["reset"]


def test_an_informational_head_after_the_final_one_is_malformed(client: MakeScript) -> None:
    script = client()
    script.open()
    script.respond()
    script.respond(fields=((b":status", b"103"),))
    assert script.heard()[1:] == [("reset", 1, c.PROTOCOL_ERROR, False)]


# -- never indexed (H2-24) ------------------------------------------------------------------------------


def test_never_indexed_fields_are_marked_and_leave_the_same_way(server: MakeScript, client: MakeScript) -> None:
    script = server()
    fields = [(*one, False) for one in REQUEST] + [(b"x-secret", b"s3cret", True)]
    script.receive(frames.raw(c.HEADERS, frames.END_HEADERS, 1, script.peer.encoder.encode(fields)))
    block = script.sink.blocks[0]
    assert block.never_indexed == {b"x-secret"}
    onward = client()
    onward.codec.send_headers(onward.codec.open_stream(StreamSink()), block, True)
    assert onward.sent("Headers")[0].never_indexed == {b"x-secret"}


def test_secrets_are_never_indexed_whatever_the_sender_thought(client: MakeScript) -> None:
    script = client()
    secrets = ((b"authorization", b"Bearer x"), (b"cookie", b"a=1"), (b"x-consul-token", b"t"))
    script.open(fields=(*REQUEST, *secrets))
    assert script.sent("Headers")[0].never_indexed == {b"authorization", b"cookie", b"x-consul-token"}


def test_a_never_indexed_field_that_a_table_knows_stays_a_literal(client: MakeScript) -> None:
    script = client()
    known = (b"accept-encoding", b"gzip, deflate")
    stream = script.codec.open_stream(StreamSink())
    script.codec.send_headers(stream, HeaderBlock((*REQUEST, known), frozenset((known[0],))), True)
    assert script.sent("Headers")[0].never_indexed == {known[0]}
