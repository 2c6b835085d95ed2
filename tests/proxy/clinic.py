"""A stage whose endpoints are checked, and servers that answer as the test says."""

from __future__ import annotations

from typing import Any

from sidecar.http2.interface import Codec
from sidecar.proxy.health_checks import HealthChecks
from sidecar.proxy.health_settings import GrpcHealth, HealthCheckSettings, HttpHealth, TcpHealth
from sidecar.rpc.message import build_message
from tests.proxy.pipe import Ear
from tests.proxy.stage import Server, Stage

ADDRESS = "10.0.0.1:50051"
SERVING, NOT_SERVING = 1, 2
STEP = 0.25  # seconds
OK = (b"grpc-status", b"0")
WATCH = HealthCheckSettings()
CHECK = HealthCheckSettings(grpc=GrpcHealth(watch=False), jitter=0)
GET = HealthCheckSettings(http=HttpHealth(), jitter=0)
TCP = HealthCheckSettings(tcp=TcpHealth(), jitter=0)


class Clinic(Stage):
    """A stage whose endpoints are checked."""

    def __init__(self, codec: type[Codec], settings: HealthCheckSettings | None, **options: Any) -> None:
        super().__init__(codec, **options)
        self.health = HealthChecks(self.dispatch, settings)

    @property
    def verdicts(self) -> list[int]:
        return [endpoint.checkup for endpoint in self.cluster.endpoints]

    @property
    def picked(self) -> list[str]:
        return [endpoint.address for endpoint in self.cluster.pickable]

    @property
    def checks(self) -> dict[str, int]:
        return self.metrics.health_checks


async def clinic(codec: type[Codec], settings: HealthCheckSettings | None, **options: Any) -> Clinic:
    """Connected, and asked for the first time."""
    stage = Clinic(codec, settings, **options)
    await stage.run()
    return stage


def say(server: Server, status: int, ear: Ear | None = None) -> None:
    """The server's word on a watch."""
    ear = ear or server.requests[-1]
    if not ear.responded:
        ear.responded = True
        ear.peer.respond(ear)
    ear.send(build_message(bytes((8, status))))


def answer(server: Server, status: int = SERVING, code: int = 0) -> None:
    """Answer every Check that is open."""
    for ear in server.requests:
        if not ear.responded:
            ear.responded = True
            ear.peer.answer(ear, build_message(bytes((8, status))) if code == 0 else b"", code)


async def pass_time(stage: Clinic, seconds: float) -> None:
    """In steps that are shorter than any timeout."""
    for _ in range(round(seconds / STEP)):
        await stage.advance(STEP)


async def next_request(stage: Clinic) -> Ear:
    """Time passes until the first server is asked again."""
    asked = len(stage.server.requests)
    for _ in range(1000):
        await stage.advance(STEP)
        if len(stage.server.requests) > asked:
            return stage.server.requests[-1]
    raise AssertionError("nobody asks any more")


async def ask(stage: Clinic, code: int = 0, status: int = SERVING) -> None:
    """The next check comes, and is answered."""
    await next_request(stage)
    answer(stage.server, status, code)
    await stage.run()


async def busy(codec: type[Codec], settings: HealthCheckSettings, **options: Any) -> Clinic:
    """Every endpoint has passed its first check, and an RPC is under way."""
    stage = await clinic(codec, settings, **options)
    for server in stage.servers:
        answer(server)
    await stage.run()
    call = stage.app().call(end=True)
    await stage.run()
    for server in stage.servers:
        for request in server.requests:
            request.responded = True
    assert call.status is None
    return stage
