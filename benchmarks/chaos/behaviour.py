"""How an instance behaves, told from outside while it runs, and the journal of what it was asked to execute.

An instance listens on a Unix socket for one JSON line per command, so that a fault begins at an instant that the
harness knows. The journal is a file with one line per execution; it outlives a SIGKILL.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

METHOD = "/chaos.Chaos/Do"

HEALTHY = "healthy"
TRAILERS = "trailers"  # a response head, then UNAVAILABLE in the trailers
TRAILERS_ONLY = "trailers-only"  # UNAVAILABLE in the first and only header block
HANG = "hang"  # no answer, ever
RESET = "reset"  # RST_STREAM with INTERNAL_ERROR


@dataclass
class Behaviour:
    """What an RPC meets. `work` seconds for each, `slow` seconds for every `slow_every`th (0: for none)."""

    fault: str = HEALTHY
    work: float = 0.0
    slow_every: int = 0
    slow: float = 0.0

    def seconds(self, number: int) -> float:
        """What one attempt takes; `number` is its RPC's id and the attempts before it, so each has its own chance."""
        return self.slow if self.slow_every and number % self.slow_every == 0 else self.work


class Journal:
    """One line per execution: the instant (monotonic, comparable between processes) and the RPC's id."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, request: bytes) -> None:
        """Note that the RPC with this body is executed. Unbuffered: a kill loses nothing."""
        os.write(self.descriptor, b"%.6f %s\n" % (time.monotonic(), request))


def read_journal(path: Path) -> list[tuple[float, int]]:
    """(instant, id) of every execution, in order."""
    if not path.exists():
        return []
    lines = (line.split() for line in path.read_text("ascii").splitlines())
    return [(float(at), int(number)) for at, number in lines]


async def obey(path: str, behaviour: Behaviour) -> asyncio.Server:
    """Take commands on a Unix socket: any of the behaviour's fields, answered with all of them."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for key, value in json.loads(await reader.readline()).items():
            setattr(behaviour, key, value)
        writer.write(json.dumps(vars(behaviour)).encode() + b"\n")
        writer.close()

    Path(path).unlink(missing_ok=True)  # of an instance that was killed
    return await asyncio.start_unix_server(converse, path)


def command(path: str, **fields: object) -> dict[str, object]:
    """Change the behaviour of a running instance; returns all of it. It is in force when this returns."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(path)
        connection.sendall(json.dumps(fields).encode() + b"\n")
        with connection.makefile("rb") as answer:
            return dict(json.loads(answer.readline()))
