"""Who used the CPU: read from /proc, before and after, around a fixed number of RPCs.

A subject's CPU is field 1 of /proc/PID/task/*/schedstat: nanoseconds on a CPU, exact, summed over its threads and over
its child processes. The split in user and system time is sampled by the kernel's tick and is not used. Everything that
is not ours is foreign load, and time that the hypervisor took is steal; a run in which either moved does not count.
"""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")
FOREIGN_LIMIT = 0.10  # of one CPU; two sides of a pair then differ by less than the A/A noise of 3 %
STEAL_LIMIT = 0.04  # of all CPUs
KTHREADD = 2  # the parent of all kernel threads: what they do, they do for somebody


def parse_schedstat(line: str) -> int:
    """Nanoseconds that the task has spent on a CPU."""
    return int(line.split(maxsplit=1)[0])


@dataclass(frozen=True)
class ProcessTimes:
    """What /proc/PID/stat knows: the parent, and ticks of CPU including those of children that were waited for."""

    parent: int
    ticks: int


def parse_stat(line: str) -> ProcessTimes:
    """/proc/PID/stat; the name in parentheses may contain anything, parentheses too."""
    fields = line[line.rindex(")") + 2 :].split()
    return ProcessTimes(parent=int(fields[1]), ticks=sum(int(field) for field in fields[11:15]))


def parse_steal(line: str) -> tuple[int, int]:
    """(ticks stolen, ticks in all) from the first line of /proc/stat."""
    fields = [int(field) for field in line.split()[1:9]]
    return fields[7], sum(fields)


def processes() -> dict[int, ProcessTimes]:
    """Every process there is."""
    found = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = parse_stat((entry / "stat").read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def family(root: int, table: dict[int, ProcessTimes]) -> set[int]:
    """`root` and all its descendants."""
    members = {root}
    grown = True
    while grown:
        grown = False
        for pid, times in table.items():
            if times.parent in members and pid not in members:
                members.add(pid)
                grown = True
    return members


def cpu_ns(root: int) -> int:
    """Nanoseconds of CPU of a process, its threads and its child processes so far."""
    total = 0
    for pid in family(root, processes()):
        try:
            for task in (PROC / str(pid) / "task").iterdir():
                total += parse_schedstat((task / "schedstat").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


@dataclass(frozen=True)
class Foreign:
    """A reading of what others used, to be subtracted from a later one."""

    ticks: int
    stolen: int
    total: int

    @classmethod
    def read(cls) -> Foreign:
        table = processes()
        ours = family(os.getpid(), table)
        ticks = sum(
            times.ticks for pid, times in table.items() if pid not in ours and KTHREADD not in (pid, times.parent)
        )
        with (PROC / "stat").open() as file:
            stolen, total = parse_steal(file.readline())
        return cls(ticks, stolen, total)


@dataclass(frozen=True)
class Quiet:
    """How quiet the machine was during a run."""

    foreign: float  # CPUs used by others
    steal: float  # share of all CPU time

    @classmethod
    def between(cls, before: Foreign, after: Foreign, seconds: float) -> Quiet:
        total = max(1, after.total - before.total)
        return cls(
            foreign=max(0.0, (after.ticks - before.ticks) / TICKS / max(seconds, 1e-9)),
            steal=(after.stolen - before.stolen) / total,
        )

    def objection(self) -> str | None:
        """Why a run does not count, or None."""
        if self.foreign > FOREIGN_LIMIT:
            return f"other processes used {self.foreign:.2f} CPUs"
        if self.steal > STEAL_LIMIT:
            return f"the hypervisor took {self.steal:.0%}"
        return None


@dataclass(frozen=True)
class Memory:
    """Octets of a process and its children. Shared pages count fully in `resident`, by share in `proportional`."""

    resident: int
    proportional: int
    private: int
    anonymous: int

    @classmethod
    def of(cls, root: int) -> Memory:
        sums = dict.fromkeys(("Rss", "Pss", "Private_Clean", "Private_Dirty", "Anonymous"), 0)
        for pid in family(root, processes()):
            for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]:
                key, _, value = line.partition(":")
                if key in sums:
                    sums[key] += int(value.split()[0]) * 1024
        return cls(sums["Rss"], sums["Pss"], sums["Private_Clean"] + sums["Private_Dirty"], sums["Anonymous"])


def resident(root: int) -> int:
    """Octets of resident memory of a process and its children: a cheap reading, for watching them while they work."""
    pages = sum(int((PROC / str(pid) / "statm").read_text().split()[1]) for pid in family(root, processes()))
    return pages * os.sysconf("SC_PAGE_SIZE")


def open_many_files() -> None:
    """Raise the soft limit of open files to the hard one: thousands of connections are to be held."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
