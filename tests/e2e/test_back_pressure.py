"""A reader that stalls holds back its own sender and nobody else, and the sidecar's memory does not grow (H2-44..46).

The long stream has 1 GiB, with either codec; `SIDECAR_STREAM_MIB` sets another size.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent import futures
from typing import Any, NamedTuple

import grpc
import pytest

from tests.adversity.bench import Bench, Lane
from tests.adversity.wire import HEAD, REQUEST, Wire, message
from tests.conftest import CODEC_NAMES
from tests.processes import MemoryWatch, Sidecar, free_port
from tests.services import DOWNLOAD, UPLOAD, AppProcess, connect, download_request, echo

pytestmark = pytest.mark.once

MIB = 2**20
STREAM_MIB = int(os.environ.get("SIDECAR_STREAM_MIB", "1024"))
MESSAGE = 65_536
OTHERS = 200  # RPCs that must complete while one stream stands still
# What the process may grow by: two connections' windows (4 MiB each), and what the allocator keeps of them.
ALLOWED_GROWTH = 24 * MIB


class Stage(NamedTuple):
    """A real server in a process of its own behind a sidecar, and one app connection."""

    codec: str
    sidecar: Sidecar
    channel: grpc.Channel


@pytest.fixture(params=CODEC_NAMES)
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("pressure")
    port = free_port()
    with AppProcess("probe", free_port(), directory) as app:
        app.wait_serving()
        upstream = {"service": "probe", "listen": f"127.0.0.1:{port}", "endpoints": [f"127.0.0.1:{app.port}"]}
        with (
            Sidecar({"upstreams": [upstream]}, directory, codec=request.param) as sidecar,
            connect(port) as channel,
        ):
            for _ in range(100):
                assert echo(channel).status == "OK"
            yield Stage(request.param, sidecar, channel)


def _time_of(channel: grpc.Channel, count: int) -> list[float]:
    """Seconds that each of `count` RPCs took, ascending; all must succeed."""
    took = []
    for number in range(count):
        before = time.perf_counter()
        reply = echo(channel, b"%d" % number)
        took.append(time.perf_counter() - before)
        assert (reply.status, reply.message) == ("OK", b"%d" % number), reply
    return sorted(took)


def _download(channel: Any, mib: int) -> Any:
    count = mib * MIB // MESSAGE
    return channel.unary_stream(DOWNLOAD)(download_request(count, MESSAGE))


def test_stalled_reader_of_a_long_stream_costs_nothing_but_its_own_progress(stage: Stage) -> None:
    with MemoryWatch(stage.sidecar) as memory:
        stream = _download(stage.channel, STREAM_MIB)
        received = len(next(stream))
        # The stream stands still from here: each of these completes although it does.
        took = _time_of(stage.channel, OTHERS)
        before = time.perf_counter()
        for part in stream:
            received += len(part)
        seconds = time.perf_counter() - before
    print(
        f"{stage.codec}: {STREAM_MIB} MiB in {seconds:.1f} s, growth {memory.growth / MIB:.1f} MiB,"
        f" others beside the stall p50 {took[len(took) // 2] * 1e3:.2f} ms, max {took[-1] * 1e3:.2f} ms"
    )
    assert received == STREAM_MIB * MIB
    assert memory.growth < ALLOWED_GROWTH


def test_other_rpcs_complete_beside_a_stream_at_full_speed(stage: Stage) -> None:
    with MemoryWatch(stage.sidecar) as memory, futures.ThreadPoolExecutor(1) as pool:
        reading = pool.submit(lambda: sum(map(len, _download(stage.channel, 64))))
        completed = 0
        slowest = 0.0
        while not reading.done():
            slowest = max(slowest, _time_of(stage.channel, 1)[0])
            completed += 1
    print(f"{stage.codec}: {completed} RPCs beside 64 MiB, the slowest {slowest * 1e3:.1f} ms")
    assert reading.result() == 64 * MIB
    assert completed > 1, "none had to wait for the end of the stream"
    assert memory.growth < ALLOWED_GROWTH


def test_long_upload_is_held_to_the_pace_of_its_reader(stage: Stage) -> None:
    channel: Any = stage.channel
    with MemoryWatch(stage.sidecar) as memory:
        parts = 64 * MIB // MESSAGE
        answer = channel.stream_unary(UPLOAD)(bytes(MESSAGE) for _ in range(parts))
    assert int(answer) == parts * MESSAGE
    assert memory.growth < ALLOWED_GROWTH


# -- the same seen from the wire ---------------------------------------------------------------------------------


@pytest.fixture
def lane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lane]:
    bench = Bench(tmp_path_factory.mktemp("wire"), request.param)
    (lane,) = bench.open()
    try:
        yield lane
        lane.close()
    finally:
        bench.close()


def _send_until_held(app: Wire, stream: int, limit: int) -> int:
    """Send DATA on a stream as far as its window goes, up to `limit` octets. Returns how many went."""
    window, sent = 262_144, 0
    chunk = bytes(16_384)
    while sent < limit:
        app.round_trip()  # every WINDOW_UPDATE that is on its way has arrived
        window += app.take_credit(stream)
        if window < len(chunk):
            # two quiet round trips in a row: nobody will open it
            app.round_trip()
            window += app.take_credit(stream)
            if window < len(chunk):
                return sent
        while window >= len(chunk) and sent < limit:
            app.send(app.data(stream, chunk))
            window -= len(chunk)
            sent += len(chunk)
    return sent


@pytest.mark.parametrize("lane", CODEC_NAMES, indirect=True)
def test_sender_to_a_server_that_never_reads_is_stopped_at_the_windows(lane: Lane) -> None:
    """What the sidecar takes is what the server's window and its own hold; other streams pass by."""
    stalled = 10

    def serve(wire: Wire) -> None:
        wire.greet()
        wire.stalled = set(range(1, 2 * stalled, 2))
        while True:
            stream, _ = wire.expect_request()
            if stream not in wire.stalled:
                wire.answer(stream, b"passed")

    with lane.serving(serve):
        app = lane.dial()
        streams = [app.request() for _ in range(stalled)]
        with MemoryWatch(lane.sidecar) as memory:
            sent = [_send_until_held(app, stream, 16 * MIB) for stream in streams]
            assert all(65_535 <= octets <= 65_535 + 2 * 262_144 for octets in sent), sent
            for _ in range(50):
                assert app.response(app.request(end=True)).data == message(b"passed")
    assert memory.growth < ALLOWED_GROWTH


