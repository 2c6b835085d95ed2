"""A real Consul agent for tests: `consul agent -dev` on free loopback ports, gone when its `with` block ends.

`-dev` keeps everything in memory: a restarted agent has forgotten all, as a wiped one would.
"""

from __future__ import annotations

import json
import shutil
import signal
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.processes import Process, free_port, wait_until

ANSWER_PATIENCE = 10.0  # seconds for one request of the test's own


class ConsulAgent:
    """One agent on one set of ports, which it keeps when it is started again."""

    def __init__(self, directory: Path, *extra: str) -> None:
        program = shutil.which("consul")
        if program is None:
            pytest.fail("the program `consul` is not on PATH; scripts/test installs it or says how to get it")
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        ports = {"http": self.port, "serf-lan": free_port(), "server": free_port(), "serf-wan": free_port()}
        arguments = [
            program,
            "agent",
            "-dev",
            "-bind=127.0.0.1",
            "-client=127.0.0.1",
            "-log-level=warn",
            "-dns-port=-1",
        ]
        arguments += ["-grpc-port=-1", *(f"-{name}-port={port}" for name, port in ports.items()), *extra]
        self.process = Process("consul", arguments, directory)

    def start(self) -> Self:
        """Start it, and return once it has a leader and knows itself."""
        self.process.start()
        wait_until(
            self._is_up, f"a Consul agent with a leader on {self.address}\n{self.process.log_tail()}", pause=0.05
        )
        return self

    def _is_up(self) -> bool:
        code = self.process.poll()
        assert code is None, f"consul ended with {code}:\n{self.process.log_tail()}"
        try:
            return bool(self.get("/v1/health/service/consul?passing"))
        except (OSError, urllib.error.HTTPError):
            return False

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        self.process.signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End it if it still runs."""
        if self.process.poll() is None:
            self.kill()

    def restart(self) -> None:
        """Crash it and start it anew, on the same ports, without its data."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Hang it: connections are accepted by the kernel, nothing answers. Returns once every thread stands still."""
        self.process.signal(signal.SIGSTOP)
        threads = Path(f"/proc/{self.process.pid}/task")
        wait_until(
            lambda: all(path.read_text().rpartition(")")[2].split()[0] == "T" for path in threads.glob("*/stat")),
            "the agent stands still",
        )

    def resume(self) -> None:
        """End a pause."""
        self.process.signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # === the agent's API, as an operator would use it ===

    def request(self, method: str, path: str, body: object = None) -> Any:
        """One request; the decoded JSON, None for an empty answer. Raises HTTPError and OSError."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.address}{path}", data=data, method=method)
        with urllib.request.urlopen(request, timeout=ANSWER_PATIENCE) as response:
            content = response.read()
        return json.loads(content) if content else None

    def get(self, path: str) -> Any:
        """GET."""
        return self.request("GET", path)

    def put(self, path: str, body: object = None) -> Any:
        """PUT."""
        return self.request("PUT", path, body)

    def services(self) -> dict[str, Any]:
        """What is registered with the agent, by id."""
        found: dict[str, Any] = self.get("/v1/agent/services")
        return found

    def checks(self) -> dict[str, Any]:
        """The agent's checks, by id."""
        found: dict[str, Any] = self.get("/v1/agent/checks")
        return found

    def passing(self, service: str) -> list[str]:
        """The addresses of the passing instances."""
        entries = self.get(f"/v1/health/service/{service}?passing")
        return sorted(f"{e['Service']['Address'] or e['Node']['Address']}:{e['Service']['Port']}" for e in entries)

    def register(self, service: str, identity: str, port: int, **more: Any) -> None:
        """Register an instance without a check."""
        self.put("/v1/agent/service/register", {"Name": service, "ID": identity, "Port": port, **more})

    def deregister(self, identity: str) -> None:
        """Take an instance out."""
        self.put(f"/v1/agent/service/deregister/{identity}")

    def maintain(self, identity: str, enable: bool, reason: str = "") -> None:
        """Put an instance into maintenance, or back."""
        query = urllib.parse.urlencode({"enable": str(enable).lower(), "reason": reason})
        self.put(f"/v1/agent/service/maintenance/{identity}?{query}")
