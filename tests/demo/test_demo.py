"""The demo as its user starts it: every RPC is accounted for, and nothing is left behind, however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.demo import process
from tests.processes import Process, wait_until

DEMO = [sys.executable, "-m", "sidecar", "demo"]
PATIENCE = 150.0  # seconds for a whole round on a busy machine
BEATS = ["--seconds", "0.5"]


def demo(tmp_path: Path, *arguments: str) -> Process:
    """A demo that puts its directory into `tmp_path`; every process of it writes to a log in there."""
    return Process("demo", [*DEMO, *arguments], tmp_path, {"TMPDIR": str(tmp_path)}).start()


def left_behind(tmp_path: Path) -> list[str]:
    """Processes whose output goes below the demo's directory, and the directory itself."""
    found = [str(path) for path in tmp_path.glob("sidecar-demo-*")]
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            output = os.readlink(entry / "fd" / "1")
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if output.startswith(f"{tmp_path}/sidecar-demo-"):
            found.append(f"{entry.name} {command!r}")
    return found


def check_account(log: str, registry: str) -> None:
    """The lines of a round that went well."""
    lines = log.splitlines()
    assert registry in lines[0]
    for told in (
        "was killed (SIGKILL)",
        "took it out of the registry",
        "answered its first RPC",
        "before that ended, and in again after",
    ):
        assert told in log
    assert "all 3 instances again" in log
    assert log.count("none failed") >= 3, "the new one, the restart in order and the registry cost nothing"
    last = re.search(r"(\d+) RPCs were sent, (\d+) answered, (\w+) failed; (.*)$", lines[-1])
    assert last is not None, lines[-1]
    sent, answered, failed, account = last.groups()
    assert int(sent) == int(answered) + int(failed.replace("none", "0"))
    assert account.endswith(f"the client's sidecar counted {sent}; every RPC is accounted for.")
    assert "\x1b" not in log, "a file is no terminal"


@pytest.mark.once  # ten processes, interpreted and beside other tests, leave the client's sidecar no CPU: it sheds load
def test_a_round_with_the_directory_of_leases_loses_nothing_unaccounted_for(tmp_path: Path) -> None:
    with demo(tmp_path, "--once", "--registry", "file", *BEATS) as running:
        assert running.wait(PATIENCE) == 0, running.log()
        check_account(running.log(), "directory of leases")
    assert left_behind(tmp_path) == []


@pytest.mark.once
def test_a_round_with_a_consul_agent_loses_nothing_unaccounted_for(tmp_path: Path) -> None:
    with demo(tmp_path, "--once", "--registry", "consul", *BEATS) as running:
        assert running.wait(PATIENCE) == 0, running.log()
        check_account(running.log(), "Consul agent")
    assert left_behind(tmp_path) == []


@pytest.mark.once
@pytest.mark.parametrize(("arguments", "code"), [(["--once"], 130), ([], 0)])
def test_an_interrupted_demo_ends_in_order_and_leaves_nothing(tmp_path: Path, arguments: list[str], code: int) -> None:
    with demo(tmp_path, *arguments, "--registry", "file", "--seconds", "60") as running:
        running.wait_for_line("The first RPC is answered")
        assert left_behind(tmp_path) != []
        running.signal(signal.SIGINT)
        assert running.wait() == code, running.log()
        assert "Ending in order" in running.log()
        assert running.log().splitlines()[-1].endswith("every RPC is accounted for.")
    assert left_behind(tmp_path) == []


@pytest.mark.once
def test_a_demo_that_is_killed_takes_its_processes_with_it(tmp_path: Path) -> None:
    with demo(tmp_path, "--registry", "file", "--seconds", "60") as running:
        running.wait_for_line("The first RPC is answered")
        running.kill()
    wait_until(lambda: len(left_behind(tmp_path)) == 1, "only the directory is left")


@pytest.mark.once
def test_a_process_that_ends_by_itself_ends_the_demo_with_exit_code_1(tmp_path: Path) -> None:
    with demo(tmp_path, "--registry", "file", "--seconds", "60") as running:
        running.wait_for_line("The first RPC is answered")
        directory = next(tmp_path.glob("sidecar-demo-*"))
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                output = os.readlink(entry / "fd" / "1")
            except OSError:
                continue
            if output == f"{directory}/greeter-1.log":
                os.kill(int(entry.name), signal.SIGKILL)
        assert running.wait() == 1, running.log()
        assert "greeter-1 ended by itself with code -9" in running.log()
        assert "The logs are kept in" in running.log()


def test_consul_is_asked_for_by_name_where_it_is_missing(tmp_path: Path) -> None:
    env = {**os.environ, "PATH": str(tmp_path), "TMPDIR": str(tmp_path)}
    done = subprocess.run([*DEMO, "--registry", "consul"], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "The program `consul` is not on PATH" in done.stdout
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("arguments", [["--rate", "0"], ["--seconds", "-1"], ["--rate", "inf"], ["--registry", "etcd"]])
def test_a_flag_that_makes_no_sense_is_exit_code_2(arguments: list[str]) -> None:
    done = subprocess.run([*DEMO, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert arguments[0] in done.stderr


def test_the_users_variables_do_not_redirect_a_sidecar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDECAR_ADMIN_LISTEN", "127.0.0.1:1")
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "consul.example:8500")
    assert {"SIDECAR_ADMIN_LISTEN", "CONSUL_HTTP_ADDR"}.isdisjoint(process.environment())
