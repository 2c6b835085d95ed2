"""Rolling restarts, outages and drains on a real Consul, under load, without a failed RPC (RL-10, RL-21, K3, P1).

`SIDECAR_OUTAGE_RPCS` sets how long the outage of Consul lasts, in unary RPCs at 200 a second; 12000 is a minute.
`SIDECAR_ROUNDS` sets how often the time from `passing` to the first RPC is measured.
`SIDECAR_ROLLS` sets the number of rolling restarts, each of which restarts all three instances.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.e2e.stage import SERVICE, Instance, Load, running
from tests.processes import Sidecar, free_port, wait_until
from tests.registry_process import ConsulAgent
from tests.services import AppProcess, ProbeServer, connect, echo

pytestmark = pytest.mark.once

INSTANCES = 3
ROLLS = int(os.environ.get("SIDECAR_ROLLS", "10"))
OUTAGE_RPCS = int(os.environ.get("SIDECAR_OUTAGE_RPCS", "3000"))
ROUNDS = int(os.environ.get("SIDECAR_ROUNDS", "8"))  # of the measurement from `passing` to the first RPC


@pytest.fixture
def consul(tmp_path: Path) -> Iterator[ConsulAgent]:
    with ConsulAgent(tmp_path) as agent:
        yield agent


@pytest.fixture
def instances(consul: ConsulAgent, tmp_path: Path) -> Iterator[list[Instance]]:
    yield from running([Instance(f"probe-{number}", consul, tmp_path) for number in range(INSTANCES)])


@contextmanager
def client(consul: ConsulAgent, directory: Path, instances: int) -> Iterator[Sidecar]:
    """The calling app's sidecar, once it knows and reaches so many instances."""
    upstream = {"service": SERVICE, "listen": f"127.0.0.1:{free_port()}", "balancer": "round_robin"}
    config = {"registry": {"consul": {"address": consul.address}}, "upstreams": [upstream]}
    with Sidecar(config, directory, "client") as sidecar:
        wait_until(lambda: sidecar.clusters()[SERVICE]["pickable"] == instances, f"{instances} instances are picked")
        yield sidecar


@pytest.mark.timeout(600)
def test_no_rpc_fails_because_of_rolling_restarts(
    consul: ConsulAgent, instances: list[Instance], tmp_path: Path
) -> None:
    with client(consul, tmp_path, INSTANCES) as sidecar, Load(sidecar.listen_port(SERVICE)) as load:
        load.wait_for(200)
        began = time.monotonic()
        for _ in range(ROLLS):
            for instance in instances:
                instance.end()
                instance.start()
                instance.wait_passing()
        seconds = time.monotonic() - began
        load.wait_for(200)
    print(load.report(f"{ROLLS} rolling restarts of {INSTANCES} instances in {seconds:.0f} s"))
    assert load.failures == []
    assert load.streams["OK"] > 0


@pytest.mark.timeout(300)
def test_no_rpc_fails_while_consul_is_gone_and_all_is_registered_again_when_it_is_back_empty(
    consul: ConsulAgent, instances: list[Instance], tmp_path: Path
) -> None:
    with client(consul, tmp_path, INSTANCES) as sidecar, Load(sidecar.listen_port(SERVICE)) as load:
        load.wait_for(200)
        consul.kill()
        load.wait_for(OUTAGE_RPCS)
        assert sidecar.clusters()[SERVICE]["pickable"] == INSTANCES
        consul.start()
        back_at = time.monotonic()
        for instance in instances:
            instance.wait_passing(10.0)
        again = time.monotonic() - back_at
        load.wait_for(400)
        assert sidecar.clusters()[SERVICE]["pickable"] == INSTANCES
    print(load.report(f"Consul gone for {OUTAGE_RPCS} RPCs, all registered again {again:.1f} s after its return"))
    assert load.failures == []


