"""One run's stage: fresh processes, a directory for their files, and the reading of what the subject used.

A stage is used as a context manager; when it closes, every process that it started has ended.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from benchmarks import consul, h2load
from benchmarks.accounting import Foreign, Quiet, cpu_ns
from benchmarks.process import PATIENCE, Failed, Placement, Process, free_port
from benchmarks.subject import DIRECT, Job, Subject
from benchmarks.wire import Unexpected, grpc_message, probe

UNARY = 76  # octets of a small reply, its gRPC prefix included
REQUEST = 71  # octets of a small request
Address = tuple[str, int]


@dataclass
class Reading:
    """What happened while a block ran: filled in when it ends."""

    cpu_ns: int = 0
    seconds: float = 0.0
    quiet: Quiet = field(default_factory=lambda: Quiet(0.0, 0.0))
    excuse: str | None = None  # another reason why the run does not count

    def us_per(self, count: int) -> float:
        """Microseconds of the subject's CPU for each of `count`."""
        return self.cpu_ns / 1000 / count


class Stage:
    """Backends, a subject and spinners, for one run."""

    def __init__(self, placement: Placement, *, patience: float = PATIENCE) -> None:
        self.placement = placement
        self.patience = patience  # seconds for a subject's start
        self.processes: list[Process] = []
        self.readings: list[Reading] = []
        self.port = 0
        self.admin_port = 0
        self.subject: Process | None = None

    def __enter__(self) -> Stage:
        self._directory = tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True)
        self.directory = Path(self._directory.name)
        self.directory.chmod(0o755)  # nginx's worker is another user
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self.processes):
            process.end()
        self._directory.cleanup()

    def start(self, name: str, command: list[str], cpus: frozenset[int], *, idle: bool = False) -> Process:
        """A process that ends with the stage."""
        process = Process(name, command, self.directory / f"{name}-{len(self.processes)}.log", cpus, idle=idle)
        self.processes.append(process)
        return process

    def spin(self) -> None:
        """Keep both CPUs from halting with loops that run only when nothing else wants to (SCHED_IDLE)."""
        for cpu in sorted(self.placement.load | self.placement.subject):
            self.start(f"spinner-{cpu}", ["sh", "-c", "while :; do :; done"], frozenset([cpu]), idle=True)

    def backend(self, count: int = 1, *, reply: int = UNARY, delay: float = 0.0) -> list[Address]:
        """`count` endpoints in one process."""
        port = free_port()
        hosts = ["127.0.0.1", *(f"127.1.{n // 250}.{n % 250 + 1}" for n in range(count - 1))]
        addresses = [(host, port) for host in hosts]
        listen = ",".join(f"{host}:{port}" for host in hosts)
        arguments = [f"--listen={listen}", f"--reply={reply}", f"--delay={delay}"]
        self.python_process("benchmarks.backend", *arguments).wait_listening(addresses[-1])
        return addresses

    def python_process(self, module: str, *arguments: str) -> Process:
        """One of the harness's own servers, on the load CPU."""
        command = [sys.executable, "-m", module, *arguments]
        return self.start(module.rpartition(".")[2], command, self.placement.load)

    def launch(self, subject: Subject, endpoints: list[Address]) -> Process | None:
        """Start the subject without waiting for it."""
        if subject is DIRECT:
            self.port = endpoints[0][1]
            return None
        program = subject.program()
        if program is None:
            raise Failed(str(subject.missing()))
        self.port, self.admin_port = free_port(), free_port()
        registry = consul.start(self, endpoints) if subject.consul else None
        job = Job(self.port, endpoints, self.admin_port, self.directory, registry)
        self.subject = self.start(subject.name, subject.command(job, program), self.placement.subject)
        return self.subject

    def open(self, subject: Subject, endpoints: list[Address], *, probing: bool = True) -> None:
        """Start the subject; wait until RPCs pass and all is loaded (without `probing`: until it listens)."""
        process = self.launch(subject, endpoints)
        if process is not None:
            process.wait_listening(("127.0.0.1", self.port), patience=self.patience)
        if probing:
            self.wait_ready()
            self.scrape(subject)

    def scrape(self, subject: Subject) -> None:
        """Read the subject's metrics once, as a monitoring system would: what that needs is loaded from then on."""
        if subject.metrics and self.subject is not None:
            self.subject.wait_listening(("127.0.0.1", self.admin_port), patience=self.patience)
            address = f"http://127.0.0.1:{self.admin_port}{subject.metrics}"
            with urllib.request.urlopen(address, timeout=self.patience) as answer:
                answer.read()

    def retire_subject(self) -> None:
        """End the subject; another one may follow on this stage."""
        if self.subject is not None:
            self.subject.end()
            self.subject = None

    def hold_idle(self, count: int) -> Process:
        """`count` connections to the subject on which nothing happens, until the returned process ends."""
        process = self.python_process("benchmarks.idle", f"--target=127.0.0.1:{self.port}", f"--count={count}")
        until = time.monotonic() + PATIENCE
        while "connections stand" not in process.log.read_text(errors="replace"):
            process.check()
            if time.monotonic() > until:
                raise Failed(f"{count} connections do not stand after {PATIENCE:.0f} s: {process.last_words()}")
            time.sleep(0.05)
        return process

    def wait_ready(self, step: float = 0.02) -> None:
        """Until an RPC comes back whole."""
        until = time.monotonic() + self.patience
        while True:
            if self.subject is not None:
                self.subject.check()
            try:
                probe(("127.0.0.1", self.port))
            except (OSError, Unexpected) as error:
                if time.monotonic() > until:
                    words = self.subject.last_words() if self.subject else ""
                    raise Failed(f"no RPC passes after {self.patience:.0f} s: {error}\n    {words}") from None
                time.sleep(step)
            else:
                return

    def body(self, size: int = REQUEST) -> Path:
        """A file with one gRPC message of `size` octets in all."""
        path = self.directory / f"body-{size}"
        if not path.exists():
            path.write_bytes(grpc_message(size))
        return path

    def h2load(
        self,
        requests: int,
        clients: int,
        streams: int,
        *,
        size: int = REQUEST,
        reply: int = UNARY,
        watch: Callable[[], None] | None = None,
    ) -> h2load.Outcome:
        """Run the closed-loop generator against the subject."""
        load = h2load.Load(requests, clients, streams, self.body(size))
        try:
            return h2load.run(load, self.port, self.placement.load, reply_size=reply, watch=watch)
        except Failed as error:
            words = self.subject.last_words() if self.subject else "(direct)"
            raise Failed(f"{error}\n    its log ends with:\n    {words}") from None

    def python(self, module: str, *arguments: str, timeout: float = 300.0) -> str:
        """Run one of the harness's own programs on the load CPU; returns what it printed."""
        cpus = ",".join(map(str, sorted(self.placement.load)))
        command = ["taskset", "-c", cpus, sys.executable, "-m", module, *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            raise Failed(f"{module} did not end within {timeout:.0f} s") from None
        if done.returncode:
            raise Failed(f"{module} ended with code {done.returncode}: {(done.stderr or done.stdout)[-1500:]}")
        return done.stdout

    @contextmanager
    def measured(self) -> Iterator[Reading]:
        """Read the subject's CPU, the clock and the foreign load around a block."""
        reading = Reading()
        pid = self.subject.pid if self.subject else None
        foreign = Foreign.read()
        cpu = cpu_ns(pid) if pid else 0
        began = time.perf_counter()
        yield reading
        reading.seconds = time.perf_counter() - began
        reading.cpu_ns = (cpu_ns(pid) if pid else 0) - cpu
        reading.quiet = Quiet.between(foreign, Foreign.read(), reading.seconds)
        self.readings.append(reading)

    def objection(self) -> str | None:
        """Why this run does not count, or None."""
        words = (reading.excuse or reading.quiet.objection() for reading in self.readings)
        return next(filter(None, words), None)
