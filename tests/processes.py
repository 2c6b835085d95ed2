"""Processes that a test starts and stops: the sidecar under test, and helpers that speak a line when they are ready.

Nothing here knows a protocol beyond the admin API's plain HTTP/1.1. A process that a test started is always gone
when its `with` block ends; a sidecar must then also have ended by SIGTERM with exit code 0, unless the test said
otherwise.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import yaml

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 30.0  # seconds that any single condition may take on a slow machine before the test gives up

T = TypeVar("T")
_taken: set[int] = set()
_choice = random.Random(os.getpid())  # other test processes on this machine start elsewhere


def free_port() -> int:
    """A loopback port that was free just now and that the kernel never gives to an outgoing connection by itself.

    Below the ephemeral range (32768 on Linux), so that nothing takes it before the process that it is meant for.
    """
    while True:
        port = _choice.randrange(20_000, 32_000)
        if port in _taken:
            continue
        _taken.add(port)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def wait_until(condition: Callable[[], T], what: str, patience: float = PATIENCE, pause: float = 0.01) -> T:
    """Ask until the answer is true, and return it; after `patience` seconds fail with the sentence `what`."""
    give_up_at = time.monotonic() + patience
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > give_up_at:
            raise AssertionError(f"not within {patience:g} s: {what}; last answer: {answer!r}")
        time.sleep(pause)


class Process:
    """A child process whose output goes to a file."""

    def __init__(self, name: str, arguments: list[str], directory: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.arguments = arguments
        self.log_path = directory / f"{name}-{time.monotonic_ns()}.log"
        self.env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(self.arguments, stdout=log, stderr=log, cwd=ROOT, env=self.env)
        return self

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self.name} was not started"
        return self._process

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._running.poll()

    def signal(self, number: int) -> None:
        self._running.send_signal(number)

    def wait(self, patience: float = PATIENCE) -> int:
        """Its exit code, once it has ended by itself or by a signal sent before."""
        try:
            return self._running.wait(patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} still runs after {patience:g} s; log:\n{self.log_tail()}") from None

    def terminate(self, patience: float = PATIENCE) -> int:
        """SIGTERM, and the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(patience)

    def kill(self) -> None:
        """SIGKILL, whatever state it is in."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(PATIENCE)

    def log(self) -> str:
        return self.log_path.read_text("utf-8", "replace")

    def log_tail(self, lines: int = 30) -> str:
        return "\n".join(self.log().splitlines()[-lines:])

    def wait_for_line(self, text: str, patience: float = PATIENCE) -> str:
        """The first line of its output that contains `text`."""

        def find() -> str | None:
            assert self.poll() is None or text in self.log(), f"{self.name} ended early:\n{self.log_tail()}"
            return next((line for line in self.log().splitlines() if text in line), None)

        return str(wait_until(find, f"{self.name} says {text!r}; log:\n{self.log_tail()}", patience))

    def memory(self) -> int:
        """Resident octets now."""
        return self._status("VmRSS:")

    def peak_memory(self) -> int:
        """The most resident octets since it started."""
        return self._status("VmHWM:")

    def _status(self, key: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text("ascii").splitlines():
            if line.startswith(key):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"{self.name} shows no {key}")

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def __enter__(self) -> Self:
        return self.start() if self._process is None else self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()


class Sidecar(Process):
    """One `python -m sidecar run` with a configuration of its own.

    Used as a context manager it is ready inside the block (unless `ready=False`), and must end by SIGTERM with exit
    code 0 after it, if the test has not ended it itself.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        directory: Path,
        name: str = "sidecar",
        *,
        codec: str = "auto",
        ready: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.admin_port = free_port()
        self.config_path = directory / f"{name}-{self.admin_port}.yaml"
        self.config: dict[str, Any] = {
            "admin": {"listen": f"127.0.0.1:{self.admin_port}"},
            "log": {"format": "text"},
            **config,
        }
        self.config["http2"] = {"codec": codec, **self.config.get("http2", {})}
        self.write_config()
        arguments = [sys.executable, "-m", "sidecar", "run", "--config", str(self.config_path)]
        super().__init__(name, arguments, directory, env)
        self._ready = ready

    def write_config(self, text: str | None = None) -> None:
        """Replace the configuration file, atomically as an operator's tool would."""
        new = self.config_path.with_suffix(".new")
        new.write_text(text if text is not None else yaml.safe_dump(self.config, sort_keys=False), "utf-8")
        new.replace(self.config_path)

    def listen_port(self, service: str) -> int:
        """The port the app dials for `service`."""
        for entry in self.config["upstreams"]:
            if entry["service"] == service:
                return int(entry["listen"].rpartition(":")[2])
        raise KeyError(service)

    def ask(self, path: str, method: str = "GET", patience: float = PATIENCE) -> tuple[int, str]:
        """Status and body of a request to its admin API."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=patience)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode("utf-8")
        finally:
            connection.close()

    def is_ready(self) -> bool:
        assert self.poll() is None, f"{self.name} ended with {self.poll()} before it was ready:\n{self.log_tail()}"
        try:
            return self.ask("/ready")[0] == 200
        except OSError:
            return False

    def wait_ready(self) -> None:
        wait_until(self.is_ready, f"{self.name} is ready; log:\n{self.log_tail()}")

    def clusters(self) -> dict[str, Any]:
        """The admin API's view of every upstream, by service."""
        status, body = self.ask("/clusters?format=json")
        assert status == 200, body
        return {upstream["name"]: upstream for upstream in json.loads(body)["upstreams"]}

    def endpoints(self, service: str) -> list[dict[str, Any]]:
        """The admin API's view of the endpoints of `service`."""
        return list(self.clusters()[service]["endpoints"])

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of `name` that carry `labels`; 0 if there are none."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        total = 0.0
        for line in self.ask("/metrics")[1].splitlines():
            if line.startswith((f"{name}{{", f"{name} ")) and all(label in line for label in wanted):
                total += float(line.rpartition(" ")[2])
        return total

    def __enter__(self) -> Self:
        super().__enter__()
        if self._ready:
            try:
                self.wait_ready()
            except BaseException:
                self.kill()
                raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            self.kill()
            print(f"--- log of {self.name} ---\n{self.log_tail(60)}", file=sys.stderr)
        elif self.poll() is None:
            try:
                code = self.terminate()
            finally:
                self.kill()
            assert code == 0, f"{self.name} ended with {code}:\n{self.log_tail()}"


class MemoryWatch:
    """Samples a process's resident memory from a thread, for as long as its block lasts."""

    def __init__(self, process: Process, interval: float = 0.02) -> None:
        self._process = process
        self._interval = interval
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.first = 0
        self.highest = 0

    def _run(self) -> None:
        while not self._ended.wait(self._interval):
            self.highest = max(self.highest, self._process.memory())

    @property
    def growth(self) -> int:
        """Octets by which the process grew over its size at the start of the block."""
        return self.highest - self.first

    def __enter__(self) -> Self:
        self.first = self.highest = self._process.memory()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
