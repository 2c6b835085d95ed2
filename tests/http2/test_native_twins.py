"""The native codec beside the reference: the same octets and the same commands, and then the same words and frames.

The traffic is random but seeded. What each wrote is compared frame by frame, field blocks decoded, since the two may
encode a block differently.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from sidecar.http2 import constants as c
from sidecar.http2.codec import load_codec
from sidecar.http2.errors import ProtocolError
from sidecar.http2.interface import CodecSettings, HeaderBlock
from tests import frames
from tests.conftest import CODEC_NAMES
from tests.http2.script import CLIENT, REQUEST, RESPONSE, SERVER, TRAILERS, Script, byte_by_byte, whole

if "native" not in CODEC_NAMES:
    pytest.skip("the native codec is not built here", allow_module_level=True)

SMALL = {"stream_window": 900, "connection_window": 70_000, "max_concurrent_streams": 6, "max_header_list_size": 600}
INTERIM = ((b":status", b"103"),)
SECRET = (*REQUEST, (b"authorization", b"Bearer x"), (b"grpc-timeout", b"20m"))
LIMITS = [(3, 2), (3, 50), (4, 0), (4, 300), (4, 70_000), (5, 20_000), (1, 0), (1, 4096), (6, 500), (9, 9)]
WRONG = [REQUEST, RESPONSE, TRAILERS, ((b"Bad", b""),)]
BIG = (*TRAILERS, (b"x-big", b"b" * 700))


class Twins:
    """Two codecs that live through the same."""

    def __init__(self, role: int, **settings: object) -> None:
        self.role = role
        self.scripts = [
            Script(load_codec(name), role, CodecSettings(**SMALL | settings), whole) for name in ("reference", "native")
        ]

    def both(self, act: Any) -> Any:
        """Do it to both; they must answer the same, errors included."""
        answers = []
        for script in self.scripts:
            try:
                answers.append(act(script))
            except ProtocolError as error:
                answers.append((type(error), error.error_code))
        assert answers[0] == answers[1]
        return answers[0]

    def compare(self) -> None:
        self.both(lambda script: script.heard())
        self.both(lambda script: [_comparable(one) for one in script.sent()])
        self.both(
            lambda script: (
                script.codec.receive_window,
                script.codec.open_streams,
                script.codec.highest_remote_stream_id,
                script.codec.next_stream_id,
                script.codec.remote_max_concurrent_streams,
            )
        )
        self.both(lambda script: [(s.id, s.local_closed, s.remote_closed) for s in script.sink.streams.values()])


def _comparable(seen: frames.Seen) -> object:
    if seen.kind == "Headers" and not seen.fields:  # an empty trailing block; the reference says it with DATA
        return frames.Seen("Data", seen.stream_id, seen.end_stream)
    seen.frames = 1
    if seen.kind == "GoAway":
        seen.data = b""  # the reason is for people
    return seen


class ScriptedPeer:
    """Mostly honest: what it sends on a stream fits what the stream has come to."""

    def __init__(self, dice: random.Random, role: int) -> None:
        self.dice = dice
        self.facing = role
        self.octets = frames.Peer()
        self.headed: set[int] = set()
        self.newest = -1

    def act(self, script: Script) -> bytes:
        """The next octets."""
        dice = self.dice
        live = [stream.id for stream in script.sink.streams.values() if not stream.remote_closed]
        if dice.random() < 0.03:
            return self.misbehave(dice.choice([0, 1, 2, max(self.newest, 1), self.newest + 20]))
        if self.facing == SERVER and (not live or dice.random() < 0.25):
            self.newest += 2
            self.headed.add(self.newest)
            return self.octets.headers(self.newest, dice.choice([REQUEST, SECRET]), dice.random() < 0.2)
        if not live or dice.random() < 0.3:
            return self.speak_of_the_connection()
        return self.speak_of(dice.choice(live))

    def speak_of(self, stream_id: int) -> bytes:
        """On a stream whose remote half is open."""
        dice = self.dice
        end, padding = dice.random() < 0.25, dice.choice([None, None, 0, 3])
        if self.facing == CLIENT and stream_id not in self.headed:
            if dice.random() < 0.2:
                return self.octets.headers(stream_id, INTERIM)
            self.headed.add(stream_id)
            return self.octets.headers(stream_id, RESPONSE, end, dice.choice([1, 1, 2]), padding)
        match dice.randrange(12):
            case 0:
                return self.octets.headers(stream_id, dice.choice([TRAILERS, TRAILERS, BIG]), True)
            case 1:
                return frames.rst_stream(stream_id, dice.choice([0, 7, 8, 99]))
            case 2:
                return frames.window_update(stream_id, dice.choice([1, 100, 1000]))
        return frames.data(stream_id, bytes(dice.choice([0, 1, 100, 200])), end, padding)

    def speak_of_the_connection(self) -> bytes:
        """What is always legal, if not too often."""
        dice = self.dice
        match dice.randrange(6):
            case 0:
                return frames.window_update(0, dice.choice([1, 1000]))
            case 1 | 2:
                return frames.settings(dice.choice(LIMITS))
            case 3:
                return frames.ping(ack=dice.random() < 0.5)
            case 4:
                return frames.priority(dice.choice([1, 3, 5]), 0)
        return frames.raw(0xFA, 0, 0, b"unknown")

    def misbehave(self, stream_id: int) -> bytes:
        """What may cost a stream or the connection."""
        dice = self.dice
        match dice.randrange(8):
            case 0:
                return self.octets.headers(stream_id, dice.choice(WRONG), True)
            case 1 | 2:
                return frames.data(stream_id, bytes(dice.choice([0, 5, 2000])))
            case 3:
                return frames.window_update(stream_id, dice.choice([0, 2**31 - 1]))
            case 4:
                return frames.rst_stream(stream_id, c.CANCEL)
            case 5:
                return frames.priority(stream_id, stream_id)
            case 6:
                return frames.goaway(dice.choice([0, 1, 5, 2**31 - 1]))
        return frames.raw(dice.randrange(12), dice.randrange(256), stream_id, bytes(dice.randrange(10)))


def _we_act(script: Script, number: int, choice: int) -> object:
    """One command; illegal ones are part of it."""
    codec = script.codec
    streams = list(script.sink.streams.values())
    stream = streams[number % len(streams)] if streams else None
    block = HeaderBlock((RESPONSE, TRAILERS, BIG, ())[number % 4])
    match choice:
        case 0 if codec.role == CLIENT:
            return script.open(number % 3 == 0, SECRET if number % 2 else REQUEST).id
        case 1 if stream is not None:
            return codec.send_headers(stream, HeaderBlock(RESPONSE), number % 5 == 0)
        case 2 | 3 | 4 if stream is not None:
            return codec.send_data(stream, bytes(number % 700), number % 3 == 0, min(number % 7, number % 700))
        case 5 if stream is not None:
            return codec.send_trailers(stream, block)
        case 6 if stream is not None:
            return codec.reset_stream(stream, number % 14)
        case 7 | 8 | 9 if stream is not None:
            return codec.acknowledge_received_data(stream, number % 500)
        case 10:
            return codec.hold_credit(number % 2 == 0)
        case 11:
            return codec.limit_output(number * 10)
        case 12:
            return codec.send_ping(b"12345678")
        case 13 if number % 20 == 0:
            return codec.send_goaway(2**31 - 1 if number % 40 else 5, 0)
        case 14 if stream is not None and codec.role == SERVER:
            return codec.send_informational(stream, HeaderBlock(INTERIM))
        case 15:
            return codec.refill(number / 10)
    return None


@pytest.mark.parametrize("role", [SERVER, CLIENT], ids=["server", "client"])
@pytest.mark.parametrize("seed", range(60))
def test_twins_hear_and_say_the_same(role: int, seed: int) -> None:
    dice = random.Random(seed)
    twins, peer = Twins(role), ScriptedPeer(dice, role)
    for _ in range(150):
        if dice.random() < 0.5:
            wire = peer.act(twins.scripts[0])
            twins.both(lambda script, wire=wire: script.receive(wire))
        else:
            number, choice = dice.randrange(1000), dice.randrange(16)
            twins.both(lambda script, number=number, choice=choice: _we_act(script, number, choice))
        twins.compare()


def _conversation(role: int) -> bytes:
    """A peer's side of a connection with one of everything."""
    peer = frames.Peer()
    head = REQUEST if role == SERVER else RESPONSE
    return b"".join(
        (
            frames.PREFACE if role == SERVER else b"",
            frames.settings((4, 5000), (1, 100)),
            frames.settings(ack=True),
            peer.headers(1, head, pieces=3, padding=4),
            frames.data(1, b"abc", padding=5),
            frames.ping(),
            peer.headers(3, (*head, (b"content-length", b"4"))),
            frames.raw(0xFA, 0, 0, b"unknown"),
            frames.data(3, b"four", end_stream=True),
            frames.window_update(0, 100),
            frames.window_update(1, 100),
            peer.headers(1, TRAILERS, end_stream=True),
            peer.headers(5, ((b":status", b"103"),) if role == CLIENT else head),
            frames.priority(5, 3),
            frames.rst_stream(5, c.CANCEL),
            frames.goaway(2**31 - 1, c.NO_ERROR, b"bye"),
        )
    )


