"""Probing apps that answer, refuse, hang, and say no; and how findings add up to health."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest
from aiohttp import web
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from sidecar.control.probe import CRITICAL, Finding, GrpcProbe, HttpProbe, Judgement, Probe, TcpProbe, probe_of
from sidecar.control.settings import CheckSettings, GrpcCheck, HttpCheck, ServiceSettings, TcpCheck
from tests.control.fake_agent import FakeAgent
from tests.control.waiting import Listening, eventually
from tests.processes import free_port

GOOD = Finding("passing", "fine")
BAD = Finding(CRITICAL, "broken")
PATIENT = 20.0  # seconds that a probe may take where the test is not about its time limit


def asked(probe: Probe) -> Finding:
    """What the probe finds."""

    async def body() -> Finding:
        try:
            return await probe.ask()
        finally:
            await probe.close()

    return asyncio.run(body())


# === health from findings ===


def test_health_is_critical_until_a_probe_has_passed() -> None:
    judgement = Judgement(passes=1, failures=3)
    assert (judgement.health.status, judgement.health.output) == (CRITICAL, "not probed yet")
    assert judgement.add(BAD).output == "broken"
    assert judgement.add(GOOD).status == "passing"


def test_so_many_failures_in_a_row_make_it_critical_and_the_count_is_shown() -> None:
    judgement = Judgement(passes=1, failures=3)
    outputs = [judgement.add(finding) for finding in (GOOD, BAD, BAD, GOOD, BAD, BAD, BAD)]
    assert [health.status for health in outputs] == ["passing"] * 6 + [CRITICAL]
    assert outputs[1].output == "1 of 3 probes failed: broken"
    assert outputs[3].output == "fine"
    assert outputs[6].output == "broken"


def test_so_many_passes_in_a_row_make_it_passing() -> None:
    judgement = Judgement(passes=2, failures=1)
    healths = [judgement.add(finding) for finding in (GOOD, BAD, GOOD, GOOD)]
    assert [health.status for health in healths] == [CRITICAL, CRITICAL, CRITICAL, "passing"]
    assert healths[2].output == "1 of 2 probes passed: fine"


def test_an_app_that_says_itself_that_it_does_not_serve_is_believed_at_once() -> None:
    judgement = Judgement(passes=1, failures=10)
    judgement.add(GOOD)
    assert judgement.add(Finding(CRITICAL, "it says so", final=True)).status == CRITICAL


def test_warning_and_passing_change_places_at_once() -> None:
    judgement = Judgement(passes=5, failures=5)
    for _ in range(5):
        judgement.add(GOOD)
    assert judgement.add(Finding("warning", "busy")).status == "warning"
    assert judgement.add(GOOD).status == "passing"


# === which probe ===


def test_the_settings_choose_the_probe_and_its_port() -> None:
    def made(**check: Any) -> Probe:
        return probe_of(ServiceSettings(name="a", port=1, check=CheckSettings(**check)))

    assert (type(made()), made().where) == (TcpProbe, "127.0.0.1:1")
    assert (type(made(tcp=TcpCheck(port=2))), made(tcp=TcpCheck(port=2)).where) == (TcpProbe, "127.0.0.1:2")
    assert (type(made(http=HttpCheck(port=3))), made(http=HttpCheck(port=3)).where) == (HttpProbe, "127.0.0.1:3")
    assert (type(made(grpc=GrpcCheck(port=4))), made(grpc=GrpcCheck()).where) == (GrpcProbe, "127.0.0.1:1")


# === tcp ===


def test_tcp_passes_where_somebody_listens_and_names_the_refusal() -> None:
    async def body() -> None:
        with Listening() as app:
            probe = TcpProbe("127.0.0.1", app.port, PATIENT)
            assert (await probe.ask()).status == "passing"
            app.close()
            finding = await probe.ask()
            assert (finding.status, finding.reason) == (CRITICAL, f"TCP 127.0.0.1:{app.port}: connection refused")

    asyncio.run(body())


def test_tcp_that_takes_too_long_is_critical() -> None:
    """192.0.2.0/24 is for documentation: nobody is there, and a machine without a route says so at once."""
    assert asked(TcpProbe("192.0.2.1", 9, 0.05)).status == CRITICAL


# === http ===


@pytest.mark.parametrize(
    ("status", "expected"),
    [(200, "passing"), (204, "passing"), (429, "warning"), (302, CRITICAL), (404, CRITICAL), (500, CRITICAL)],
)
def test_http_is_judged_by_its_status_as_consul_does(status: int, expected: str) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    async def body() -> None:
        async with FakeAgent(answer) as app:
            probe = HttpProbe("127.0.0.1", app.port, PATIENT, "/health")
            finding = await probe.ask()
            assert (finding.status, finding.reason) == (expected, f"HTTP GET {probe.url}: {status}")
            assert [request.path for request in app.requests] == ["/health"]
            await probe.close()

    asyncio.run(body())


def test_http_that_refuses_hangs_or_talks_nonsense_is_critical_with_the_reason() -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        return web.Response()

    async def hang_up(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def body() -> None:
        refused = HttpProbe("127.0.0.1", free_port(), PATIENT, "/")
        assert "connection refused" in (await refused.ask()).reason
        await refused.close()
        async with FakeAgent(answer) as app:
            hung = HttpProbe("127.0.0.1", app.port, 0.05, "/")
            assert "no answer within 0.05s" in (await hung.ask()).reason
            await hung.close()
        async with FakeAgent(hang_up) as app_that_hangs_up:
            probe = HttpProbe("127.0.0.1", app_that_hangs_up.port, PATIENT, "/")
            assert (await probe.ask()).status == CRITICAL
            await probe.close()

    asyncio.run(body())


# === grpc.health.v1 ===


class App:
    """A gRPC server with or without a health service."""

    def __init__(self, port: int, healthy: bool = True) -> None:
        self.port = port
        self.health = health_aio.HealthServicer()
        self.server = grpc.aio.server()
        if healthy:
            health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)  # type: ignore[no-untyped-call]
        self.server.add_insecure_port(f"127.0.0.1:{port}")

    async def say(self, word: str, service: str = "") -> None:
        await self.health.set(service, health_pb2.HealthCheckResponse.ServingStatus.Value(word))


@asynccontextmanager
async def serving(healthy: bool = True, port: int = 0) -> AsyncIterator[App]:
    app = App(port or free_port(), healthy)
    await app.server.start()
    try:
        yield app
    finally:
        await app.server.stop(None)


def test_grpc_health_follows_what_the_app_says() -> None:
    async def body() -> None:
        async with serving() as app:
            probe = GrpcProbe("127.0.0.1", app.port, PATIENT, "")
            try:
                await app.say("SERVING")
                finding = await probe.ask()
                assert (finding.status, finding.reason) == ("passing", f"gRPC health 127.0.0.1:{app.port}: SERVING")
                await app.say("NOT_SERVING")
                finding = await probe.ask()
                assert (finding.status, finding.final) == (CRITICAL, True)
                assert "the app says NOT_SERVING" in finding.reason
            finally:
                await probe.close()

    asyncio.run(body())


def test_grpc_health_can_ask_for_one_service_and_names_an_unknown_one() -> None:
    async def body() -> None:
        async with serving() as app:
            await app.say("SERVING", "orders.v1")
            known = GrpcProbe("127.0.0.1", app.port, PATIENT, "orders.v1")
            unknown = GrpcProbe("127.0.0.1", app.port, PATIENT, "nothing.v1")
            assert (await known.ask()).status == "passing"
            assert "does not know the service 'nothing.v1'" in (await unknown.ask()).reason
            await known.close()
            await unknown.close()

    asyncio.run(body())


def test_an_app_without_a_health_service_is_told_what_to_do() -> None:
    async def body() -> None:
        async with serving(healthy=False) as app:
            probe = GrpcProbe("127.0.0.1", app.port, PATIENT, "")
            finding = await probe.ask()
            assert finding.status == CRITICAL
            assert "does not implement grpc.health.v1; add it, or use a tcp check" in finding.reason
            await probe.close()

    asyncio.run(body())


def test_an_app_that_starts_later_is_noticed_soon() -> None:
    async def body() -> None:
        port = free_port()
        probe = GrpcProbe("127.0.0.1", port, PATIENT, "")
        finding = await probe.ask()
        assert finding.status == CRITICAL and "UNAVAILABLE" in finding.reason
        found: list[Finding] = []

        async def ask_on() -> None:
            while not found or found[-1].status != "passing":
                found.append(await probe.ask())
                await asyncio.sleep(0.05)

        async with serving(port=port) as app:
            await app.say("SERVING")
            asking = asyncio.ensure_future(ask_on())
            await eventually(asking.done, "the app is noticed", patience=10)
            await asking
        await probe.close()

    asyncio.run(body())


def test_an_app_that_accepts_and_says_nothing_runs_into_the_time_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:  # the kernel accepts, and nobody reads
        assert asked(GrpcProbe("127.0.0.1", mute.getsockname()[1], 0.2, "")).status == CRITICAL
