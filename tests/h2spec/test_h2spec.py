"""h2spec, the HTTP/2 conformance suite of others, against a listener of the sidecar with nghttpd as its upstream.

The suite is a Go program; `go.mod` and `go.sum` beside this file pin it and all that it is built from. Its last
release that the module system knows has 146 cases with `--strict`; the target is all of them, none skipped.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import CODEC_NAMES
from tests.processes import ROOT, Process, Sidecar, free_port, wait_until

pytestmark = pytest.mark.once

CASES = 146
PROGRAM = ROOT / ".tools" / "h2spec"
BUILD_PATIENCE = 150.0  # seconds; the first build downloads and compiles
RUN_PATIENCE = 120.0
# Malformed heads, each of which must be stopped here. (Bad trailers and bodies come after a head that may pass.)
MALFORMED_HEADS = (
    "http2/8.1.2/1",
    *(f"http2/8.1.2.1/{case}" for case in (1, 2, 4)),
    *(f"http2/8.1.2.2/{case}" for case in (1, 2)),
    *(f"http2/8.1.2.3/{case}" for case in range(1, 8)),
)


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"the program `{name}` is not on PATH; on Debian it is in the package {package}")
    return found


@pytest.fixture(scope="module")
def h2spec() -> Path:
    """The suite's program, built if it is not there yet."""
    if not PROGRAM.exists():
        PROGRAM.parent.mkdir(exist_ok=True)
        built = PROGRAM.with_suffix(f".{os.getpid()}")
        go = _program("go", "golang-go")
        package = "github.com/summerwind/h2spec/cmd/h2spec"
        arguments = [go, "build", "-mod=readonly", "-buildvcs=false", "-o", str(built), package]
        done = subprocess.run(
            arguments, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=BUILD_PATIENCE, check=False
        )
        assert done.returncode == 0, f"h2spec cannot be built:\n{done.stderr}"
        built.replace(PROGRAM)
    return PROGRAM


class Listener(NamedTuple):
    """A sidecar's listener that leads to nghttpd."""

    port: int
    upstream: Process


@pytest.fixture(scope="module", params=CODEC_NAMES)
def listener(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    directory = tmp_path_factory.mktemp("h2spec")
    (directory / "index.html").write_text("hello\n", "ascii")
    port, upstream_port = free_port(), free_port()
    arguments = [_program("nghttpd", "nghttp2-server"), "--no-tls", "-v", "-a", "127.0.0.1", "-d", str(directory)]
    upstream = {"service": "static", "listen": f"127.0.0.1:{port}", "endpoints": [f"127.0.0.1:{upstream_port}"]}
    config = {"upstreams": [upstream], "log": {"format": "text", "access": "off", "level": "error"}}
    with Process("nghttpd", [*arguments, str(upstream_port)], directory) as nghttpd:
        wait_until(lambda: _accepts(upstream_port), f"nghttpd listens on {upstream_port}")
        with Sidecar(config, directory, codec=request.param):
            yield Listener(port, nghttpd)


def _accepts(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def _run(program: Path, port: int, report: Path, *sections: str) -> tuple[ElementTree.Element, str]:
    arguments = [str(program), "-h", "127.0.0.1", "-p", str(port), "-o", "2", "-S", "-j", str(report), *sections]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=RUN_PATIENCE, check=False)
    return ElementTree.parse(report).getroot(), done.stdout


def test_every_case_of_the_conformance_suite_passes(h2spec: Path, listener: Listener, tmp_path: Path) -> None:
    report, said = _run(h2spec, listener.port, tmp_path / "report.xml")
    cases = list(report.iter("testcase"))
    bad = [case for case in cases if len(case)]  # a child says failure, error or skipped
    named = [f"{case.get('package')}: {case.get('classname')}" for case in bad]
    assert not bad, f"{named}\n{said[said.find('Failures:') :]}"
    assert len(cases) == CASES


def test_malformed_heads_of_it_never_reach_the_upstream(h2spec: Path, listener: Listener, tmp_path: Path) -> None:
    before = listener.upstream.log().count("recv HEADERS")
    report, _ = _run(h2spec, listener.port, tmp_path / "report.xml", *MALFORMED_HEADS)
    assert list(report.iter("testcase"))
    assert listener.upstream.log().count("recv HEADERS") == before
