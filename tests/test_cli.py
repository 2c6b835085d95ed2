"""The command line: exit codes, what it prints, what it asks of the admin API, and what it does not import."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import sidecar
from sidecar.cli import DEFAULT_ADMIN, main
from sidecar.config.model import Config
from sidecar.config.override import OVERRIDES
from sidecar.config.schema import schema_text

ROOT = Path(__file__).parents[1]
HEAVY = ("yaml", "msgspec", "uvloop", "grpc", "h2", "aiohttp", "asyncio", "consul", "prometheus_client")


class AdminDouble(ThreadingHTTPServer):
    """Answers with one status and body once it is let go, and notes what it was asked."""

    daemon_threads = True

    def __init__(self, status: int, body: str) -> None:
        self.status, self.body = status, body
        self.asked: list[str] = []
        self.released = threading.Event()
        self.released.set()
        super().__init__(("127.0.0.1", 0), AnswerOnce)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class AnswerOnce(BaseHTTPRequestHandler):
    server: AdminDouble

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path} at {self.headers['Host']}")
        self.server.released.wait()
        body = self.server.body.encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        with suppress(BrokenPipeError):  # who gave up waiting has gone
            self.end_headers()
            self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Tests read what was asked instead."""


@contextmanager
def admin(status: int = 200, body: str = "ready\n") -> Iterator[AdminDouble]:
    server = AdminDouble(status, body)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={"PATH": "/bin"}, timeout=60, check=False
    )


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


# === check, schema, version, usage ===


def test_a_right_file_is_summed_up_and_exits_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.yaml", "upstreams: [{service: a, listen: '127.0.0.1:1', endpoints: ['h:1']}]")
    assert main(["check", path], {}) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{path} is valid"
    assert "upstream  a on 127.0.0.1:1, peak_ewma, 1 static endpoint" in lines


def test_a_wrong_file_is_explained_on_stderr_and_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.yaml", "admn: {}\nlog: {level: x}\n")
    assert main(["check", path], {}) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.removeprefix(path).split(" ")[0] for line in err.splitlines()] == [":1:1:", ":2:14:"]


def test_check_speaks_json_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.yaml", "log: {level: debug}")
    assert main(["check", "--json", path], {}) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["valid"], answer["config"]["log"]["level"]) == (True, "debug")
    write(tmp_path / "a.yaml", "admn: {}")
    assert main(["check", path], {"SIDECAR_CHECK_JSON": "1"}) == 2
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert (problem["source"], problem["line"], problem["column"]) == (path, 1, 1)


def test_the_file_may_come_from_the_environment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.yaml", "{}")
    assert main(["check"], {"SIDECAR_CONFIG": path}) == 0
    assert main(["check"], {}) == 2
    assert main(["run"], {}) == 2
    assert "give --config FILE, or set SIDECAR_CONFIG" in capsys.readouterr().err


def test_schema_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"], {}) == 0
    assert capsys.readouterr().out == schema_text()


@pytest.mark.parametrize("words", [[], ["drian"], ["check", "--jso", "x"], ["run", "--config"], ["version", "extra"]])
def test_wrong_usage_exits_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words, {})
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: sidecar")


def test_version_says_what_it_would_run_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version", "--json"], {}) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["version"] == sidecar.__version__
    assert facts["python"].startswith(".".join(map(str, sys.version_info[:3])))
    assert facts["compiled"] is bool(facts["extensions"])
    assert facts["codec"].startswith("native" if "http2.native" in facts["extensions"] else "reference")
    assert main(["version"], {}) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ")[0] for line in lines] == ["sidecar", "python", "codec", "loop", "compiled"]


