"""Packets of one instance dropped, in a network namespace of the run's own, so that nobody else's are.

`scripts/chaos` runs the harness in such a namespace where the kernel lets it; every instance has a loopback address of
its own there, and iptables drops what goes to it and what comes from it. Elsewhere the instance is stopped by SIGSTOP.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from benchmarks.process import Failed

OWN_NETWORK = "CHAOS_OWN_NETWORK"  # set by scripts/chaos inside the namespace that it made


def objection() -> str | None:
    """Why packets cannot be dropped here, or None."""
    if OWN_NETWORK not in os.environ:
        return "this process has no network namespace of its own (unshare --net is not permitted)"
    return None if shutil.which("iptables") else "iptables is not installed"


def _rules(action: str, host: str) -> None:
    for direction in ("-s", "-d"):
        arguments = ["iptables", "--wait", action, "INPUT", direction, host, "-j", "DROP"]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"{' '.join(arguments)}: {done.stderr.strip()}")


def drop(host: str) -> None:
    """From now on no packet reaches this address and none leaves it."""
    _rules("--append", host)


def let_pass(host: str) -> None:
    """Take that back."""
    _rules("--delete", host)
