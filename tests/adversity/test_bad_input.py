"""What no honest app sends is turned away with a clear sign before a byte of it goes upstream; others are unharmed."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from contextlib import suppress

import hpack
import pytest
from hyperframe.frame import ContinuationFrame, DataFrame, GoAwayFrame, HeadersFrame, RstStreamFrame

from tests.adversity.bench import Lane
from tests.adversity.wire import PATIENCE, PREFACE, PROTOCOL_ERROR, REQUEST, Closed, Fields, Wire, message
from tests.services import echo

METHOD, SCHEME, PATH, AUTHORITY, TYPE, TE = REQUEST


class Recorder:
    """An upstream that answers every RPC and remembers each request head it got."""

    def __init__(self) -> None:
        self.heads: list[list[tuple[bytes, bytes]]] = []

    def __call__(self, wire: Wire) -> None:
        wire.greet()
        while True:
            frame = wire.receive()
            if isinstance(frame, HeadersFrame):
                self.heads.append(frame.fields)  # type: ignore[attr-defined]
            if isinstance(frame, HeadersFrame | DataFrame) and "END_STREAM" in frame.flags:
                wire.answer(frame.stream_id, b"answer")


def _talk(lane: Lane, octets: bytes) -> bytes:
    """Everything the sidecar says to `octets` before it closes the connection."""
    with socket.create_connection(("127.0.0.1", lane.port), timeout=PATIENCE) as sock:
        sock.sendall(octets)
        said = b""
        with suppress(ConnectionResetError):  # closed with octets of ours unread
            while some := sock.recv(65_536):
                said += some
        return said


@pytest.mark.parametrize(
    "request_line",
    [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"POST /probe.Probe/Echo HTTP/1.0\r\n\r\n", b"OPTIONS * HTTP/1.1\r\n\r\n"],
)
def test_http1_gets_one_plain_sentence_and_the_end_of_the_connection(lane: Lane, request_line: bytes) -> None:
    said = _talk(lane, request_line)
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 505 "), said
    assert b"HTTP/2" in body
    assert lane.service.encode() in body
    assert body.count(b"\n") <= 1


def test_garbage_ends_the_connection_and_nothing_else(lane: Lane) -> None:
    chance = random.Random(20261122)
    upstream = Recorder()
    with lane.serving(upstream):
        channel = lane.channel()
        assert echo(channel).status == "OK"
        for size in (1, 2, 23, 24, 25, 100, 5000):
            for _ in range(10):
                _talk(lane, bytes([chance.randrange(256) | 0x80]) + chance.randbytes(size - 1))
        assert echo(channel).status == "OK"
    assert len(upstream.heads) == 2


def test_garbage_after_a_good_preface_ends_that_connection_only(lane: Lane) -> None:
    chance = random.Random(20261123)
    upstream = Recorder()
    with lane.serving(upstream):
        channel = lane.channel()
        assert echo(channel).status == "OK"
        for _ in range(30):
            # a first frame that is not SETTINGS, of a length that is surely there
            body = chance.randbytes(300)
            _talk(lane, PREFACE + b"\x00\x00\x10" + bytes([chance.choice([0, 1, 2, 3, 5, 6, 7, 8, 9])]) + body)
        assert echo(channel).status == "OK"
    assert len(upstream.heads) == 2


def test_tls_on_a_cleartext_port_is_turned_away(lane: Lane) -> None:
    hello = bytes.fromhex("16030100c8010000c40303") + bytes(200)
    assert not _talk(lane, hello).startswith(b"HTTP/")


def _with(*fields: tuple[bytes, bytes]) -> Fields:
    return (*REQUEST, *fields)


def _without(name: bytes) -> Fields:
    return tuple(field for field in REQUEST if field[0] != name)


def _replacing(name: bytes, value: bytes) -> Fields:
    return tuple((key, value if key == name else old) for key, old in REQUEST)


MALFORMED: dict[str, Fields] = {
    **{f"octet {o:#04x} in a name": _with((b"x" + bytes([o]) + b"y", b"1")) for o in b"\0\r\n \t:A\x7f\x80\xff"},
    **{f"octet {o:#04x} in a value": _with((b"x-y", b"1" + bytes([o]) + b"2")) for o in b"\0\r\n"},
    "value begins with a space": _with((b"x-y", b" 1")),
    "value begins with a tab": _with((b"x-y", b"\t1")),
    "value ends with a space": _with((b"x-y", b"1 ")),
    "value ends with a tab": _with((b"x-y", b"1\t")),
    "empty name": _with((b"", b"1")),
    "unknown pseudo field": (*REQUEST[:4], (b":probe", b"1"), *REQUEST[4:]),
    "response pseudo field": (*REQUEST[:4], (b":status", b"200"), *REQUEST[4:]),
    "duplicate :method": (METHOD, *REQUEST),
    "duplicate :path": (PATH, *REQUEST),
    "duplicate :scheme": (SCHEME, *REQUEST),
    "duplicate :authority": (AUTHORITY, *REQUEST),
    "pseudo field after a regular one": (METHOD, SCHEME, TYPE, PATH, AUTHORITY, TE),
    "no :method": _without(b":method"),
    "no :scheme": _without(b":scheme"),
    "no :path": _without(b":path"),
    "empty :path": _replacing(b":path", b""),
    ":path without a slash": _replacing(b":path", b"probe.Probe/Echo"),
    ":path in absolute form": _replacing(b":path", b"http://evil/probe.Probe/Echo"),
    "octets in :path": _replacing(b":path", b"/probe.Probe/Echo\r\nx: y"),
    "junk in :scheme": _replacing(b":scheme", b"http://evil/?"),
    "userinfo in :authority": _replacing(b":authority", b"user@probe"),
    "host that is not :authority": _with((b"host", b"other")),
    "two hosts": (METHOD, SCHEME, PATH, TYPE, TE, (b"host", b"probe"), (b"host", b"other")),
    "connection": _with((b"connection", b"close")),
    "proxy-connection": _with((b"proxy-connection", b"keep-alive")),
    "keep-alive": _with((b"keep-alive", b"timeout=5")),
    "transfer-encoding": _with((b"transfer-encoding", b"chunked")),
    "upgrade": _with((b"upgrade", b"websocket")),
    "te of another kind": _replacing(b"te", b"gzip"),
    "content-length that is no number": _with((b"content-length", b"1x")),
    "negative content-length": _with((b"content-length", b"-1")),
    "two content-lengths": _with((b"content-length", b"5"), (b"content-length", b"6")),
    "CONNECT with a path": _replacing(b":method", b"CONNECT"),
}


def _was_rejected(app: Wire, stream: int) -> bool:
    """Whether the sidecar refused the stream in one of the ways open to it: a reset, a closed connection, or a 400."""
    seen = app.response(stream)
    goaways = [frame.error_code for frame in app.received if isinstance(frame, GoAwayFrame)]
    refused = dict(seen.head or ()).get(b":status", b"200").startswith(b"4") or seen.status == 12
    return seen.reset == PROTOCOL_ERROR or PROTOCOL_ERROR in goaways or refused


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_request_is_refused_before_a_byte_of_it_goes_upstream(lane: Lane, case: str) -> None:
    upstream = Recorder()
    with lane.serving(upstream):
        app = lane.dial()
        assert _was_rejected(app, app.request(MALFORMED[case], body=b"question"))
        after = lane.dial()
        assert after.response(after.request(body=b"next")).status == 0
    assert len(upstream.heads) == 1, "only the well-formed one arrived"


def _data(*octets: bytes) -> Callable[[Wire, int], None]:
    def send(app: Wire, stream: int) -> None:
        last = len(octets) - 1
        app.send(*(app.data(stream, each, end=number == last) for number, each in enumerate(octets)))

    return send


WHOLE = message(b"question")
# The declared content-length is that of WHOLE; what was promised upstream cannot be kept, so its stream is cut.
MISMATCHED = {
    "too short": _data(WHOLE[:-1]),
    "too short over frames": _data(WHOLE[:3], WHOLE[3:-1]),
    "too long": _data(WHOLE + b"x"),
    "too long over frames": _data(WHOLE, b"x"),
}


@pytest.mark.parametrize("case", MISMATCHED)
def test_body_that_is_not_as_long_as_declared_never_ends_well(lane: Lane, case: str) -> None:
    completed: list[bytes] = []

    def collect(wire: Wire) -> None:
        wire.greet()
        while True:
            stream, _ = wire.expect_request()
            body = b""
            while True:
                frame = wire.receive()
                if isinstance(frame, RstStreamFrame):
                    break
                if isinstance(frame, DataFrame):
                    body += frame.data
                    if "END_STREAM" in frame.flags:
                        completed.append(body)
                        wire.answer(stream)
                        break

    with lane.serving(collect):
        app = lane.dial()
        stream = app.request((*REQUEST, (b"content-length", b"%d" % len(WHOLE))))
        MISMATCHED[case](app, stream)
        assert _was_rejected(app, stream)
        after = lane.dial()
        assert after.response(after.request(body=b"next")).status == 0
    assert completed == [message(b"next")]


TRAILERS = {
    "pseudo field": ((b":path", b"/x"),),
    "content-length": ((b"content-length", b"1"),),
    "host": ((b"host", b"probe"),),
    "connection": ((b"connection", b"close"),),
    "upper case": ((b"X-Y", b"1"),),
}


@pytest.mark.parametrize("case", TRAILERS)
def test_malformed_request_trailers_are_refused(lane: Lane, case: str) -> None:
    upstream = Recorder()
    with lane.serving(upstream):
        app = lane.dial()
        stream = app.request()
        app.send(app.headers(stream, TRAILERS[case], end=True))
        assert _was_rejected(app, stream)
        after = lane.dial()
        assert after.response(after.request(body=b"next")).status == 0
    assert [head for head in upstream.heads if dict(head).get(b"x-y")] == []


def test_trailers_that_do_not_end_the_stream_are_refused(lane: Lane) -> None:
    upstream = Recorder()
    with lane.serving(upstream):
        app = lane.dial()
        stream = app.request()
        app.send(app.headers(stream, ((b"x-y", b"1"),)))
        assert _was_rejected(app, stream)


MALFORMED_RESPONSES: dict[str, Fields] = {
    "no :status": ((b"content-type", b"application/grpc"),),
    "two :status": ((b":status", b"200"), (b":status", b"200")),
    "request pseudo field": ((b":status", b"200"), (b":path", b"/")),
    "upper case": ((b":status", b"200"), (b"X-Y", b"1")),
    "connection": ((b":status", b"200"), (b"connection", b"close")),
    "transfer-encoding": ((b":status", b"200"), (b"transfer-encoding", b"chunked")),
    "line feed": ((b":status", b"200"), (b"x-y", b"1\nset-cookie: a=b")),
    "101": ((b":status", b"101"),),
    "two content-lengths": ((b":status", b"200"), (b"content-length", b"1"), (b"content-length", b"2")),
}


@pytest.mark.parametrize("case", MALFORMED_RESPONSES)
def test_malformed_response_becomes_an_error_and_never_reaches_the_app(lane: Lane, case: str) -> None:
    def respond(wire: Wire) -> None:
        wire.greet()
        stream, _ = wire.expect_request()
        wire.send(wire.headers(stream, MALFORMED_RESPONSES[case]))
        while True:  # the connection may live on
            stream, _ = wire.expect_request()
            wire.answer(stream, b"well-formed")

    with lane.serving(respond, Recorder()):
        app = lane.dial()
        seen = app.response(app.request(body=b"question"))
        assert seen.status in (13, 14), seen
        assert f"127.0.0.1:{lane.upstream_port}" in seen.text
        assert app.response(app.request(body=b"next")).status == 0


def test_header_block_that_does_not_decode_costs_only_its_connection(lane: Lane) -> None:
    upstream = Recorder()
    with lane.serving(upstream):
        app = lane.dial()
        app.send(HeadersFrame(1, b"\x80", flags=["END_HEADERS"]))  # index 0
        app.wait_closed()
        assert [frame.error_code for frame in app.received if isinstance(frame, GoAwayFrame)] == [9]
        assert echo(lane.channel()).status == "OK"


def test_too_many_header_fields_are_refused_and_not_forwarded(lane: Lane) -> None:
    upstream = Recorder()
    with lane.serving(upstream):
        app = lane.dial()
        stream = app.request(_with(*((b"x-%d" % number, b"1") for number in range(200))), body=b"question")
        seen = app.response(stream)
        told = dict(seen.head or ()).get(b":status") == b"431" or seen.status == 8
        assert told or seen.reset is not None or seen.lost
        after = lane.dial()
        assert after.response(after.request(body=b"next")).status == 0
    assert len(upstream.heads) == 1


def test_endless_continuation_ends_the_connection(lane: Lane) -> None:
    block = hpack.Encoder().encode([*REQUEST, (b"x-y", b"z" * 200)])
    app = lane.dial()
    app.send(HeadersFrame(1, block))
    with suppress(Closed):  # as it should be
        for _ in range(1000):
            app.send(ContinuationFrame(1, b"\x00\x01a\x01b"))
    app.wait_closed()
