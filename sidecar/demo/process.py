"""Processes of the demo: each in a group of its own, with its output in a file, and ended by whoever started it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import sidecar

POLL = 0.01  # seconds between two looks at whether a process has ended
SETTLE = 15.0  # seconds for an end in order; longer than the greeter's grace
# Below the range that Linux takes for outgoing connections (from 32768), so that none of those steps in between.
PORTS = range(20_000, 32_000)
FOREIGN = ("SIDECAR_", "CONSUL_", "PYTHONPATH")  # variables of the user's that would change what the demo does

_handed_out: set[int] = set()


class StageError(Exception):
    """The demo cannot go on; the text is a sentence for its user."""


def free_port() -> int:
    """A loopback port that nobody listens on, each given out once."""
    for _ in range(1000):
        port = random.choice(PORTS)
        if port in _handed_out:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _handed_out.add(port)
        return port
    raise StageError(f"no free port was found on 127.0.0.1 between {PORTS.start} and {PORTS.stop}")


def environment() -> dict[str, str]:
    """The user's, without what would redirect a sidecar, and with this copy of the package."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
    package = Path(sidecar.__file__).parent.parent
    return {**kept, "PYTHONPATH": str(package), "PYTHONUNBUFFERED": "1", "GRPC_VERBOSITY": "NONE"}


def python(module: str, *arguments: str) -> list[str]:
    """The command line of a module; the working directory is not searched for it."""
    return [sys.executable, "-P", "-m", module, *arguments]


class Child:
    """A process, started anew as often as wanted. `name` is what sentences call it."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        self.command = command
        self.log = log
        self.wanted = False  # started and not told to end: its end would be a surprise
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, lasting: bool = True) -> None:
        """Start it. `lasting`: it is not to end before it is told to."""
        command = python("sidecar.demo.leash", str(os.getpid()), *self.command)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
                start_new_session=True,  # a Ctrl-C in the terminal is for the demo, which ends the others in order
            )
        self.wanted = lasting

    @property
    def running(self) -> bool:
        """Whether it is there."""
        return self._process is not None and self._process.poll() is None

    def check(self) -> None:
        """Raises StageError if it has ended and should not have."""
        if self.wanted and self._process is not None and self._process.poll() is not None:
            raise StageError(f"{self.name} ended by itself with code {self._process.returncode}. {self.tail()}")

    def signal(self, number: int) -> None:
        """Send its group a signal; nothing happens if it has ended."""
        self.wanted = False
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, number)

    async def wait(self, patience: float = SETTLE) -> int:
        """Its exit code, negative for a signal. Raises StageError when it takes longer than `patience` seconds."""
        give_up_at = time.monotonic() + patience
        while (code := self._process.poll() if self._process is not None else 0) is None:
            if time.monotonic() > give_up_at:
                raise StageError(f"{self.name} still runs after {patience:g}s. {self.tail()}")
            await asyncio.sleep(POLL)
        self.wanted = False
        return code

    async def end(self) -> int:
        """SIGTERM, then SIGKILL for what does not obey; its exit code."""
        self.signal(signal.SIGTERM)
        try:
            return await self.wait()
        except StageError:
            self.signal(signal.SIGKILL)
            return await self.wait()

    def tail(self, lines: int = 5) -> str:
        """The end of its log, as part of a sentence."""
        try:
            text = self.log.read_text("utf-8", "replace")
        except OSError:
            return "It has written nothing."
        last = [line for line in text.splitlines() if line.strip()][-lines:]
        return f"Its log ({self.log}) ends with:\n  " + "\n  ".join(last) if last else "It has written nothing."