def _came_to(name: str, role: int, pieces: list[bytes]) -> object:
    script = Script(load_codec(name), role, CodecSettings(**SMALL), whole, started=False)
    error_code = None
    if role == CLIENT:
        for _ in range(3):
            script.open()
    try:
        for piece in pieces:
            script.codec.receive_data(piece)
    except ProtocolError as error:
        error_code = error.error_code
    sent = [_comparable(one) for one in script.sent()]
    return script.heard(), sent, error_code, script.codec.receive_window, script.codec.open_streams


@pytest.mark.parametrize("role", [SERVER, CLIENT], ids=["server", "client"])
def test_a_cut_at_any_octet_changes_nothing(role: int) -> None:
    wire = _conversation(role)
    expected = _came_to("reference", role, [wire])
    for cut in range(len(wire) + 1):
        assert _came_to("native", role, [wire[:cut], wire[cut:]]) == expected
    assert _came_to("native", role, byte_by_byte(wire)) == expected


@pytest.mark.parametrize("role", [SERVER, CLIENT], ids=["server", "client"])
def test_a_changed_octet_anywhere_is_taken_the_same_way(role: int) -> None:
    wire = _conversation(role)
    dice = random.Random(7541)
    for position in range(len(wire)):
        changed = bytearray(wire)
        changed[position] ^= dice.randrange(1, 256)
        cut = dice.randrange(len(wire))
        pieces = [bytes(changed[:cut]), bytes(changed[cut:])]
        assert _came_to("native", role, pieces) == _came_to("reference", role, [bytes(changed)]), position
