"""A reload changes what the file says and cuts nothing; a bad file changes nothing at all (RL-05, K7)."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import pytest

from tests.processes import Sidecar, free_port, wait_until
from tests.services import TALK, ProbeServer, connect, echo


class Stage(NamedTuple):
    """Two servers, and a sidecar that knows the first."""

    sidecar: Sidecar
    port: int
    servers: tuple[ProbeServer, ProbeServer]

    def point_at(self, *servers: ProbeServer) -> None:
        """Rewrite the file: the upstream's endpoints."""
        self.sidecar.config["upstreams"][0]["endpoints"] = [f"127.0.0.1:{server.port}" for server in servers]
        self.sidecar.write_config()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with ExitStack() as until:
        servers = (until.enter_context(ProbeServer("first")), until.enter_context(ProbeServer("second")))
        port = free_port()
        endpoints = [f"127.0.0.1:{servers[0].port}"]
        upstream = {"service": "probe", "listen": f"127.0.0.1:{port}", "endpoints": endpoints}
        sidecar = until.enter_context(Sidecar({"upstreams": [upstream]}, tmp_path))
        yield Stage(sidecar, port, servers)


class OpenStream:
    """A bidirectional stream that answers each message in turn."""

    def __init__(self, channel: Any) -> None:
        self._ready: SimpleQueue[bytes | None] = SimpleQueue()
        self._call = channel.stream_stream(TALK)(iter(self._ready.get, None))

    def ask(self, text: bytes) -> bytes:
        self._ready.put(text)
        return bytes(next(self._call))

    def end(self) -> str:
        self._ready.put(None)
        assert list(self._call) == []
        return str(self._call.code().name)


def test_reload_moves_new_rpcs_and_leaves_open_streams_where_they_are(stage: Stage) -> None:
    with connect(stage.port) as channel:
        stream = OpenStream(channel)
        assert stream.ask(b"before") == b"before"
        stage.point_at(stage.servers[1])
        assert stage.sidecar.ask("/reload", "POST")[0] == 200
        wait_until(lambda: echo(channel).instance == "second", "new RPCs go to the second server")
        assert stream.ask(b"after") == b"after"
        assert stream.end() == "OK"


def test_removed_listener_finishes_its_streams_and_takes_no_new_connection(stage: Stage) -> None:
    moved = free_port()
    with connect(stage.port) as channel:
        stream = OpenStream(channel)
        assert stream.ask(b"before") == b"before"
        stage.sidecar.config["upstreams"][0]["listen"] = f"127.0.0.1:{moved}"
        stage.sidecar.write_config()
        assert stage.sidecar.ask("/reload", "POST")[0] == 200
        with connect(moved) as other:
            assert echo(other).status == "OK"
        assert stream.ask(b"after") == b"after"
        assert stream.end() == "OK"
    with connect(stage.port) as late:
        assert echo(late).status == "UNAVAILABLE"


@pytest.mark.parametrize("way", ["POST /reload", "SIGHUP", "the file alone"])
def test_reload_is_taken_up_however_it_is_asked_for(stage: Stage, way: str) -> None:
    stage.point_at(stage.servers[1])
    if way == "POST /reload":
        assert stage.sidecar.ask("/reload", "POST")[0] == 200
    elif way == "SIGHUP":
        stage.sidecar.signal(signal.SIGHUP)
    with connect(stage.port) as channel:
        wait_until(lambda: echo(channel).instance == "second", "the new endpoint serves")


BAD = """\
upstreams:
  - {servce: probe, listen: "127.0.0.1:1"}
  - {service: two, listen: nowhere, balancer: round_robbin}
http2: {codec: fast}
"""


def test_bad_file_is_refused_with_its_mistakes_and_the_old_one_stays(stage: Stage) -> None:
    with connect(stage.port) as channel:
        stream = OpenStream(channel)
        assert stream.ask(b"before") == b"before"
        stage.sidecar.write_config(BAD)
        status, said = stage.sidecar.ask("/reload", "POST")
        assert status == 422
        assert "servce" in said
        assert f"{stage.sidecar.config_path}:2:" in said
        assert f"{stage.sidecar.config_path}:4:" in said
        assert echo(channel).instance == "first"
        assert stream.ask(b"after") == b"after"
        assert stream.end() == "OK"
        assert stage.sidecar.metric("sidecar_config_last_reload_success") == 0
        stage.point_at(stage.servers[1])
        assert stage.sidecar.ask("/reload", "POST")[0] == 200
        wait_until(lambda: echo(channel).instance == "second", "the repaired file is in force")
        assert stage.sidecar.metric("sidecar_config_last_reload_success") == 1


def test_bad_file_at_the_start_ends_with_two_and_names_every_mistake(tmp_path: Path) -> None:
    sidecar = Sidecar({}, tmp_path, ready=False)
    sidecar.write_config(BAD)
    sidecar.start()
    assert sidecar.wait() == 2
    said = sidecar.log()
    for word in ("servce", "nowhere", "round_robbin", "fast"):
        assert word in said
