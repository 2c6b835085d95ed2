"""What an endpoint's footprint knows of the memory that an RPC will look at. What that is worth, the benchmarks say."""

from __future__ import annotations

import pytest

from sidecar.http2 import constants as h2
from sidecar.http2.codec import codec_name, load_codec
from sidecar.http2.interface import Codec
from sidecar.proxy.footprint import Footprint
from tests.proxy.call import calls
from tests.proxy.stage import Stage, on_loop, started

ADDRESS = "10.0.0.1:50051"
COMPILED = codec_name(load_codec("auto")) == "native"
MOST_RUNS, MOST_LINES = 20, 60


async def answer(stage: Stage, count: int) -> None:
    """So many RPCs, one after the other."""
    for _ in range(count):
        calls(stage, 1)
        await stage.run()
        for request in stage.server.connection.streams:
            if not request.closed:
                stage.server.connection.answer(request)
        await stage.run()


def counted(stage: Stage) -> tuple[int, int]:
    """Lines and runs that are known of the endpoint."""
    lines, runs = stage.dispatch.footprint.count(stage.endpoint(ADDRESS))  # type: ignore[attr-defined]
    return lines, runs


@pytest.mark.skipif(not COMPILED, reason="interpreted nobody knows where memory is")
@on_loop
async def test_a_footprint_grows_with_what_an_endpoint_has(codec: type[Codec]) -> None:
    stage = await started(codec)
    assert counted(stage) == (0, 0)  # no RPC yet, nothing known
    await answer(stage, 1)
    first = counted(stage)
    await answer(stage, 3)
    lines, runs = counted(stage)
    assert runs <= MOST_RUNS
    assert lines <= MOST_LINES
    if codec_name(codec) == "native":
        assert (lines, runs) > first  # with what the codec remembers of blocks that came twice
        assert lines > 25
    else:
        assert (lines, runs) == first  # of another codec nothing is known, only the connection's own


@pytest.mark.skipif(not COMPILED, reason="interpreted nobody knows where memory is")
@on_loop
async def test_a_footprint_outlives_its_connection(codec: type[Codec]) -> None:
    stage = await started(codec)
    endpoint = stage.endpoint(ADDRESS)
    await answer(stage, 5)
    await stage.advance(5)
    stage.server.connection.codec.send_goaway(h2.LARGEST_STREAM_ID, h2.NO_ERROR)
    await stage.run()
    assert stage.server.dials == 2
    stage.dispatch.footprint.fetch(endpoint)  # of a connection that is gone: asked for in vain
    await answer(stage, 100)
    assert endpoint.successes == 105


@on_loop
async def test_where_nothing_is_known_nothing_is_asked_for(codec: type[Codec]) -> None:
    stage = await started(codec)
    endpoint = stage.endpoint(ADDRESS)
    stage.dispatch.footprint = Footprint()
    await answer(stage, 2)
    assert endpoint.successes == 2
