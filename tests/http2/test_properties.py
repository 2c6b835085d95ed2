"""What holds for any traffic: split points do not matter, no octet of credit is lost, every codec hears the same."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from sidecar.http2 import constants as c
from sidecar.http2.codec import load_codec
from sidecar.http2.errors import RemoteProtocolError
from sidecar.http2.interface import Codec, CodecSettings, HeaderBlock, Sink, Stream, StreamSink
from tests import frames
from tests.conftest import CODEC_NAMES
from tests.http2 import corpus
from tests.http2.script import CLIENT, REQUEST, RESPONSE, SERVER, TRAILERS, Heard, Script, whole

FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

STREAM_IDS = st.sampled_from([0, 1, 1, 1, 3, 3, 5, 7, 2, 9])
BLOCKS = st.sampled_from(
    [
        REQUEST,
        REQUEST,
        RESPONSE,
        TRAILERS,
        (*REQUEST, (b"content-length", b"3")),
        ((b":status", b"103"),),
        *list(corpus.MALFORMED_REQUESTS.values())[:6],
    ]
)


@st.composite
def traffic(draw: st.DrawFn) -> list[bytes]:
    """Frames of a peer that is sometimes honest. Opens streams in order more often than not."""
    peer = frames.Peer()
    wire = [peer.headers(1, REQUEST)] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 12))):
        stream_id = draw(STREAM_IDS)
        end_stream = draw(st.booleans())
        match draw(st.integers(0, 11)):
            case 0 | 1 | 2:
                padding = draw(st.none() | st.integers(0, 20))
                wire.append(peer.headers(stream_id, draw(BLOCKS), end_stream, draw(st.integers(1, 3)), padding))
            case 3 | 4 | 5:
                payload = draw(st.sampled_from([b"", b"abc", bytes(700)]))
                wire.append(frames.data(stream_id, payload, end_stream, draw(st.none() | st.integers(0, 255))))
            case 6:
                wire.append(frames.window_update(stream_id, draw(st.sampled_from([0, 1, 500, 2**31 - 1]))))
            case 7:
                wire.append(frames.rst_stream(stream_id, draw(st.integers(0, 20))))
            case 8:
                wire.append(frames.settings((draw(st.integers(1, 8)), draw(st.sampled_from([0, 1, 20_000])))))
            case 9:
                wire.append(frames.ping(ack=draw(st.booleans())))
            case 10:
                wire.append(frames.priority(stream_id, draw(STREAM_IDS)))
            case 11:
                wire.append(frames.goaway(draw(STREAM_IDS)))
    return wire


@st.composite
def mutated_traffic(draw: st.DrawFn) -> bytes:
    """The same with a few octets changed, dropped or added."""
    wire = bytearray(b"".join(draw(traffic())))
    for _ in range(draw(st.integers(0, 3))):
        position = draw(st.integers(0, len(wire) - 1))
        match draw(st.integers(0, 2)):
            case 0:
                wire[position] = draw(st.integers(0, 255))
            case 1:
                del wire[position]
            case 2:
                wire[position:position] = draw(st.binary(min_size=1, max_size=4))
        if not wire:
            break
    return bytes(wire)


Result = tuple[list[Heard], list[Any], int | None, int, int]


def _play(codec: type[Codec], role: int, wire: list[bytes]) -> Result:
    """What was heard, what was answered, the error, the window and the streams left over."""
    script = Script(codec, role, CodecSettings(stream_window=3000, connection_window=70_000), whole)
    if role == CLIENT:
        script.open()
        script.open(end_stream=True)
        script.sent()
    error_code = None
    try:
        for piece in wire:
            script.codec.receive_data(piece)
    except RemoteProtocolError as error:
        error_code = error.error_code
    heard = script.heard()
    answered = [(s.kind, s.stream_id, s.error_code, s.increment, s.ack, s.last_stream_id) for s in script.sent()]
    return heard, answered, error_code, script.codec.receive_window, script.codec.open_streams


@pytest.mark.parametrize("role", [SERVER, CLIENT], ids=["server", "client"])
@FEW
@given(wire=mutated_traffic(), cuts=st.lists(st.integers(0, 2000), max_size=6))
def test_split_points_do_not_matter(codec: type[Codec], role: int, wire: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cut for cut in cuts if cut < len(wire)), len(wire)]
    pieces = [wire[start:end] for start, end in itertools.pairwise(edges)]
    assert _play(codec, role, pieces) == _play(codec, role, [wire])


@pytest.mark.parametrize("role", [SERVER, CLIENT], ids=["server", "client"])
@FEW
@given(wire=traffic())
def test_credit_is_conserved_whatever_the_peer_sends(codec: type[Codec], role: int, wire: list[bytes]) -> None:
    *_, error_code, window, _ = _play(codec, role, wire)
    assert error_code is not None or window == 70_000


@pytest.mark.parametrize("role", [SERVER, CLIENT], ids=["server", "client"])
@FEW
@given(wire=traffic())
def test_a_stream_hears_nothing_after_its_last_word(codec: type[Codec], role: int, wire: list[bytes]) -> None:
    heard, *_ = _play(codec, role, wire)
    ended: set[int] = set()
    reset: set[int] = set()
    for word, stream_id, *rest in (
        one for one in heard if one[0] in ("request", "headers", "data", "trailers", "reset")
    ):
        assert stream_id not in reset
        assert stream_id not in ended or word == "reset"
        if word == "reset":
            reset.add(stream_id)
        elif word == "trailers" or rest[-1] is True:
            ended.add(stream_id)


@pytest.mark.parametrize("role", [SERVER, CLIENT], ids=["server", "client"])
@pytest.mark.parametrize("name", CODEC_NAMES)
@settings(max_examples=100, deadline=None)
@given(wire=mutated_traffic())
def test_every_codec_hears_and_answers_what_the_reference_does(name: str, role: int, wire: bytes) -> None:
    heard, answered, *rest = _play(load_codec(name), role, [wire])
    expected_heard, expected_answered, *expected_rest = _play(load_codec("reference"), role, [wire])
    assert (heard, rest) == (expected_heard, expected_rest)
    assert sorted(answered) == sorted(expected_answered)


# -- two hops -------------------------------------------------------------------------------------------


class _Buffer(StreamSink):
    """Keeps what it is given until somebody takes it."""

    def __init__(self) -> None:
        self.received = b""
        self.unread = 0
        self.ended = False

    def on_data(self, data: bytes, end_stream: bool) -> None:
        self.received += data
        self.unread += len(data)
        self.ended |= end_stream


class _Acceptor(Sink):
    def __init__(self) -> None:
        self.streams: list[Stream] = []

    def on_request(self, stream: Stream, block: HeaderBlock, end_stream: bool) -> None:
        stream.sink = _Buffer()
        self.streams.append(stream)


class TwoHops(RuleBasedStateMachine):
    """app -> [server codec, relay, client codec] -> instance, with small windows and a relay that buffers no more."""

    WINDOWS = CodecSettings(stream_window=500, connection_window=65_535)

    def __init__(self, name: str) -> None:
        super().__init__()
        codec = load_codec(name)
        self.accepted, self.served = _Acceptor(), _Acceptor()
        self.app = codec(CLIENT, self.WINDOWS, Sink())
        self.near = codec(SERVER, self.WINDOWS, self.accepted)
        self.far = codec(CLIENT, self.WINDOWS, Sink())
        self.instance = codec(SERVER, self.WINDOWS, self.served)
        self.codecs = (self.app, self.near, self.far, self.instance)
        for one in self.codecs:
            one.initiate_connection()
        self.sending: list[tuple[Stream, bytearray, list[bool]]] = []  # stream, what is left, whether to end
        self.relayed: dict[int, tuple[Stream, int, bool]] = {}  # near id -> far stream, octets forwarded, ended
        self.wrote: dict[int, bytes] = {}
        self.carry()

    def carry(self) -> None:
        while any(one.has_data_to_send() for one in self.codecs):
            for one, other in ((self.app, self.near), (self.far, self.instance)):
                other.receive_data(one.data_to_send())
                one.receive_data(other.data_to_send())

    @rule(size=st.integers(0, 2000), end=st.booleans())
    def open(self, size: int, end: bool) -> None:
        if self.app.open_streams >= 8:
            return
        stream = self.app.open_stream(StreamSink())
        self.app.send_headers(stream, HeaderBlock(REQUEST), False)
        payload = bytes((stream.id + n) % 251 for n in range(size))
        self.sending.append((stream, bytearray(payload), [end]))
        self.wrote[stream.id] = payload

    @rule()
    def send(self) -> None:
        for stream, left, end in self.sending:
            if not stream.local_closed:
                del left[: self.app.send_data(stream, bytes(left), end[0])]
        self.carry()

    @rule()
    def relay(self) -> None:
        """Forward as much as fits, and give back exactly that."""
        for near in self.accepted.streams:
            far, forwarded, ended = self.relayed.get(near.id) or (self.far.open_stream(StreamSink()), 0, False)
            if near.id not in self.relayed:
                self.far.send_headers(far, HeaderBlock(REQUEST), False)
            buffer = near.sink
            assert isinstance(buffer, _Buffer)
            if not far.local_closed:
                left = len(buffer.received) - forwarded
                if left and self.far.send_part(far, buffer.received, forwarded, left, buffer.ended):
                    taken = left
                else:
                    taken = self.far.send_data(far, buffer.received, buffer.ended, forwarded)
                self.near.acknowledge_received_data(near, taken)
                buffer.unread -= taken
                forwarded += taken
            self.relayed[near.id] = (far, forwarded, ended)
        self.carry()

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        """The instance reads from one of its streams."""
        if not self.served.streams:
            return
        stream = data.draw(st.sampled_from(self.served.streams))
        buffer = stream.sink
        assert isinstance(buffer, _Buffer)
        self.instance.acknowledge_received_data(stream, buffer.unread)
        buffer.unread = 0
        self.carry()

    @precondition(lambda self: self.sending)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        stream, left, _ = data.draw(st.sampled_from(self.sending))
        self.app.reset_stream(stream, c.CANCEL)
        left.clear()
        self.carry()

    @invariant()
    def what_arrived_is_what_was_sent(self) -> None:
        far_to_near = {far.id: near for near, (far, _, _) in self.relayed.items()}
        for stream in self.served.streams:
            buffer = stream.sink
            assert isinstance(buffer, _Buffer)
            assert self.wrote[far_to_near[stream.id]].startswith(buffer.received)

    @invariant()
    def memory_is_bounded_by_the_windows(self) -> None:
        for stream in (*self.accepted.streams, *self.served.streams):
            assert isinstance(stream.sink, _Buffer)
            assert stream.sink.unread <= self.WINDOWS.stream_window

    @invariant()
    def connection_credit_is_complete(self) -> None:
        for one in self.codecs:
            assert one.receive_window == self.WINDOWS.connection_window


@pytest.mark.parametrize("name", CODEC_NAMES)
def test_two_hops_lose_nothing_and_hold_no_more_than_their_windows(name: str) -> None:
    class UnderTest(TwoHops):
        def __init__(self) -> None:
            super().__init__(name)

    run_state_machine_as_test(UnderTest, settings=settings(max_examples=25, stateful_step_count=25, deadline=None))
