"""What the data path tells a balancer of an attempt that ended: how long the endpoint took, and when it pushed back."""

from __future__ import annotations

import pytest

from sidecar.http2 import constants as h2
from sidecar.http2.interface import Codec
from sidecar.policy.endpoint import Endpoint
from sidecar.rpc.outcome import CANCELLED, RESET, SUCCESS
from tests.proxy.stage import InTurn, Stage, on_loop, started

OK = [(b"grpc-status", b"0")]


class Pupil(InTurn):
    """Notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.lessons: list[tuple[int, float]] = []
        self.pushed_back = 0

    def done(self, endpoint: Endpoint, outcome: int, latency: float, now: float) -> None:
        self.lessons.append((outcome, pytest.approx(latency, abs=1e-6)))

    def push_back(self, endpoint: Endpoint, seconds: float, now: float) -> None:
        assert self.lessons, "an attempt is over before it is pushed back"
        assert seconds == 0.0
        self.pushed_back += 1


async def taught(codec: type[Codec]) -> tuple[Stage, Pupil]:
    pupil = Pupil()
    stage = await started(codec, balancer=pupil)
    stage.app()
    await stage.run()
    return stage, pupil


@on_loop
async def test_an_answer_is_timed_to_its_head_however_long_the_stream_lasts(codec: type[Codec]) -> None:
    stage, pupil = await taught(codec)
    stage.apps[0].call(end=True)
    await stage.run()
    await stage.advance(0.2)
    request = stage.server.request
    stage.server.connection.respond(request)
    request.send(b"first")
    await stage.run()
    await stage.advance(300.0)
    request.end(OK)
    await stage.run()
    assert pupil.lessons == [(SUCCESS, 0.2)]


@on_loop
async def test_the_time_that_the_app_takes_to_ask_is_not_the_endpoints(codec: type[Codec]) -> None:
    stage, pupil = await taught(codec)
    call = stage.apps[0].call()
    for _ in range(3):
        await stage.advance(30.0)
        call.send(b"more")
        await stage.run()
    await stage.advance(0.5)
    stage.server.connection.answer(stage.server.request)
    await stage.run()
    assert pupil.lessons == [(SUCCESS, 0.5)]


@pytest.mark.parametrize("code", [h2.CANCEL, h2.INTERNAL_ERROR])
@on_loop
async def test_an_attempt_without_an_answer_is_timed_to_its_end(codec: type[Codec], code: int) -> None:
    stage, pupil = await taught(codec)
    stage.apps[0].call(end=True)
    await stage.run()
    await stage.advance(2.0)
    stage.server.request.cancel(code)
    await stage.run()
    assert pupil.lessons == [(RESET, 2.0)]


@pytest.mark.parametrize(("status", "times"), [(b"0", 0), (b"8", 1), (b"14", 0)])
@on_loop
async def test_an_endpoint_that_is_exhausted_pushes_back(codec: type[Codec], status: bytes, times: int) -> None:
    stage, pupil = await taught(codec)
    stage.apps[0].call(end=True)
    await stage.run()
    stage.server.connection.respond(stage.server.request)
    stage.server.request.end([(b"grpc-status", status)])
    await stage.run()
    assert len(pupil.lessons) == 1
    assert pupil.pushed_back == times


@on_loop
async def test_an_app_that_gives_up_is_told_as_such(codec: type[Codec]) -> None:
    stage, pupil = await taught(codec)
    call = stage.apps[0].call(end=True)
    await stage.run()
    await stage.advance(1.0)
    call.cancel(h2.CANCEL)
    await stage.run()
    assert pupil.lessons == [(CANCELLED, 1.0)]
    assert pupil.pushed_back == 0
