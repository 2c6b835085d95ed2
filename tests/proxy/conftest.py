"""What runs scenes on real sockets, once on each event loop."""

from __future__ import annotations

import asyncio

import pytest

from tests.proxy.wired import LOOPS, PATIENCE, Body, Play, Run, Scene, build_engine, join, tcp_pair


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a scene on each loop."""

    def run(scene: Scene) -> None:
        async def bounded() -> None:
            await asyncio.wait_for(scene(), 3 * PATIENCE)

        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(bounded())

    return run


@pytest.fixture
def play(run: Run) -> Play:
    """Runs a body with a transport, its connection, and the blocking socket at the other end."""

    def play(body: Body) -> None:
        async def scene() -> None:
            ours, theirs = tcp_pair()
            with theirs:
                transport, ear = await join(build_engine(), ours)
                await body(transport, ear, theirs)
                if not ear.lost.done():
                    transport.abort()
                await ear.lost
                await asyncio.sleep(0)
                assert ear.heard.count("lost") == 1

        run(scene)

    return play
