"""A Consul agent in development mode on ports of its own, for subjects that find their endpoints there."""

from __future__ import annotations

import json
import shutil
import time
import urllib.request
from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.process import PATIENCE, Failed, Process, free_port

if TYPE_CHECKING:
    from benchmarks.stage import Stage

Address = tuple[str, int]

MISSING = "consul is not installed: scripts/install-consul fetches it"
SERVICE = "bench"


def program() -> str | None:
    """The agent, if it is installed."""
    return shutil.which("consul")


def start(stage: Stage, endpoints: Sequence[Address]) -> Address:
    """An agent that knows `endpoints` as instances of the service; returns the address of its HTTP API."""
    consul = program()
    if consul is None:
        raise Failed(MISSING)
    port = free_port()
    command = [consul, "agent", "-dev", "-bind=127.0.0.1", f"-http-port={port}", "-dns-port=-1", "-grpc-port=-1"]
    command += [f"-{name}-port={free_port()}" for name in ("server", "serf-lan", "serf-wan")]
    agent = stage.start("consul", command, stage.placement.load)
    agent.wait_listening(("127.0.0.1", port), step=0.05)
    for number, (host, endpoint_port) in enumerate(endpoints):
        instance = {"Name": SERVICE, "ID": f"{SERVICE}-{number}", "Address": host, "Port": endpoint_port}
        _put(agent, f"http://127.0.0.1:{port}/v1/agent/service/register", instance)
    return "127.0.0.1", port


def _put(agent: Process, url: str, document: object) -> None:
    """Once the agent has a leader; until then it answers with an error."""
    request = urllib.request.Request(url, json.dumps(document).encode(), method="PUT")
    while True:
        agent.check()
        try:
            urllib.request.urlopen(request, timeout=5).close()
        except OSError as error:
            if time.monotonic() - agent.started_at > PATIENCE:
                raise Failed(f"consul does not register a service: {error}\n    {agent.last_words()}") from None
            time.sleep(0.1)
        else:
            return