@pytest.mark.parametrize("lane", CODEC_NAMES, indirect=True)
def test_server_is_stopped_at_the_windows_of_an_app_that_never_reads(lane: Lane) -> None:
    sent: list[int] = []

    def serve(wire: Wire) -> None:
        wire.greet()
        while True:
            stream, fields = wire.expect_request()
            if (b"stall", b"1") in fields:
                wire.send(wire.headers(stream, HEAD))
                sent.append(_send_until_held(wire, stream, 16 * MIB))
            else:
                wire.answer(stream, b"passed")

    with lane.serving(serve), MemoryWatch(lane.sidecar) as memory:
        app = lane.dial()
        app.stalled = {1, 3, 5}
        for _ in range(3):
            app.request((*REQUEST, (b"stall", b"1")), end=True)
        for _ in range(50):
            assert app.response(app.request(end=True)).data == message(b"passed")
        for stream in app.stalled:
            app.send(app.reset(stream, 8))
    assert len(sent) == 3
    assert all(65_535 <= octets <= 65_535 + 2 * 262_144 for octets in sent), sent
    assert memory.growth < ALLOWED_GROWTH


@pytest.mark.parametrize("lane", CODEC_NAMES, indirect=True)
@pytest.mark.parametrize("window", [0, 1])
def test_peer_with_a_tiny_window_gets_its_answer_octet_by_octet(lane: Lane, window: int) -> None:
    answer = b"one at a time"

    def serve(wire: Wire) -> None:
        wire.greet()
        stream, _ = wire.expect_request()
        wire.answer(stream, answer)
        wire.wait_closed()

    with lane.serving(serve):
        app = lane.dial({0x4: window})
        app.crediting = False
        stream = app.request(end=True)
        app.expect_response_head(stream)
        received = b""
        whole = message(answer)
        while len(received) < len(whole):
            if len(received) >= window:
                app.grant(stream, 1)
            received += app.expect_data(stream)
        assert received == whole
        assert dict(app.expect_response_head(stream))[b"grpc-status"] == b"0"
