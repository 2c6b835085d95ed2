"""Any order of anything: apps and servers that send, stall, reset, go away and come back, over both codecs.

The far ends are real codecs, so a frame after END_STREAM or RST_STREAM, or beyond a window or a stream limit, is an
error there and fails the test. Every sequence ends with everybody finishing what they began, and then nothing may be
left of it: that is what leaks are found by (correctness before speed, T1).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.http2 import constants as h2
from sidecar.http2.interface import Codec, CodecSettings
from sidecar.proxy.settings import BufferSettings, ConnectionSettings, Http2Settings, LimitSettings
from tests.proxy.pipe import Ear, Peer
from tests.proxy.stage import Server, Stage, on_loop

RESETS = (h2.CANCEL, h2.REFUSED_STREAM, h2.NO_ERROR, h2.INTERNAL_ERROR)
OK = [(b"grpc-status", b"0")]

number = st.integers(0, 40)
size = st.sampled_from([1, 5, 100, 3000, 20_000, 70_000])
call = st.tuples(st.just("call"), number, st.booleans(), st.sampled_from([None, None, b"50m", b"10S"]))
run = st.tuples(st.just("run"))
action = st.one_of(
    call,
    call,
    call,
    call,
    run,
    run,
    run,
    st.tuples(st.just("app_send"), number, size, st.booleans()),
    st.tuples(st.just("app_reset"), number, st.sampled_from(RESETS)),
    st.tuples(st.just("app_credit"), number, size),
    st.tuples(st.just("app_hangs_up"), number),
    st.tuples(st.just("respond"), number),
    st.tuples(st.just("server_send"), number, size, st.booleans()),
    st.tuples(st.just("server_send"), number, size, st.booleans()),
    st.tuples(st.just("server_reset"), number, st.sampled_from(RESETS)),
    st.tuples(st.just("server_reset"), number, st.just(h2.REFUSED_STREAM)),
    st.tuples(st.just("server_credit"), number, size),
    st.tuples(st.just("server_goes_away"), number, number),
    st.tuples(st.just("server_hangs_up"), number),
    st.tuples(st.just("reading"), number, st.booleans()),
    st.tuples(st.just("refusing"), number, st.booleans()),
    st.tuples(st.just("discover"), st.sampled_from([0, 1, 3, 5, 6, 7, 7, 7])),
    st.tuples(st.just("advance"), st.sampled_from([0.001, 0.1, 3.5, 40.0])),
)


@dataclass
class Play:
    """What the test knows of one run."""

    stage: Stage
    calls: list[Ear] = field(default_factory=list)

    def pick(self, some: list[Any], index: int) -> Any:
        return some[index % len(some)] if some else None

    @property
    def apps(self) -> list[Peer]:
        return [app for app in self.stage.apps if not app.lost and not app.pipe.closing and not app.goaways]

    @property
    def connections(self) -> list[Peer]:
        return [c for server in self.stage.servers for c in server.connections if not c.lost and not c.pipe.closing]

    @property
    def requests(self) -> list[Ear]:
        return [ear for connection in self.connections for ear in connection.streams if not ear.closed]

    @property
    def open_calls(self) -> list[Ear]:
        return [ear for ear in self.calls if not ear.closed and not ear.peer.pipe.closing]

    # -- actions --------------------------------------------------------------------------------------

    def call(self, index: int, crediting: bool, timeout: bytes | None) -> None:
        app = self.pick(self.apps, index)
        if app is None:
            app = self.stage.app(CodecSettings(stream_window=65_535, reset_burst=10**9))
        if app.codec.open_streams < app.codec.remote_max_concurrent_streams:
            app.crediting = crediting
            extra = [(b"grpc-timeout", timeout)] if timeout else []
            ear = app.call((b"x-call", b"%d" % len(self.calls)), *extra)
            ear.crediting = crediting
            self.calls.append(ear)

    def app_send(self, index: int, octets: int, end: bool) -> None:
        ear = self.pick(self.open_calls, index)
        if ear is not None and ear.finish is False:
            ear.send(bytes((index,)) * octets)
            if end:
                ear.end()

    def app_reset(self, index: int, code: int) -> None:
        ear = self.pick(self.open_calls, index)
        if ear is not None:
            ear.cancel(code)

    def app_credit(self, index: int, octets: int) -> None:
        ear = self.pick([ear for ear in self.calls if ear.owed], index)
        if ear is not None:
            ear.give_back(octets)

    def app_hangs_up(self, index: int) -> None:
        app = self.pick(self.apps, index)
        if app is not None and index % 4 == 0:
            app.hang_up()

    def respond(self, index: int) -> None:
        ear = self.pick([ear for ear in self.requests if not ear.responded], index)
        if ear is not None:
            self._respond(ear)

    def _respond(self, ear: Ear) -> None:
        ear.responded = True
        ear.peer.respond(ear)

    def server_send(self, index: int, octets: int, end: bool) -> None:
        ear = self.pick([ear for ear in self.requests if ear.responded and ear.finish is False], index)
        if ear is not None:
            ear.send(bytes((index,)) * octets)
            if end:
                ear.end(OK)

    def server_reset(self, index: int, code: int) -> None:
        ear = self.pick(self.requests, index)
        if ear is not None:
            ear.cancel(code)

    def server_credit(self, index: int, octets: int) -> None:
        ear = self.pick([ear for ear in self.requests if ear.owed], index)
        if ear is not None:
            ear.give_back(octets)

    def server_goes_away(self, index: int, last: int) -> None:
        connection = self.pick(self.connections, index)
        if connection is not None:
            highest = connection.codec.highest_remote_stream_id
            connection.codec.send_goaway(min(highest, 2 * last + 1) if last % 3 else 2**31 - 1, h2.NO_ERROR)

    def server_hangs_up(self, index: int) -> None:
        connection = self.pick(self.connections, index)
        if connection is not None and index % 2 == 0:
            connection.hang_up()

    def reading(self, index: int, on: bool) -> None:
        peer = self.pick([*self.apps, *self.connections], index)
        if peer is not None:
            peer.reading = on

    def refusing(self, index: int, on: bool) -> None:
        server: Server = self.pick(self.stage.servers, index)
        server.refusing = ConnectionRefusedError(111, "refused") if on else None

    def discover(self, mask: int) -> None:
        self.stage.discover(*(s.address for n, s in enumerate(self.stage.servers) if mask >> n & 1))

    async def do(self, name: str, *arguments: Any) -> None:
        if name == "advance":
            await self.stage.advance(*arguments)
        elif name == "run":
            await self.stage.run()
        else:
            getattr(self, name)(*arguments)

    # -- the end --------------------------------------------------------------------------------------

    async def finish(self) -> None:
        """Everybody reads, credits, answers and ends."""
        for server in self.stage.servers:
            server.refusing = None
        self.discover(7)
        for _ in range(60):
            for peer in [*self.stage.apps, *self.connections]:
                peer.reading = peer.crediting = True
                for ear in peer.streams:
                    ear.crediting = True
                    if ear.owed:
                        ear.give_back()
            for ear in self.open_calls:
                ear.end()
            for ear in self.requests:
                if not ear.responded:
                    self._respond(ear)
                ear.end(OK)
            await self.stage.advance(0.5)
            if not self.stage.dispatch.in_flight and all(ear.over or ear.closed for ear in self.calls):
                return
        raise AssertionError(f"never over: {self.stage.dispatch} {[ear for ear in self.calls if not ear.over]}")


def prefix(received: bytes, sent: bytes) -> bool:
    """Whether what was received is how what was sent begins."""
    return sent.startswith(received)


def check(play: Play) -> None:
    """What must hold whatever happened."""
    stage = play.stage
    assert stage.leaks() == []
    assert stage.metrics.exchange_started == len(stage.records)
    pairs = {}
    for server in stage.servers:
        for request in server.requests:
            pairs.setdefault(request.request[b"x-call"], []).append(request)
    for index, call in enumerate(play.calls):
        attempts = pairs.get(b"%d" % index, [])
        for request in attempts:
            assert prefix(request.data, call.sent), "octets that the app never sent reached a server"
            assert request.stream is not None
            assert request.stream.remote_closed or request.peer.lost, "the app's stream is over and the server's is not"
            if call.status == 0 and request.sent and request is attempts[-1]:
                assert call.data == request.sent, "a good status on an answer that is not whole"
        if call.data:
            assert any(prefix(call.data, request.sent) for request in attempts), "octets that no server sent"
        if not call.peer.lost:
            assert call.over or call.closed, "an RPC without an end"
            assert not (call.ended and call.reset not in (None, h2.NO_ERROR)), "two ends"


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    actions=st.lists(action, min_size=15, max_size=80),
    streams=st.sampled_from([1, 2, 100]),
    window=st.sampled_from([65_535, 262_144]),
    replay=st.sampled_from([0, 4_000, 65_536]),
    soft=st.sampled_from([50_000, 2**25]),
)
def test_whatever_happens_nothing_is_lost_doubled_or_left_over(
    codec: type[Codec],
    actions: list[tuple[Any, ...]],
    streams: int,
    window: int,
    replay: int,
    soft: int,
) -> None:
    play_it(codec, actions, streams, window, replay, soft)


STEPS = (
    ("call", 10),
    ("run", 10),
    ("app_send", 10),
    ("app_reset", 1),
    ("app_credit", 5),
    ("app_hangs_up", 1),
    ("respond", 6),
    ("server_send", 10),
    ("server_reset", 4),
    ("server_credit", 5),
    ("server_goes_away", 1),
    ("server_hangs_up", 1),
    ("reading", 2),
    ("refusing", 1),
    ("discover", 1),
    ("advance", 3),
)


def random_action(rng: random.Random) -> tuple[Any, ...]:
    """The same, with many RPCs at a time, which hypothesis does not come to by itself."""
    (name,) = rng.choices([name for name, _ in STEPS], [weight for _, weight in STEPS])
    index, octets = rng.randrange(40), rng.choice([1, 5, 100, 3000, 20_000, 70_000])
    arguments: dict[str, tuple[Any, ...]] = {
        "call": (index, rng.random() < 0.8, rng.choice([None, None, None, b"300m", b"10S"])),
        "app_send": (index, octets, rng.random() < 0.4),
        "app_reset": (index, rng.choice(RESETS)),
        "app_credit": (index, octets),
        "app_hangs_up": (index,),
        "respond": (index,),
        "server_send": (index, octets, rng.random() < 0.4),
        "server_reset": (index, rng.choice((h2.REFUSED_STREAM, *RESETS))),
        "server_credit": (index, octets),
        "server_goes_away": (index, rng.randrange(40)),
        "server_hangs_up": (index,),
        "reading": (index, rng.random() < 0.7),
        "refusing": (index, rng.random() < 0.3),
        "discover": (rng.choice([1, 3, 5, 7, 7, 7]),),
        "advance": (rng.choice([0.001, 0.01, 0.1, 0.1, 0.4, 3.5]),),
        "run": (),
    }
    return (name, *arguments[name])


@pytest.mark.parametrize("seed", range(12))
def test_long_plays_of_many_rpcs_lose_double_and_leave_nothing(codec: type[Codec], seed: int) -> None:
    rng = random.Random(seed)
    actions = [random_action(rng) for _ in range(400)]
    streams, replay, soft = rng.choice([1, 2, 100]), rng.choice([0, 4_000, 65_536]), rng.choice([50_000, 2**25])
    play_it(codec, actions, streams, 65_535, replay, soft)


@on_loop
async def play_it(
    codec: type[Codec], actions: list[tuple[Any, ...]], streams: int, window: int, replay: int, soft: int
) -> None:
    stage = Stage(
        codec,
        servers=3,
        server_settings=CodecSettings(max_concurrent_streams=streams, stream_window=window, reset_burst=10**9),
        connection=ConnectionSettings(max_connections=2, max_age=60, idle_timeout=30),
        limits=LimitSettings(replay_size=replay),
        http2=Http2Settings(idle_timeout=100),
        buffers=BufferSettings(soft_limit=soft, hard_limit=2**26, per_connection=32_768),
    )
    play = Play(stage)
    await stage.run()
    for step in actions:
        await play.do(*step)
    await play.finish()
    check(play)
    stage.dispatch.close("the end")
    stage.listener.abort()
    await stage.advance(2)
    assert stage.engine.connections == set()
    assert stage.dispatch.pools == {}
