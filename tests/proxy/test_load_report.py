"""Reports of load in trailers: read for a balancer that asks, forwarded always, harmless when they are bad (LB-10)."""

from __future__ import annotations

import base64

import pytest

from sidecar.http2.interface import Codec
from sidecar.policy.endpoint import Endpoint
from sidecar.rpc.load_report import TRAILER, LoadReport
from tests.proxy.call import OK, called
from tests.proxy.stage import InTurn, on_loop

HALF = base64.b64encode(b"\x09\x00\x00\x00\x00\x00\x00\xe0\x3f")  # cpu_utilization 0.5


class Asking(InTurn):
    """Writes the reports down."""

    wants_load = True

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[object] = []

    def take_report(self, endpoint: Endpoint, report: LoadReport, now: float) -> None:
        self.heard.append((endpoint.address, report.cpu))

    def done(self, endpoint: Endpoint, outcome: int, latency: float, now: float) -> None:
        self.heard.append("done")


@on_loop
async def test_a_report_in_the_trailers_reaches_the_balancer_and_the_app(codec: type[Codec]) -> None:
    balancer = Asking()
    stage, call, server, request = await called(codec, end=True, balancer=balancer)
    server.respond(request)
    request.send(b"answer")
    request.end([*OK, (TRAILER, HALF)])
    await stage.run()
    assert balancer.heard == [("10.0.0.1:50051", 0.5), "done"]
    assert (call.trailers or {})[TRAILER] == HALF
    assert stage.metrics.load_reports == {"taken": 1}


@on_loop
async def test_an_answer_of_trailers_alone_carries_one_too(codec: type[Codec]) -> None:
    balancer = Asking()
    stage, call, server, request = await called(codec, end=True, balancer=balancer)
    server.respond(request, (b"grpc-status", b"8"), (TRAILER, HALF), end=True)
    await stage.run()
    assert balancer.heard == [("10.0.0.1:50051", 0.5), "done"]
    assert (call.head or {})[TRAILER] == HALF


@pytest.mark.parametrize(
    ("values", "came"), [([b"?"], "malformed"), ([HALF, HALF], "repeated"), ([base64.b64encode(b"\x09")], "malformed")]
)
@on_loop
async def test_a_report_of_no_use_is_counted_and_the_rpc_is_as_it_was(
    codec: type[Codec], values: list[bytes], came: str
) -> None:
    balancer = Asking()
    stage, call, server, request = await called(codec, end=True, balancer=balancer)
    server.respond(request)
    request.end([*OK, *((TRAILER, value) for value in values)])
    await stage.run()
    assert (call.status, balancer.heard) == (0, ["done"])
    assert stage.metrics.load_reports == {came: 1}


@on_loop
async def test_nobody_reads_them_for_a_balancer_that_does_not_ask(codec: type[Codec]) -> None:
    stage, call, server, request = await called(codec, end=True)
    server.respond(request)
    request.end([*OK, (TRAILER, b"?")])
    await stage.run()
    assert (call.trailers or {})[TRAILER] == b"?"
    assert stage.metrics.load_reports == {}
