"""Reports of load out of band: when they are asked for, what ends the asking, and what begins it anew (A51, LB-10)."""

from __future__ import annotations

from struct import pack

import pytest

from sidecar.http2 import constants as h2
from sidecar.http2.interface import Codec
from sidecar.policy.endpoint import Endpoint
from sidecar.proxy.load_watch import BACKOFF_JITTER, BACKOFF_MAX, LoadWatch
from sidecar.proxy.settings import ConnectionSettings
from sidecar.rpc.load_report import STREAM_PATH, LoadReport, build_interval
from sidecar.rpc.message import build_message
from tests.proxy.pipe import Ear
from tests.proxy.stage import InTurn, Stage, on_loop


class Asking(InTurn):
    """Wants a report every ten seconds, and writes them down."""

    report_interval = 10.0

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[str, float]] = []

    def take_report(self, endpoint: Endpoint, report: LoadReport, now: float) -> None:
        self.heard.append((endpoint.address, report.cpu))


class Clinic:
    """A stage whose endpoints are asked for their load."""

    def __init__(self, codec: type[Codec], **options: object) -> None:
        self.balancer = Asking()
        self.stage = Stage(codec, balancer=self.balancer, **options)  # type: ignore[arg-type]
        self.watch = LoadWatch(self.stage.dispatch)

    async def begun(self) -> Clinic:
        await self.stage.run()
        return self

    @property
    def asked(self) -> list[Ear]:
        """Every stream of reports that the first server was asked for."""
        return self.stage.server.requests

    async def tell(self, ear: Ear, cpu: float, *, begin: bool = False) -> None:
        if begin:
            self.stage.server.connection.respond(ear)
        ear.send(build_message(b"\x09" + pack("<d", cpu)))
        await self.stage.run()

    async def refuse(self, ear: Ear, status: bytes) -> None:
        self.stage.server.connection.respond(ear, (b"grpc-status", status), end=True)
        await self.stage.run()


@on_loop
async def test_every_endpoint_is_asked_once_it_is_connected_and_its_reports_reach_the_balancer(
    codec: type[Codec],
) -> None:
    clinic = await Clinic(codec, servers=2).begun()
    for server in clinic.stage.servers:
        assert server.request.request[b":path"] == STREAM_PATH
        assert server.request.data == build_message(build_interval(10.0))
    await clinic.tell(clinic.asked[0], 0.5, begin=True)
    await clinic.tell(clinic.asked[0], 0.75)
    assert clinic.balancer.heard == [("10.0.0.1:50051", 0.5), ("10.0.0.1:50051", 0.75)]
    assert clinic.stage.metrics.load_reports == {"taken": 2}
    assert clinic.stage.metrics.attempt_started == 0


@on_loop
async def test_nobody_is_asked_for_a_balancer_that_does_not_want_to_know(codec: type[Codec]) -> None:
    stage = Stage(codec)
    LoadWatch(stage.dispatch)
    await stage.run()
    assert stage.server.requests == []


@on_loop
async def test_one_that_does_not_know_the_service_is_not_asked_again_on_that_connection(codec: type[Codec]) -> None:
    clinic = await Clinic(codec).begun()
    await clinic.refuse(clinic.asked[0], b"12")
    await clinic.stage.advance(1000.0)
    assert len(clinic.asked) == 1
    assert clinic.stage.metrics.load_reports == {"unimplemented": 1}
    clinic.stage.server.connection.hang_up()
    await clinic.stage.run()
    assert len(clinic.asked) == 2


@on_loop
async def test_any_other_end_is_followed_by_another_stream_after_a_growing_backoff(codec: type[Codec]) -> None:
    clinic = await Clinic(codec).begun()
    for times, pause in enumerate((1.0, 1.6, 2.56), 1):
        await clinic.refuse(clinic.asked[-1], b"14")
        await clinic.stage.advance(pause * (1 - BACKOFF_JITTER) - 0.05)
        assert len(clinic.asked) == times
        await clinic.stage.advance(pause * 2 * BACKOFF_JITTER + 0.1)
        assert len(clinic.asked) == times + 1
    assert clinic.stage.metrics.load_reports == {"broken": 3}


@on_loop
async def test_a_report_resets_the_backoff(codec: type[Codec]) -> None:
    clinic = await Clinic(codec).begun()
    for _ in range(8):
        await clinic.refuse(clinic.asked[-1], b"14")
        await clinic.stage.advance(BACKOFF_MAX)
    asked = len(clinic.asked)
    await clinic.tell(clinic.asked[-1], 0.5, begin=True)
    clinic.asked[-1].end([(b"grpc-status", b"0")])
    await clinic.stage.run()
    await clinic.stage.advance(1.25)
    assert len(clinic.asked) == asked + 1


@on_loop
async def test_another_connection_of_the_same_endpoint_is_not_asked_too(codec: type[Codec]) -> None:
    clinic = await Clinic(codec, connection=ConnectionSettings(max_age=100.0)).begun()
    await clinic.tell(clinic.asked[0], 0.5, begin=True)
    await clinic.stage.advance(120.0)
    assert len(clinic.stage.server.connections) == 2
    assert len(clinic.asked) == 2  # one stream after the other: the old one ended with its connection
    await clinic.tell(clinic.asked[1], 0.25, begin=True)
    assert [cpu for _, cpu in clinic.balancer.heard] == [0.5, 0.25]


@on_loop
async def test_a_report_that_cannot_be_read_is_counted_and_the_stream_goes_on(codec: type[Codec]) -> None:
    clinic = await Clinic(codec).begun()
    clinic.stage.server.connection.respond(clinic.asked[0])
    clinic.asked[0].send(build_message(b"\x09"))
    await clinic.tell(clinic.asked[0], 0.5)
    assert [cpu for _, cpu in clinic.balancer.heard] == [0.5]
    assert clinic.stage.metrics.load_reports == {"malformed": 1, "taken": 1}


@on_loop
async def test_an_endpoint_that_leaves_is_forgotten(codec: type[Codec]) -> None:
    clinic = await Clinic(codec, servers=2).begun()
    clinic.stage.discover("10.0.0.2:50051")
    await clinic.stage.run()
    await clinic.stage.advance(1000.0)
    assert [endpoint.address for endpoint in clinic.watch.watched] == ["10.0.0.2:50051"]
    assert len(clinic.asked) == 1


@pytest.mark.parametrize(("interval", "streams"), [(10.0, 1), (5.0, 2), (0.0, 1)])
@on_loop
async def test_a_reload_begins_anew_only_where_the_interval_changed(
    codec: type[Codec], interval: float, streams: int
) -> None:
    clinic = await Clinic(codec).begun()
    clinic.balancer.report_interval = interval
    clinic.watch.reconfigure()
    await clinic.stage.run()
    assert len(clinic.asked) == streams
    assert clinic.asked[0].reset == (None if interval == 10.0 else h2.CANCEL)
    assert len(clinic.watch.watched) == bool(interval)
