"""An endpoint whose packets are dropped: noticed in under 5 s under load, and before an idle connection is used (P13).

It stands in a network namespace; two others on loopback are well. What the caller sees is asked through real grpcio.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.adversity.network import Network
from tests.conftest import CODEC_NAMES
from tests.processes import Process, Sidecar, free_port, wait_until
from tests.services import ECHO, AppProcess, Reply, connect, echo

pytestmark = pytest.mark.once

NOTICED = 5.0  # seconds (P13)
SLOW_MACHINE = 1.0  # seconds that a loaded machine may add to a time that is measured from outside
PORT = 50051


@pytest.fixture
def far(tmp_path: Path) -> Iterator[tuple[Network, str]]:
    """A server behind a cable, and its address."""
    network = Network()
    arguments = network.command(sys.executable, "-m", "tests.services", "far", str(PORT), network.address)
    try:
        with Process("far", arguments, tmp_path) as server:
            server.wait_for_line("serving")
            yield network, f"{network.address}:{PORT}"
    finally:
        network.close()


@pytest.fixture
def near(tmp_path: Path) -> Iterator[list[str]]:
    """Two servers here."""
    servers = [AppProcess(f"near{number}", free_port(), tmp_path) for number in range(2)]
    try:
        for server in servers:
            server.start()
        yield [f"127.0.0.1:{server.wait_serving().port}" for server in servers]
    finally:
        for server in servers:
            server.kill()


def sidecar_to(addresses: list[str], directory: Path, codec: str, **connection: Any) -> Sidecar:
    upstream = {
        "service": "probe",
        "listen": f"127.0.0.1:{free_port()}",
        "balancer": "round_robin",
        "endpoints": addresses,
        "connection": connection,
    }
    return Sidecar({"upstreams": [upstream]}, directory, codec=codec)


def connectivity(sidecar: Sidecar, address: str) -> str:
    return next(str(each["connectivity"]) for each in sidecar.endpoints("probe") if each["address"] == address)


def wait_connected(sidecar: Sidecar, addresses: list[str]) -> None:
    for address in addresses:
        wait_until(lambda at=address: connectivity(sidecar, at) == "ready", f"{address} is connected")  # type: ignore[misc]


class Load:
    """Unary RPCs at a steady rate; when each ended and how."""

    RATE = 100  # a second

    def __init__(self, port: int) -> None:
        self._channel: Any = connect(port)
        self._ended = threading.Event()
        self._open = 0
        self._lock = threading.Lock()
        self.replies: list[tuple[float, float, str]] = []  # begun, seconds, status
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        call = self._channel.unary_unary(ECHO)
        while not self._ended.wait(1 / self.RATE):
            begun = time.monotonic()
            with self._lock:
                self._open += 1
            call.future(b"hello").add_done_callback(lambda rpc, begun=begun: self._note(rpc, begun))

    def _note(self, rpc: Any, begun: float) -> None:
        with self._lock:
            self._open -= 1
            self.replies.append((begun, time.monotonic() - begun, rpc.code().name))

    def stop(self) -> None:
        """Send no more, and wait for every end."""
        self._ended.set()
        self._thread.join()
        wait_until(lambda: not self._open, "every RPC has ended")
        self._channel.close()


@pytest.mark.parametrize("codec", CODEC_NAMES)
def test_endpoint_whose_packets_are_dropped_under_load_is_out_within_five_seconds(
    far: tuple[Network, str], near: list[str], tmp_path: Path, codec: str
) -> None:
    network, address = far
    with sidecar_to([address, *near], tmp_path, codec) as sidecar:
        wait_connected(sidecar, [address, *near])
        load = Load(sidecar.listen_port("probe"))
        wait_until(lambda: len(load.replies) > 100, "the load is under way")
        cut_at = time.monotonic()
        network.cut()
        wait_until(lambda: connectivity(sidecar, address) != "ready", "the dead endpoint is out", pause=0.05)
        noticed = time.monotonic() - cut_at
        out_at = time.monotonic()
        wait_until(lambda: len(load.replies) > 200 and load.replies[-1][0] > out_at + 1, "the load goes on")
        load.stop()
        after = [reply for reply in load.replies if reply[0] > out_at + SLOW_MACHINE]
        longest = max(seconds for _, seconds, _ in load.replies)
        statuses = {status for _, _, status in load.replies}
    print(f"noticed after {noticed:.2f} s, the longest RPC took {longest:.2f} s")
    assert noticed < NOTICED
    assert longest < NOTICED + SLOW_MACHINE
    assert statuses == {"OK", "UNAVAILABLE"}
    assert after and {status for _, _, status in after} == {"OK"}


@pytest.mark.parametrize("codec", CODEC_NAMES)
def test_rpc_on_an_idle_connection_whose_packets_are_dropped_is_answered_elsewhere(
    far: tuple[Network, str], near: list[str], tmp_path: Path, codec: str
) -> None:
    """Any silence counts as idle here, so that the test need not sit through it."""
    network, address = far
    with sidecar_to([address, *near], tmp_path, codec, idle_ping="1ms") as sidecar:
        wait_connected(sidecar, [address, *near])
        with connect(sidecar.listen_port("probe")) as channel:
            assert {echo(channel).instance for _ in range(6)} == {"far", "near0", "near1"}
            network.cut()
            replies: list[tuple[Reply, float]] = []
            for _ in range(3):
                begun = time.monotonic()
                replies.append((echo(channel), time.monotonic() - begun))
            assert {reply.status for reply, _ in replies} == {"OK"}
            assert {reply.instance for reply, _ in replies} == {"near0", "near1"}
            longest = max(seconds for _, seconds in replies)
        found = sidecar.metric("sidecar_proxy_ping_timeouts_total", upstream="probe", question="reuse")
    print(f"the RPC that met the dead connection took {longest:.2f} s")
    assert longest < 2 + SLOW_MACHINE  # connection.ping_timeout, and one round trip
    assert found == 1


@pytest.mark.parametrize("codec", CODEC_NAMES)
def test_endpoint_that_can_be_reached_again_is_used_again(
    far: tuple[Network, str], near: list[str], tmp_path: Path, codec: str
) -> None:
    network, address = far
    with sidecar_to([address, *near], tmp_path, codec, idle_ping="1ms", backoff_max="100ms") as sidecar:
        wait_connected(sidecar, [address, *near])
        with connect(sidecar.listen_port("probe")) as channel:
            network.cut()
            wait_until(lambda: echo(channel).status == "OK" and connectivity(sidecar, address) != "ready", "it is out")
            network.mend()
            wait_connected(sidecar, [address])
            assert {echo(channel).instance for _ in range(6)} == {"far", "near0", "near1"}
