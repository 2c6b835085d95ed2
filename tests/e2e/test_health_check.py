"""Active checks of real servers: grpcio's own health service says that it does not serve, and RPCs go elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2

from tests.conftest import CODEC_NAMES
from tests.processes import Sidecar, free_port, wait_until
from tests.services import ProbeServer, connect, echo

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
WAYS = {
    "watch": {"grpc": {}},
    "check": {"grpc": {"watch": False}, "interval": "200ms", "idle_interval": "200ms", "timeout": "5s"},
}


@pytest.fixture
def servers() -> Iterator[list[ProbeServer]]:
    with ExitStack() as running:
        yield [running.enter_context(ProbeServer(f"probe{number}")) for number in range(3)]


def sidecar_to(servers: list[ProbeServer], directory: Path, codec: str, health_check: dict[str, Any]) -> Sidecar:
    upstream = {
        "service": "probe",
        "listen": f"127.0.0.1:{free_port()}",
        "balancer": "round_robin",
        "endpoints": [f"127.0.0.1:{server.port}" for server in servers],
        "health_check": health_check,
        "balancing": {"slow_start": 0},
    }
    return Sidecar({"upstreams": [upstream]}, directory, codec=codec)


def verdicts(sidecar: Sidecar) -> list[str]:
    return [str(endpoint["health_check"]) for endpoint in sidecar.endpoints("probe")]


def wait_verdicts(sidecar: Sidecar, *expected: str) -> None:
    wait_until(lambda: verdicts(sidecar) == list(expected), f"the checks say {expected}, not {verdicts(sidecar)}")


@pytest.mark.parametrize("codec", CODEC_NAMES)
@pytest.mark.parametrize("way", WAYS)
def test_server_that_says_it_does_not_serve_gets_no_rpcs_until_it_does(
    servers: list[ProbeServer], tmp_path: Path, codec: str, way: str
) -> None:
    with sidecar_to(servers, tmp_path, codec, WAYS[way]) as sidecar:
        wait_verdicts(sidecar, "passed", "passed", "passed")
        with connect(sidecar.listen_port("probe")) as channel:
            servers[1].health.set("", NOT_SERVING)
            wait_verdicts(sidecar, "passed", "failed", "passed")
            assert {echo(channel).instance for _ in range(12)} == {"probe0", "probe2"}
            why = sidecar.endpoints("probe")[1]["why"]
            assert why == "health check failed: gRPC health: NOT_SERVING"
            servers[1].health.set("", SERVING)
            wait_verdicts(sidecar, "passed", "passed", "passed")
            assert {echo(channel).instance for _ in range(12)} == {"probe0", "probe1", "probe2"}
        assert sidecar.metric("sidecar_proxy_health_checks_total", upstream="probe", result="denied") >= 1
        assert sidecar.metric("sidecar_proxy_exchanges_started_total", upstream="probe") == 24


@pytest.mark.parametrize("codec", CODEC_NAMES)
def test_service_that_a_server_does_not_have_is_denied_by_all_and_they_are_used_all_the_same(
    servers: list[ProbeServer], tmp_path: Path, codec: str
) -> None:
    """A mistake in the configuration must not take the upstream down (the panic threshold)."""
    check = {"grpc": {"service": "no.such.Service"}}
    with sidecar_to(servers, tmp_path, codec, check) as sidecar:
        wait_verdicts(sidecar, "failed", "failed", "failed")
        assert sidecar.endpoints("probe")[0]["health_check_finding"] == "gRPC health: SERVICE_UNKNOWN"
        with connect(sidecar.listen_port("probe")) as channel:
            assert {echo(channel).instance for _ in range(6)} == {"probe0", "probe1", "probe2"}
