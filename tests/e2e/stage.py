"""The main job on one machine: instances with a sidecar each that registers them, and load from an app with its own.

An instance restarts as Kubernetes restarts a pod: preStop (`sidecar drain`), the app's SIGTERM, then the sidecar's.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

import grpc

from tests.processes import PATIENCE, ROOT, Sidecar, free_port, wait_until
from tests.registry_process import ConsulAgent
from tests.services import ECHO, INSTANCE, TALK, AppProcess, connect

SERVICE = "probe"
PROPAGATION = 0.5  # seconds that `sidecar drain` waits for callers; blocking queries tell them in milliseconds


class Instance:
    """An app and the sidecar that registers it."""

    def __init__(self, name: str, consul: ConsulAgent, directory: Path) -> None:
        self.name = name
        self._consul = consul
        self._directory = directory
        self.app: AppProcess
        self.sidecar: Sidecar

    def start(self) -> Self:
        """Both processes, on new ports as a new pod would have; does not wait for the registry."""
        port = free_port()
        self.app = AppProcess(self.name, port, self._directory)
        self.app.start()
        config = {
            "service": {
                "name": SERVICE,
                "port": port,
                "address": "127.0.0.1",
                "check": {"grpc": {}, "interval": "500ms", "timeout": "5s"},
            },
            "registry": {"consul": {"address": self._consul.address}},
            "drain": {"propagation": f"{PROPAGATION}s"},
        }
        self.sidecar = Sidecar(config, self._directory, f"sidecar-of-{self.name}", ready=False)
        self.sidecar.start()
        return self

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.app.port}"

    @property
    def passing(self) -> bool:
        """Whether the registry lists it as healthy."""
        return self.address in self._consul.passing(SERVICE)

    def wait_passing(self, patience: float = PATIENCE) -> None:
        wait_until(lambda: self.passing, f"{self.name} passes in Consul; {self.sidecar.log_tail()}", patience, 0.05)

    def drain(self) -> None:
        """As preStop does: deregister, and return when callers have had time to notice."""
        arguments = [sys.executable, "-m", "sidecar", "drain", "--admin", f"127.0.0.1:{self.sidecar.admin_port}"]
        done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not self.passing

    def end(self) -> None:
        """In the order of a pod that is deleted; everybody must end with 0."""
        self.drain()
        assert self.app.terminate() == 0, self.app.log_tail()
        assert self.sidecar.terminate() == 0, self.sidecar.log_tail()

    def kill(self) -> None:
        for process in (self.app, self.sidecar):
            process.kill()


class Load:
    """Unary RPCs at a steady rate and streams that are always open, through one listener; every end is recorded.

    A stream carries `STREAM_MESSAGES` questions and answers and ends by itself; another one follows at once.
    """

    STREAM_MESSAGES = 10
    STREAM_PAUSE = 0.05  # seconds between two messages

    def __init__(self, port: int, rate: int = 200, streams: int = 20) -> None:
        self._channel: Any = connect(port)
        self._rate = rate
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._open = 0
        self.unary = Counter[str]()  # by status
        self.streams = Counter[str]()
        self.instances = Counter[str | None]()
        self.failures: list[str] = []
        self.arrivals: dict[str | None, float] = {}  # when an instance answered first
        self._threads = [threading.Thread(target=self._send, daemon=True)]
        self._threads += [threading.Thread(target=self._talk, daemon=True) for _ in range(streams)]

    def _send(self) -> None:
        call = self._channel.unary_unary(ECHO)
        next_at = time.monotonic()
        while not self._ended.wait(max(0.0, next_at - time.monotonic())):
            next_at = max(next_at + 1 / self._rate, time.monotonic() - 0.1)  # never catches up in a burst
            with self._lock:
                self._open += 1
            call.future(b"hello", timeout=PATIENCE).add_done_callback(self._on_unary)

    def _on_unary(self, rpc: Any) -> None:
        status = rpc.code().name
        instance = next((str(value) for key, value in rpc.trailing_metadata() or () if key == INSTANCE), None)
        with self._lock:
            self._open -= 1
            self.unary[status] += 1
            self.instances[instance] += 1
            self.arrivals.setdefault(instance, time.monotonic())
            if status != "OK":
                self.failures.append(f"unary: {status}: {rpc.details()}")

    def _talk(self) -> None:
        while not self._ended.is_set():
            status, details = self._one_stream()
            with self._lock:
                self.streams[status] += 1
                if status != "OK":
                    self.failures.append(f"stream: {status}: {details}")

    def _one_stream(self) -> tuple[str, str]:
        questions: SimpleQueue[bytes | None] = SimpleQueue()
        call = self._channel.stream_stream(TALK)(iter(questions.get, None))
        try:
            for number in range(self.STREAM_MESSAGES):
                questions.put(b"%d" % number)
                if next(call) != b"%d" % number:
                    return "WRONG", "another answer than the one to this question"
                self._ended.wait(self.STREAM_PAUSE)
            questions.put(None)
            for _ in call:
                return "WRONG", "an answer to no question"
        except grpc.RpcError:
            questions.put(None)
        except StopIteration:
            questions.put(None)
            return "SHORT", "ended before its time"
        return call.code().name, call.details()

    @property
    def completed(self) -> int:
        """Unary RPCs that have ended."""
        return sum(self.unary.values())

    def wait_for(self, count: int) -> None:
        """Until so many more unary RPCs have ended: time that is filled with load, on a machine of any speed."""
        goal = self.completed + count
        wait_until(lambda: self.completed >= goal, f"{count} more RPCs", 10 * PATIENCE)

    def wait_for_instance(self, name: str) -> float:
        """Until `name` has answered; when that was (monotonic)."""
        wait_until(lambda: name in self.arrivals, f"an RPC reaches {name}", pause=0.002)
        return self.arrivals[name]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        with suppress(AssertionError):
            wait_until(lambda: not self._open, "the last RPCs end")
        self._channel.close()

    def report(self, what: str) -> str:
        unary, streams = sum(self.unary.values()), sum(self.streams.values())
        return f"{what}: {unary} unary RPCs and {streams} streams, {len(self.failures)} failed {self.failures[:5]}"


def running(instances: list[Instance]) -> Iterator[list[Instance]]:
    """Started and passing inside, gone after."""
    try:
        for instance in instances:
            instance.start()
        for instance in instances:
            instance.wait_passing()
        yield instances
    finally:
        for instance in instances:
            instance.kill()
