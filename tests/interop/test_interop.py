"""Every interoperability case with every pair of stacks, direct and through the sidecar, with identical results."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import CODEC_NAMES
from tests.interop.cases import CASES, SOAK_CHANNELS, empty_unary, timeout_on_sleeping_server
from tests.interop.clients import CLIENTS, Client, Observed
from tests.interop.server import STACKS
from tests.processes import Process, Sidecar, free_port

ROUTES = ("direct", *CODEC_NAMES)


class Bench:
    """One server per stack and one sidecar per codec that leads to each of them, started when first asked for."""

    def __init__(self, directory: Path, runner: asyncio.Runner, until: ExitStack) -> None:
        self.run = runner.run
        self._directory = directory
        self._until = until
        self._direct: dict[str, int] = {}
        self._sidecars: dict[str, Sidecar] = {}

    def port(self, stack: str, route: str) -> int:
        """Where a client dials to reach the server of `stack` by `route`."""
        return self._direct_port(stack) if route == "direct" else self._sidecar(route).listen_port(stack)

    def _direct_port(self, stack: str) -> int:
        if stack not in self._direct:
            arguments = [sys.executable, "-m", "tests.interop.server", stack]
            server = self._until.enter_context(Process(stack, arguments, self._directory))
            self._direct[stack] = int(server.wait_for_line("listening on").split()[-1])
        return self._direct[stack]

    def _sidecar(self, codec: str) -> Sidecar:
        if codec not in self._sidecars:
            upstreams = [
                {
                    "service": stack,
                    "listen": f"127.0.0.1:{free_port()}",
                    "endpoints": [f"127.0.0.1:{self._direct_port(stack)}"],
                }
                for stack in STACKS
            ]
            sidecar = Sidecar({"upstreams": upstreams}, self._directory, codec, codec=codec)
            self._sidecars[codec] = self._until.enter_context(sidecar)
        return self._sidecars[codec]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with asyncio.Runner() as runner, ExitStack() as until:
        yield Bench(tmp_path_factory.mktemp("interop"), runner, until)


async def _run(case: str, client: str, port: int) -> list[Observed]:
    channel: Client = CLIENTS[client](port)
    try:
        return await CASES[case].run(channel)
    finally:
        await channel.close()


@cache
def _direct(case: str, client: str, port: int, bench: Bench) -> list[Observed]:
    return bench.run(_run(case, client, port))


COMBINATIONS = [
    (case, client, server)
    for case in CASES
    for client in CLIENTS
    for server in STACKS
    if not (CASES[case].compresses and "grpclib" in (client, server))  # grpclib does not compress
]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("case", "client", "server"), COMBINATIONS)
def test_application_sees_the_same_through_the_sidecar_as_without_it(
    case: str, client: str, server: str, route: str, bench: Bench
) -> None:
    without = _direct(case, client, bench.port(server, "direct"), bench)
    if route != "direct":
        assert bench.run(_run(case, client, bench.port(server, route))) == without


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_new_channel_per_rpc_serves_like_a_kept_one(client: str, route: str, bench: Bench) -> None:
    async def soak() -> list[list[Observed]]:
        return [await _run(empty_unary.__name__, client, bench.port("grpcio", route)) for _ in range(SOAK_CHANNELS)]

    assert len(bench.run(soak())) == SOAK_CHANNELS


@pytest.mark.parametrize("client", CLIENTS)
def test_a_deadline_that_passed_before_the_rpc_began_is_observed_as_one(client: str, bench: Bench) -> None:
    """A client busy for a millisecond meets it; here nothing of the deadline is left from the start."""

    async def late() -> list[Observed]:
        channel: Client = CLIENTS[client](bench.port("grpcio", "direct"))
        try:
            return await timeout_on_sleeping_server(channel, seconds=0)
        finally:
            await channel.close()

    assert [seen.status for seen in bench.run(late())] == ["DEADLINE_EXCEEDED"]
