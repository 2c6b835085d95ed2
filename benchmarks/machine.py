"""The machine and the versions that a result belongs to. Read-only."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from benchmarks.process import ROOT
from benchmarks.subject import DIRECT, SUBJECTS

PACKAGES = ("uvloop", "h2", "grpcio", "Cython")


def describe() -> dict[str, str]:
    """CPU, memory, kernel, distribution, Python."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", cpuinfo)
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    return {
        "cpu": f"{len(os.sched_getaffinity(0))} x {model[1] if model else platform.machine()}",
        "virtual": "yes" if " hypervisor" in cpuinfo else "no",
        "memory": f"{int(memory[1]) // 2**20} GiB" if memory else "unknown",
        "kernel": f"{platform.system()} {platform.release()}",
        "system": _distribution(),
        "python": _python(),
        "commit": _commit(),
    }


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return "unknown"


def _python() -> str:
    """Version, compiler, and whether the interpreter is a library of its own: builds differ more than versions do."""
    shared = "libpython" in Path("/proc/self/maps").read_text()
    return f"{platform.python_version()} ({platform.python_compiler()}, {'shared library' if shared else 'static'})"


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    return done.stdout.strip() or "unknown"


def versions(subjects: Iterable[str]) -> dict[str, str]:
    """What each program says of itself."""
    found = {name: _package(name) for name in PACKAGES}
    for name in subjects:
        subject = SUBJECTS[name]
        program = subject.program()
        if subject is not DIRECT and program:
            done = subprocess.run([program, *subject.version], capture_output=True, text=True, check=False, timeout=20)
            lines = (done.stdout + done.stderr).strip().splitlines()
            found[name] = lines[0].removeprefix(program).strip() if lines else "unknown"
    return found


def stale_extensions() -> str | None:
    """A sentence if a compiled module is older than its source: what runs is then not what is written there."""
    suffix = EXTENSION_SUFFIXES[0]
    stale = []
    for built in (ROOT / "sidecar").rglob(f"*{suffix}"):
        module = built.with_name(built.name.removesuffix(suffix))
        sources = [module.with_suffix(ending) for ending in (".py", ".pyx", ".pxd")]
        if any(source.exists() and source.stat().st_mtime > built.stat().st_mtime for source in sources):
            stale.append(module.name)
    return (
        f"Compiled before it was last changed: {', '.join(sorted(stale))}; scripts/venv builds it." if stale else None
    )


def _package(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