def test_every_flag_names_its_variable(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("run", "check", "drain", "healthcheck", "version"):
        with pytest.raises(SystemExit):
            main([command, "--help"], {})
        page = " ".join(capsys.readouterr().out.split("options:")[1].split())
        flags = [each for each in page.split(" --")[1:] if not each.startswith("help")]
        assert flags
        assert all("[SIDECAR_" in each for each in flags), f"{command}: {flags}"


def test_python_m_sidecar_is_the_command() -> None:
    done = run_python("-m", "sidecar", "version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"sidecar {sidecar.__version__}\n")


def test_a_reader_that_leaves_early_causes_no_traceback() -> None:
    code = "import os, sys; r, w = os.pipe(); os.dup2(w, 1); os.close(r); os.close(w)\n"
    code += "from sidecar.cli import main; sys.exit(main(['schema'], {}))"
    done = run_python("-c", code)
    assert (done.returncode, done.stderr) == (1, "")


# === run ===


def test_run_refuses_a_wrong_file_with_every_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.yaml", "admn: {}\nlog: {level: x}\n")
    assert main(["run", "--config", path, "--codec", "nativ"], {}) == 2
    err = capsys.readouterr().err
    assert f"{path}:1:1: unknown key 'admn', did you mean 'admin'?" in err
    assert "--codec: http2.codec must be one of" in err


# === drain and healthcheck ===


def test_drain_posts_and_exits_0_when_it_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    with admin(200, "drained\n") as server:
        assert main(["drain", "--admin", server.address], {}) == 0
        assert server.asked == [f"POST /drain at {server.address}"]
    assert capsys.readouterr().out == "drained\n"


def test_drain_exits_1_when_it_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with admin(503, "not yet") as server:
        assert main(["drain", "--admin", server.address], {}) == 1
    assert "/drain answered 503: not yet" in capsys.readouterr().err


def test_drain_gives_up_waiting_after_its_timeout(capsys: pytest.CaptureFixture[str]) -> None:
    with admin() as server:
        server.released.clear()
        assert main(["drain", "--admin", server.address, "--timeout", "50ms"], {}) == 1
    assert "has not answered after 50ms; the sidecar itself goes on" in capsys.readouterr().err


def test_nobody_there_is_a_sentence_and_exit_1(capsys: pytest.CaptureFixture[str]) -> None:
    with admin() as server:
        address = server.address
    assert main(["healthcheck", "--admin", address], {}) == 1
    assert f"no answer at {address} (Connection refused); is the sidecar running" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "environment", "path"),
    [([], {}, "/ready"), (["--live"], {}, "/live"), ([], {"SIDECAR_HEALTHCHECK_LIVE": "true"}, "/live")],
)
def test_healthcheck_asks_for_readiness_or_life(words: list[str], environment: dict[str, str], path: str) -> None:
    with admin() as server:
        assert main(["healthcheck", "--admin", server.address, *words], environment) == 0
        assert server.asked == [f"GET {path} at {server.address}"]


def test_the_admin_address_comes_from_flag_then_variable_then_file(tmp_path: Path) -> None:
    with admin() as flag, admin() as variable, admin() as file:
        path = write(tmp_path / "a.yaml", f"admin: {{listen: '{file.address}'}}")
        environment = {"SIDECAR_CONFIG": path}
        assert main(["drain"], environment) == 0
        assert main(["drain"], {**environment, "SIDECAR_ADMIN_LISTEN": variable.address}) == 0
        words = ["drain", "--admin", flag.address]
        assert main(words, {**environment, "SIDECAR_ADMIN_LISTEN": variable.address}) == 0
        assert [len(each.asked) for each in (flag, variable, file)] == [1, 1, 1]


def test_an_address_that_means_every_interface_is_asked_on_loopback() -> None:
    with admin() as server:
        port = server.address.split(":")[1]
        assert main(["healthcheck", "--admin", f"0.0.0.0:{port}"], {}) == 0
        assert server.asked == [f"GET /ready at {server.address}"]


def test_a_proxy_in_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with admin() as server:
        assert main(["healthcheck", "--admin", server.address], {"http_proxy": "http://127.0.0.1:9"}) == 0


def test_an_admin_api_that_is_off_cannot_be_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.yaml", "admin: {listen: null}")
    assert main(["drain", "--config", path], {}) == 1
    assert "the admin API is off" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--admin", "nowhere"], ["--timeout", "2x"]])
def test_a_wrong_flag_exits_2(words: list[str]) -> None:
    assert main(["drain", *words], {}) == 2


def test_the_default_address_is_that_of_the_settings() -> None:
    assert Config().admin.listen == DEFAULT_ADMIN


# === imports ===


@pytest.mark.parametrize("words", [["version"], ["healthcheck", "--admin"], ["drain", "--admin"]])
def test_the_small_commands_import_nothing_heavy(words: list[str]) -> None:
    with admin() as server:
        arguments = [*words, server.address] if "--admin" in words else words
        code = "import sys; from sidecar.cli import main\n"
        code += f"code = main({arguments!r}, {{}})\nprint(code, *sorted(sys.modules))"
        done = run_python("-I", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}")
    code_text, *modules = done.stdout.splitlines()[-1].split()
    assert code_text == "0", done.stderr
    assert [name for name in HEAVY if name in modules] == []


def test_overrides_have_a_flag_and_a_variable_each() -> None:
    assert all(each.flag.startswith("--") and each.variable.startswith("SIDECAR_") for each in OVERRIDES)
