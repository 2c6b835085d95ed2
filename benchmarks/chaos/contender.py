"""A proxy of this comparison: how it is started, and what its admin API says of each endpoint.

Two implementations, `ours` and `envoy`, each with retries off and on.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from benchmarks.process import Failed, Process, free_port
from benchmarks.stage import Address, Stage
from benchmarks.subject import Job, Subject

SERVICE = "chaos"  # what the proxies call the upstream


class Admin:
    """An admin API."""

    def __init__(self, port: int) -> None:
        self.port = port

    def read(self, path: str) -> bytes:
        """The answer to GET."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request("GET", path)
            return connection.getresponse().read()

    def ask(self, path: str) -> Any:
        """A JSON answer."""
        return json.loads(self.read(path))


@dataclass(frozen=True)
class View:
    """One endpoint as the proxy's admin API shows it."""

    usable: bool  # it is not out of picks
    reason: str
    attempts: int  # RPCs sent to it so far
    avoided: bool = False  # not out of picks, and yet it gets nothing, as the proxy itself says


@dataclass(frozen=True)
class Contender:
    """A subject whose view of its endpoints can be asked."""

    subject: Subject
    views: Callable[[Admin], dict[str, View]]  # by host:port
    ours: bool

    @property
    def name(self) -> str:
        return self.subject.name


class Standing:
    """A contender that was started, in front of these endpoints."""

    def __init__(self, stage: Stage, contender: Contender, endpoints: Sequence[Address]) -> None:
        program = contender.subject.program()
        if program is None:
            raise Failed(str(contender.subject.missing()))
        self.contender = contender
        self.port, admin_port = free_port(), free_port()
        self.admin = Admin(admin_port)
        directory = stage.directory / f"{contender.name}-{self.port}"
        directory.mkdir()
        job = Job(self.port, endpoints, admin_port, directory)
        command = contender.subject.command(job, program)
        self.process: Process = stage.start(contender.name, command, stage.placement.subject)

    @property
    def name(self) -> str:
        return self.contender.name

    def wait(self, patience: float = 60.0) -> None:
        """Until every endpoint is usable and a connection is accepted."""
        for port in (self.port, self.admin.port):
            self.process.wait_listening(("127.0.0.1", port), step=0.02, patience=patience)
        until = time.monotonic() + patience
        while not all(view.usable for view in self.views().values()):
            self.process.check()
            if time.monotonic() > until:
                raise Failed(f"{self.name} does not use every endpoint after {patience:.0f} s: {self.views()}")
            time.sleep(0.05)

    def metric(self, name: str) -> float:
        """The sum of a Prometheus metric's samples."""
        lines = self.admin.read("/metrics").decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))

    def views(self) -> dict[str, View]:
        """Its endpoints now."""
        return self.contender.views(self.admin)
