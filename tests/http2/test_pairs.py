"""Two real codecs on a fake wire, every combination of implementations: what one sends the other hears."""

from __future__ import annotations

import itertools

import pytest

from sidecar.http2 import constants as c
from sidecar.http2.codec import load_codec
from sidecar.http2.interface import Codec, CodecSettings, HeaderBlock, Stream
from tests.conftest import CODEC_NAMES
from tests.http2.script import (
    REQUEST,
    RESPONSE,
    TRAILERS,
    Heard,
    RecordingSink,
    RecordingStream,
    Split,
    byte_by_byte,
    whole,
)


class Pair:
    """A client and a server, joined by hand."""

    def __init__(self, client: type[Codec], server: type[Codec], settings: CodecSettings, split: Split) -> None:
        self.split = split
        self.client_sink, self.server_sink = RecordingSink(), RecordingSink()
        self.client = client(c.CLIENT, settings, self.client_sink)
        self.server = server(c.SERVER, settings, self.server_sink)
        self.client.initiate_connection()
        self.server.initiate_connection()
        self.exchange()
        self.heard()

    def exchange(self) -> None:
        """Carry octets both ways until both are silent."""
        while self.client.has_data_to_send() or self.server.has_data_to_send():
            for source, target in ((self.client, self.server), (self.server, self.client)):
                for piece in self.split(source.data_to_send()):
                    target.receive_data(piece)

    def heard(self) -> tuple[list[Heard], list[Heard]]:
        """(client, server) since the last call."""
        both = list(self.client_sink.heard), list(self.server_sink.heard)
        self.client_sink.heard.clear()
        self.server_sink.heard.clear()
        return both

    def call(self, end_stream: bool = False) -> Stream:
        """Open a stream with a request head."""
        sink = RecordingStream(self.client_sink.heard)
        stream = self.client.open_stream(sink)
        sink.stream_id = stream.id
        self.client.send_headers(stream, HeaderBlock(REQUEST), end_stream)
        return stream


COMBINATIONS = list(itertools.product(CODEC_NAMES, CODEC_NAMES, [whole, byte_by_byte]))


@pytest.fixture(params=COMBINATIONS, ids=lambda p: f"{p[0]}-{p[1]}-{p[2].__name__}")
def pair(request: pytest.FixtureRequest) -> Pair:
    """A pair with small windows, so that credit has to flow."""
    client, server, split = request.param
    return Pair(load_codec(client), load_codec(server), CodecSettings(stream_window=20_000), split)


def test_a_unary_call_arrives_whole(pair: Pair) -> None:
    stream = pair.call()
    assert pair.client.send_data(stream, b"question", True) == 8
    pair.exchange()
    serving = pair.server_sink.streams[1]
    pair.server.send_headers(serving, HeaderBlock(RESPONSE), False)
    pair.server.send_data(serving, b"answer", False)
    pair.server.send_trailers(serving, HeaderBlock(TRAILERS))
    pair.exchange()
    client, server = pair.heard()
    assert server == [("request", 1, REQUEST, False), ("data", 1, b"question", True)]
    assert client == [("headers", 1, RESPONSE, False), ("data", 1, b"answer", False), ("trailers", 1, TRAILERS)]
    assert (pair.client.open_streams, pair.server.open_streams) == (0, 0)


def test_trailers_only_stays_trailers_only(pair: Pair) -> None:
    pair.call(end_stream=True)
    pair.exchange()
    pair.server.send_headers(pair.server_sink.streams[1], HeaderBlock(RESPONSE + TRAILERS), True)
    pair.exchange()
    assert pair.heard()[0] == [("headers", 1, RESPONSE + TRAILERS, True)]


def test_request_trailers_pass(pair: Pair) -> None:
    stream = pair.call()
    pair.client.send_trailers(stream, HeaderBlock([(b"x-checksum", b"1")]))
    pair.exchange()
    assert pair.heard()[1][-1] == ("trailers", 1, ((b"x-checksum", b"1"),))


def test_informational_heads_come_before_the_final_one(pair: Pair) -> None:
    pair.call(end_stream=True)
    pair.exchange()
    serving = pair.server_sink.streams[1]
    early = HeaderBlock([(b":status", b"103"), (b"link", b"</a>")])
    pair.server.send_informational(serving, early)
    pair.server.send_informational(serving, early)
    pair.server.send_headers(serving, HeaderBlock(RESPONSE), True)
    pair.exchange()
    assert [one[0] for one in pair.heard()[0]] == ["informational", "informational", "headers"]


def test_bulk_data_flows_as_credit_comes_back(pair: Pair) -> None:
    stream = pair.call()
    payload = bytes(range(256)) * 400
    sent, arrived = 0, b""
    while sent < len(payload):
        taken = pair.client.send_data(stream, payload, True, sent)
        assert taken > 0
        sent += taken
        pair.exchange()
        for word, *rest in pair.heard()[1]:
            if word == "data":
                arrived += rest[1]
                pair.server.acknowledge_received_data(pair.server_sink.streams[1], len(rest[1]))
        pair.exchange()
    assert arrived == payload
    assert pair.server.receive_window == pair.server.settings.connection_window


def test_a_reset_reaches_the_other_side_once(pair: Pair) -> None:
    stream = pair.call()
    pair.exchange()
    pair.heard()
    pair.client.reset_stream(stream, c.CANCEL)
    pair.client.reset_stream(stream, c.CANCEL)
    pair.exchange()
    assert pair.heard() == ([], [("reset", 1, c.CANCEL, True)])
    assert (pair.client.open_streams, pair.server.open_streams) == (0, 0)


def test_large_blocks_and_odd_octets_survive(pair: Pair) -> None:
    odd = bytes(octet for octet in range(1, 256) if octet not in b"\r\n \t")
    extra = tuple((b"x-%d" % i, odd + b"%d" % i) for i in range(40))
    stream = pair.client.open_stream(RecordingStream(pair.client_sink.heard))
    pair.client.send_headers(stream, HeaderBlock(REQUEST + extra, frozenset((b"x-3",))), True)
    pair.exchange()
    assert pair.heard()[1] == [("request", 1, REQUEST + extra, True)]
    assert pair.server_sink.blocks[0].never_indexed == {b"x-3"}


def test_a_ping_comes_back(pair: Pair) -> None:
    pair.server.send_ping(b"abcdefgh")
    pair.exchange()
    assert pair.heard() == ([], [("ping_ack", b"abcdefgh")])


def test_goaway_names_the_streams_that_were_not_served(pair: Pair) -> None:
    served = pair.call()
    pair.exchange()
    pair.call()
    pair.server.send_goaway(served.id, c.NO_ERROR, b"bye")
    pair.exchange()
    client, server = pair.heard()
    assert client == [("reset", 3, c.REFUSED_STREAM, True), ("goaway", 1, c.NO_ERROR, b"bye")]
    assert [one[1] for one in server] == [1]
