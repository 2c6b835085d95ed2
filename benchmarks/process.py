"""Child processes of a run: started on a CPU of their own, waited for by what they do, ended by their pid."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Compiled modules are cached as an installation would have them, and hashes are the same in every process.
ENVIRONMENT = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONHASHSEED": "0"}
PATIENCE = 20.0  # seconds; Envoy and a thousand endpoints need two on a busy machine


class Failed(Exception):
    """A run cannot go on; the text says what happened and shows the end of the process's own log."""


@dataclass(frozen=True)
class Placement:
    """Which CPU does what. With one CPU only, they are the same one."""

    load: frozenset[int]
    subject: frozenset[int]

    @classmethod
    def apart(cls) -> Placement:
        """The subject alone on the last CPU, generator and backend on the first."""
        cpus = sorted(os.sched_getaffinity(0))
        return cls(frozenset(cpus[:1]), frozenset(cpus[-1:]))

    @classmethod
    def together(cls) -> Placement:
        """Everything on the last CPU: wall time is then the sum of all CPU time."""
        cpus = sorted(os.sched_getaffinity(0))
        return cls(frozenset(cpus[-1:]), frozenset(cpus[-1:]))


class Process:
    """One child with its log file. `end` asks it to stop, and kills it after a while."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, cpus: frozenset[int], *, idle: bool = False
    ) -> None:
        def prepare() -> None:
            os.sched_setaffinity(0, cpus)
            if idle:
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

        self.name = name
        self.log = log
        self.started_at = time.monotonic()
        with log.open("wb") as file:
            self.child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=ENVIRONMENT,
                preexec_fn=prepare,  # noqa: PLW1509 (the harness has no threads)
            )

    @property
    def pid(self) -> int:
        return self.child.pid

    def last_words(self) -> str:
        """The end of its log."""
        text = self.log.read_text(errors="replace").strip()
        return "\n    ".join(text.splitlines()[-12:]) or "(it wrote nothing)"

    def check(self) -> None:
        """Raise Failed if it has ended."""
        code = self.child.poll()
        if code is not None:
            raise Failed(f"{self.name} ended with code {code}:\n    {self.last_words()}")

    def wait_listening(self, address: tuple[str, int], step: float = 0.005, patience: float = PATIENCE) -> float:
        """Until it accepts connections on `address`; returns seconds since its start."""
        while True:
            self.check()
            try:
                socket.create_connection(address, timeout=1).close()
            except OSError:
                if time.monotonic() - self.started_at > patience:
                    raise Failed(f"{self.name} does not listen on {address}:\n    {self.last_words()}") from None
                time.sleep(step)
            else:
                return time.monotonic() - self.started_at

    def end(self) -> None:
        """SIGTERM, and SIGKILL for those who do not listen."""
        if self.child.poll() is not None:
            return
        self.child.send_signal(signal.SIGTERM)
        try:
            self.child.wait(3)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


def free_port() -> int:
    """A port that nobody has right now, below those that the kernel gives to outgoing connections (32768 on Linux)."""
    while True:
        port = random.randrange(16_384, 32_768)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