@pytest.mark.timeout(120)
def test_no_rpc_fails_while_consul_hangs(consul: ConsulAgent, instances: list[Instance], tmp_path: Path) -> None:
    with client(consul, tmp_path, INSTANCES) as sidecar, Load(sidecar.listen_port(SERVICE)) as load:
        load.wait_for(200)
        consul.pause()
        load.wait_for(1500)
        consul.resume()
        load.wait_for(400)
        for instance in instances:
            instance.wait_passing()
    print(load.report("Consul hung"))
    assert load.failures == []


def test_wiped_registration_comes_back_within_ten_seconds(consul: ConsulAgent, instances: list[Instance]) -> None:
    for identity in list(consul.services()):
        consul.deregister(identity)
    wiped_at = time.monotonic()
    for instance in instances:
        instance.wait_passing(10.0)
    print(f"registered again {time.monotonic() - wiped_at:.1f} s after the wipe")


@pytest.mark.timeout(180)
def test_new_instance_gets_its_first_rpc_soon_after_it_passes(consul: ConsulAgent, tmp_path: Path) -> None:
    took = []
    with ExitStack() as until:
        first = until.enter_context(ProbeServer("first"))
        consul.register(SERVICE, "first", first.port, Address="127.0.0.1")
        sidecar = until.enter_context(client(consul, tmp_path, 1))
        load = until.enter_context(Load(sidecar.listen_port(SERVICE), streams=0))
        load.wait_for(100)
        for number in range(ROUNDS):
            name = f"new-{number}"
            with ProbeServer(name) as server:
                before = time.monotonic()
                consul.register(SERVICE, name, server.port, Address="127.0.0.1")
                took.append(load.wait_for_instance(name) - before)
                consul.deregister(name)
                wait_until(lambda: len(sidecar.endpoints(SERVICE)) == 1, f"{name} is forgotten")
    print(f"from registered to the first RPC: {[f'{each * 1e3:.0f} ms' for each in took]}; {load.report('load')}")
    assert load.failures == []
    assert statistics.median(took) < 1.0, took


def test_drain_deregisters_at_once_while_the_apps_own_calls_go_on(consul: ConsulAgent, tmp_path: Path) -> None:
    port = free_port()
    with ExitStack() as until:
        other = until.enter_context(ProbeServer("other"))
        app = until.enter_context(AppProcess("app", free_port(), tmp_path))
        upstream = {"service": "other", "listen": f"127.0.0.1:{port}", "endpoints": [f"127.0.0.1:{other.port}"]}
        config = {
            "service": {"name": SERVICE, "port": app.port, "address": "127.0.0.1", "check": {"grpc": {}}},
            "registry": {"consul": {"address": consul.address}},
            "upstreams": [upstream],
            "drain": {"propagation": "1ms"},
        }
        sidecar = until.enter_context(Sidecar(config, tmp_path))
        wait_until(lambda: consul.passing(SERVICE), "the app is registered and passes")
        channel = until.enter_context(connect(port))
        assert echo(channel).instance == "other"
        assert sidecar.ask("/drain", "POST")[0] == 200
        assert consul.passing(SERVICE) == []
        assert list(consul.services()) == []
        assert sidecar.ask("/ready")[0] == 503
        for _ in range(20):
            assert echo(channel).instance == "other"
        with connect(port) as fresh:
            assert echo(fresh).instance == "other"


@pytest.mark.timeout(120)
def test_killed_instance_costs_at_most_what_was_in_flight_on_it(
    consul: ConsulAgent, instances: list[Instance], tmp_path: Path
) -> None:
    with client(consul, tmp_path, INSTANCES) as sidecar, Load(sidecar.listen_port(SERVICE)) as load:
        load.wait_for(200)
        instances[0].app.kill()
        load.wait_for(600)
    print(load.report("one of three instances killed"))
    assert all(each.split(": ")[1] == "UNAVAILABLE" for each in load.failures)
    # never one that began afterwards: each was lost "before it answered" or "in the middle of its answer"
    assert all("it answered" in each or "its answer" in each for each in load.failures), load.failures
