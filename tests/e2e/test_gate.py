"""Limits, routes, mirrors and faults between real gRPC peers: what grpcio makes of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest

from tests.processes import PATIENCE, Sidecar, free_port, wait_until
from tests.services import ECHO, INSTANCE, SERVICE, ProbeServer, connect, echo

PATIENT = {  # a caller that tries again after 10 ms, unless it is told another time
    "methodConfig": [
        {
            "name": [{"service": SERVICE}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.01s",
                "maxBackoff": "0.01s",
                "backoffMultiplier": 1,
                "retryableStatusCodes": ["RESOURCE_EXHAUSTED"],
            },
        }
    ]
}


class Stage(NamedTuple):
    """One listener, with a second upstream behind it that nobody dials."""

    sidecar: Sidecar
    port: int


@pytest.fixture
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    """The parameter is what the upstream says beyond its endpoints."""
    with ExitStack() as until:
        main, canary = (until.enter_context(ProbeServer(name)) for name in ("main", "canary"))
        port = free_port()
        upstreams = [
            {
                "service": "probe",
                "listen": f"127.0.0.1:{port}",
                "endpoints": [f"127.0.0.1:{main.port}"],
                "routes": [{"match": {"metadata": [{"name": "x-canary"}]}, "to": [{"upstream": "canary"}]}],
                **request.param,
            },
            {"service": "probe", "name": "canary", "endpoints": [f"127.0.0.1:{canary.port}"]},
        ]
        yield Stage(until.enter_context(Sidecar({"upstreams": upstreams}, tmp_path)), port)


def instance_of(channel: Any, *metadata: tuple[str, str]) -> str:
    """Who answers a call with this metadata."""
    _, call = channel.unary_unary(ECHO).with_call(b"hello", metadata=metadata, timeout=PATIENCE)
    return str(dict(call.trailing_metadata())[INSTANCE])


@pytest.mark.parametrize("stage", [{"mirror": {"upstream": "canary"}}], indirect=True)
def test_rpcs_are_led_by_metadata_and_copied_without_their_callers_noticing(stage: Stage) -> None:
    with connect(stage.port) as channel:
        assert [instance_of(channel), instance_of(channel, ("x-canary", "1"))] == ["main", "canary"]
    sidecar = stage.sidecar
    assert sidecar.metric("sidecar_proxy_routed_total", upstream="probe", target="canary") == 1
    wait_until(
        lambda: sidecar.metric("sidecar_proxy_mirrored_total", upstream="probe", result="ok") == 1,
        "the copy is answered",
    )
    assert sidecar.metric("sidecar_proxy_exchanges_started_total", upstream="canary") == 1


@pytest.mark.parametrize("stage", [{"rate": {"per_second": 4, "burst": 1}}], indirect=True)
def test_a_caller_that_retries_comes_again_when_it_is_told_to(stage: Stage) -> None:
    """At its own pace of 10 ms it would have used up its attempts long before the limit lets another RPC pass."""
    options = [("grpc.service_config", json.dumps(PATIENT)), ("grpc.enable_retries", 1)]
    with grpc.insecure_channel(f"127.0.0.1:{stage.port}", options=options) as channel:
        assert [instance_of(channel) for _ in range(3)] == ["main"] * 3
    refused = stage.sidecar.metric("sidecar_proxy_refusals_total", upstream="probe", reason="rate_limit")
    assert 1 <= refused <= 4


@pytest.mark.parametrize("stage", [{"faults": [{"abort": "NOT_FOUND"}]}], indirect=True)
def test_a_fault_is_a_status_like_any_other_and_says_that_it_is_one(stage: Stage) -> None:
    with connect(stage.port) as channel:
        reply = echo(channel)
    assert reply.status == "NOT_FOUND"
    assert reply.details == "sidecar: probe: injected on purpose by faults[0] of this upstream; attempts: 0"
    assert "injects on purpose: faults[0]: 100 % of all RPCs: abort NOT_FOUND" in stage.sidecar.log()
