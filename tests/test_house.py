"""The rules of the house that a machine can judge: which way imports go, how long a file is, what things are called."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sidecar"
PURE_ROOMS = ("http2", "rpc", "policy", "telemetry")
IMPURE = ("asyncio", "socket", "ssl", "logging", "time", "random", "posix", "uvloop")
LONGEST_FILE = 500  # lines; most are 80 to 250
VAGUE = {"util", "utils", "helper", "helpers", "common", "misc", "manager"}


def sources(*suffixes: str) -> Iterator[Path]:
    """The project's own files, generated ones left out."""
    for folder in ("sidecar", "tests", "benchmarks", "scripts"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in suffixes and "_pb2" not in path.name:
                yield path


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), name_of(path))


PYTHON = list(sources(".py"))
CYTHON = [path for path in sources(".pyx", ".pxd") if path.is_relative_to(PACKAGE)]


def test_imports_go_downwards_only() -> None:
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_logo=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_compiled_rooms_know_no_clock_and_no_sockets_either() -> None:
    """import-linter reads no Cython."""
    forbidden = re.compile(rf"^\s*(?:from|import|cimport)\s+(?:libc\.)?({'|'.join(IMPURE)})\b", re.MULTILINE)
    pure = [path for path in CYTHON if path.relative_to(PACKAGE).parts[0] in PURE_ROOMS]
    assert {name_of(path): found for path in pure if (found := forbidden.findall(path.read_text()))} == {}


def test_no_file_is_a_design_meeting() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in [*PYTHON, *CYTHON]}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_every_module_opens_with_what_lives_in_it() -> None:
    assert [name_of(path) for path in PYTHON if path.read_text() and not ast.get_docstring(tree(path))] == []


def test_no_module_and_no_class_has_a_name_that_says_nothing() -> None:
    modules = [name_of(path) for path in [*PYTHON, *CYTHON] if VAGUE & set(path.stem.lower().split("_"))]
    classes = [
        f"{name_of(path)}: {node.name}"
        for path in PYTHON
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef) and re.search(r"(Manager|Helper|Utils?)$", node.name)
    ]
    assert modules + classes == []


def test_nothing_is_left_for_later() -> None:
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")
    assert [name_of(path) for path in [*PYTHON, *CYTHON] if marks.search(path.read_text())] == []


def test_nothing_of_ours_is_mocked() -> None:
    mocking = re.compile(r"^\s*(?:from|import) (?:unittest\.)?mock\b|^from unittest import mock", re.MULTILINE)
    assert [name_of(path) for path in PYTHON if mocking.search(path.read_text())] == []


def test_the_name_of_a_test_is_a_claim() -> None:
    short = [
        f"{name_of(path)}: {node.name}"
        for path in PYTHON
        if path.is_relative_to(ROOT / "tests")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and node.name.count("_") < 3
    ]
    assert short == []


@pytest.mark.parametrize("command", ["drain --help", "healthcheck --help", "version"])
def test_commands_that_kubernetes_repeats_import_little(command: str) -> None:
    code = (
        "import sys; from sidecar.cli import main\n"
        f"try: main({command.split()!r})\n"
        "except SystemExit: pass\n"
        "heavy = {'aiohttp', 'asyncio', 'grpc', 'h2', 'msgspec', 'prometheus_client', 'uvloop', 'yaml'}\n"
        "sys.exit(' '.join(sorted(heavy & sys.modules.keys())) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
