"""The instances behind the proxies, seen by the harness: started, told how to behave, killed, frozen, cut off.

Each has a loopback address of its own, so that packets can be dropped for one of them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from benchmarks.chaos import behaviour, firewall
from benchmarks.process import Placement, Process, free_port
from benchmarks.stage import Address, Stage

GRPCIO, GRPCLIB = "instance", "resetting"  # the modules that serve

PATIENCE = 60.0  # seconds for a server to start, beside dozens of others

KILLED = "killed"
DROPPED = "packets dropped"


def everywhere() -> Placement:
    """All processes on all CPUs: what is compared here is what callers see, not what it costs."""
    cpus = frozenset(os.sched_getaffinity(0))
    return Placement(cpus, cpus)


class Instance:
    """One server process and its files."""

    def __init__(self, stage: Stage, number: int, *options: str, module: str = GRPCIO) -> None:
        self.stage = stage
        self.name = f"instance-{number}"
        self.address: Address = (f"127.0.3.{number}", free_port())
        self.control = str(stage.directory / f"{self.name}.sock")
        self.journal = stage.directory / f"{self.name}.journal"
        self.module = module
        self.options = options
        self.process: Process
        self.start()

    @property
    def target(self) -> str:
        return f"{self.address[0]}:{self.address[1]}"

    def start(self) -> None:
        """Start the process, again after a kill; `wait` for it before it is needed."""
        arguments = [f"--address={self.target}", f"--control={self.control}", f"--journal={self.journal}"]
        module = f"benchmarks.chaos.{self.module}"
        self.process = self.stage.python_process(module, *arguments, *self.options)

    def wait(self) -> None:
        """Until it listens."""
        self.process.wait_listening(self.address, step=0.02, patience=PATIENCE)

    def behave(self, **fields: object) -> None:
        """Change its behaviour, at once."""
        behaviour.command(self.control, **fields)

    def begin(self, fault: str) -> None:
        """Let a fault begin: one of `behaviour`'s, or KILLED, or DROPPED."""
        if fault == KILLED:
            self.process.child.kill()
            self.process.child.wait()
        elif fault != DROPPED:
            self.behave(fault=fault)
        elif firewall.objection():
            self.process.child.send_signal(signal.SIGSTOP)
        else:
            firewall.drop(self.address[0])

    def cease(self, fault: str) -> None:
        """Let it be over. A killed instance is up again when this returns."""
        if fault == KILLED:
            self.start()
            self.wait()
        elif fault != DROPPED:
            self.behave(fault=behaviour.HEALTHY)
        elif firewall.objection():
            self.process.child.send_signal(signal.SIGCONT)
        else:
            firewall.let_pass(self.address[0])

    def executions(self) -> list[tuple[float, int]]:
        """(instant, id) of everything it was asked to execute."""
        return behaviour.read_journal(self.journal)


def start(stage: Stage, count: int, *options: str, first: int = 1) -> list[Instance]:
    """`count` instances, listening."""
    instances = [Instance(stage, number, *options) for number in range(first, first + count)]
    for instance in instances:
        instance.wait()
    return instances


def executed(instances: Sequence[Instance]) -> list[int]:
    """The ids of all executions, anywhere."""
    return [number for instance in instances for _, number in instance.executions()]


def addresses(instances: Sequence[Instance]) -> list[Address]:
    """Where they listen."""
    return [instance.address for instance in instances]


def out_file(stage: Stage, name: str) -> Path:
    """Where a generator leaves its record."""
    return stage.directory / f"{name}.json"
