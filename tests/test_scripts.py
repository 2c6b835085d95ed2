"""The scripts: what they write into a machine's package sources, and that they are and end as they should."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
SCRIPTS = [path for path in sorted((ROOT / "scripts").iterdir()) if path.is_file()]


@pytest.fixture(scope="module")
def install_consul() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("install_consul", str(ROOT / "scripts" / "install-consul"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


SOURCES = """\
# Debian's security updates
Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb deb-src
URIs: http://mirror.example/debian/
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
"""


def test_a_stanza_is_taken_over_with_its_mirror_and_its_key(install_consul: ModuleType) -> None:
    assert install_consul.deb822_entry(SOURCES) == (
        "Types: deb\nSuites: bullseye\nComponents: main\nURIs: http://mirror.example/debian/\n"
        "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n"
    )


def test_a_list_of_mirrors_is_taken_for_debian(install_consul: ModuleType) -> None:
    stanza = "Types: deb\nURIs: mirror+file:/etc/apt/mirrors/debian.list\nSuites: trixie\nComponents: main\n"
    assert "URIs: mirror+file:/etc/apt/mirrors/debian.list" in install_consul.deb822_entry(stanza)


@pytest.mark.parametrize(
    "stanza",
    [
        "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\nEnabled: no\n",
        "Types: deb\nURIs: https://packages.example/linux\nSuites: stable\nComponents: main\n",
        "Types: deb-src\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\n",
        "",
    ],
)
def test_a_source_that_is_off_or_is_not_debian_is_left_alone(install_consul: ModuleType, stanza: str) -> None:
    assert install_consul.deb822_entry(stanza) is None


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("deb http://mirror.example/debian bookworm main", "deb http://mirror.example/debian bullseye main\n"),
        (
            "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian/ stable main contrib",
            "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian/ bullseye main\n",
        ),
        ("# deb http://mirror.example/debian bookworm main", None),
        ("deb http://mirror.example/debian-security bookworm-security main", None),
        ("deb https://packages.example/linux stable main", None),
    ],
)
def test_a_classic_line_is_taken_over(install_consul: ModuleType, line: str, wanted: str | None) -> None:
    assert install_consul.one_line_entry(f"# sources\n{line}\n") == wanted


def test_the_first_file_that_has_debian_is_taken(install_consul: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    assert install_consul.machine_entry(tmp_path) is None
    (tmp_path / "sources.list").write_text("deb http://mirror.example/debian bookworm main\n")
    assert install_consul.machine_entry(tmp_path)[0] == "consul-bullseye.list"
    (tmp_path / "sources.list.d" / "debian.sources").write_text(SOURCES)
    assert install_consul.machine_entry(tmp_path)[0] == "consul-bullseye.sources"


def test_nothing_but_consul_may_come_from_the_old_suite(install_consul: ModuleType) -> None:
    everything, consul = install_consul.PREFERENCES.split("\n\n")
    assert everything.splitlines() == ["Package: *", "Pin: release n=bullseye", "Pin-Priority: -1"]
    assert consul.splitlines() == ["Package: consul", "Pin: release n=bullseye", "Pin-Priority: 500"]


@pytest.mark.parametrize("script", [*SCRIPTS, ROOT / ".ci" / "run"], ids=lambda path: path.name)
def test_a_script_can_be_run_and_says_what_it_is_for(script: Path) -> None:
    first, second = script.read_text().splitlines()[:2]
    assert os.access(script, os.X_OK)
    assert first.startswith("#!/usr/bin/env ")
    assert second.startswith(("# ", '"""'))
    if "bash" in first:
        assert "set -" in script.read_text(), "without it, a command that fails goes unnoticed"
        assert subprocess.run(["bash", "-n", script]).returncode == 0


def test_the_interpreters_that_are_listed_really_run() -> None:
    listed = subprocess.check_output([ROOT / "scripts" / "pythons"], text=True).split()
    code = "import sys; print(sys.version_info[1])"
    minors = [int(subprocess.check_output([python, "-c", code])) for python in listed]
    assert minors
    assert minors == sorted(set(minors))
    assert set(minors) <= set(range(11, 15))


def run_lanes(folder: Path, failing: str) -> subprocess.CompletedProcess[str]:
    """`scripts/test` with every step replaced by one that only tells its exit status: 1 if its words have `failing`."""
    scripts = folder / "scripts"
    scripts.mkdir(exist_ok=True)
    shutil.copy(ROOT / "scripts" / "test", scripts)
    verdict = f'case "$0 $*" in *{failing}*) exit 1 ;; esac'
    steps = {name: verdict for name in ("lint", "sanitize", "install-tools")}
    steps["pythons"] = "echo old; echo new"
    steps["venv"] = 'echo "$PWD/$2"'
    for interpreter in ("old", "new"):
        (folder / interpreter / "bin").mkdir(parents=True, exist_ok=True)
        steps[f"../{interpreter}/bin/python"] = verdict
    for name, body in steps.items():
        (scripts / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (scripts / name).chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "SIDECAR_NO_EXTENSIONS"}
    return subprocess.run([scripts / "test"], env=environment, capture_output=True, text=True, timeout=60)


def test_the_tests_end_well_when_every_step_did(tmp_path: Path) -> None:
    done = run_lanes(tmp_path, failing="nothing")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "scripts/test: everything passed.")


@pytest.mark.parametrize(
    ("failing", "named"),
    [
        ("lint", "Lint"),
        ("durations=5?tests/http2", "Tests on "),
        ("not?once", "Tests on "),
        ("sanitize", "What is written for C, under AddressSanitizer"),
        ("--durations=10", "Tests on "),
    ],
)
def test_a_step_that_fails_is_named_at_the_end_and_fails_the_run(tmp_path: Path, failing: str, named: str) -> None:
    done = run_lanes(tmp_path, failing=failing)
    assert done.returncode == 1
    before, last = done.stdout.splitlines()[-2:]
    assert before == "scripts/test: something failed, see above:"
    assert last.startswith(named)
