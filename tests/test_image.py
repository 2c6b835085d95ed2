"""The Dockerfile, as far as it goes without a container engine: linted, and its build stage run step by step."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "Dockerfile").read_text()
BUILD, RUN = TEXT.split("\nFROM ")[1:]
PREFIX = "/opt"


def instructions(stage: str) -> list[tuple[str, str]]:
    """The instructions of a stage with their argument, continued lines joined."""
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", stage, flags=re.MULTILINE))
    lines = [line.split(maxsplit=1) for line in joined.splitlines()[1:] if line.strip()]
    return [(word, rest) for word, rest in lines]


def test_the_linter_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_runs_as_nobody_without_a_shell() -> None:
    last = dict(instructions(RUN))
    assert RUN.splitlines()[0].endswith(":nonroot")
    assert last["USER"] == "65532:65532"
    assert json.loads(last["ENTRYPOINT"]) == ["sidecar"], "the exec form: SIGTERM goes to the sidecar itself"
    assert last["STOPSIGNAL"] == "SIGTERM"
    assert 'CMD ["sidecar", "healthcheck", "--live"]' in last["HEALTHCHECK"]
    assert "RUN" not in last


def test_both_stages_are_the_same_debian() -> None:
    built_on, run_on = re.findall(r"debian:?-?(\d+)", BUILD.splitlines()[0] + RUN.splitlines()[0])
    assert built_on == run_on


@pytest.mark.timeout(600)
def test_the_build_stage_makes_a_sidecar_with_its_extensions(tmp_path: Path) -> None:
    tree = shutil.copytree(
        ROOT, tmp_path / "src", ignore=shutil.ignore_patterns(".*", "*.so", "*.c", "build", "*.egg-info", "__pycache__")
    )
    hasty = tmp_path / "cc"  # whether it builds is asked here, not how fast the result is
    hasty.write_text('#!/bin/bash\nexec cc "${@/#-O[123]/-O0}"\n')
    hasty.chmod(0o755)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "CC": str(hasty), "PIP_NO_INPUT": "1"}
    for word, argument in instructions(BUILD):
        if word == "RUN" and "apt-get" not in argument:
            command = argument.replace(PREFIX, str(tmp_path / "opt"))
            done = subprocess.run(
                ["bash", "-eo", "pipefail", "-c", command], cwd=tree, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    built = json.loads(
        subprocess.check_output([tmp_path / "opt/sidecar/bin/sidecar", "version", "--json"], cwd=tmp_path)
    )
    assert built["compiled"] is True
