"""Every set of values under ci/ renders to manifests that Kubernetes takes and a configuration the sidecar takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.chart.helm import CHART, CI_VALUES, ROOT, ci_values, lint, render, render_texts

pytestmark = pytest.mark.once

NAMES = [path.name.removesuffix("-values.yaml") for path in CI_VALUES]
OLDEST = "1.29"
NEWEST = kubernetes_validate.latest_version()
# What the kubelet puts into the sidecar's environment.
POD = {"POD_IP": "10.1.2.3", "HOST_IP": "10.0.0.4", "CONSUL_HTTP_ADDR": "10.0.0.4:8500", "LOG_LEVEL": "debug"}


def test_the_chart_asks_for_the_first_kubernetes_that_has_native_sidecars() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"] == f">={OLDEST}.0-0"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("version", [OLDEST, NEWEST.rpartition(".")[0]])
def test_helm_finds_nothing_to_say_about_the_chart(name: str, version: str) -> None:
    assert lint(ci_values(name), f"{version}.0") == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_knows_every_field_of_every_manifest(name: str, version: str) -> None:
    manifests = render({**ci_values(name), "kubeVersion": version})
    assert "Deployment" in manifests
    for manifest in manifests.values():
        assert kubernetes_validate.validate(manifest, version, strict=True)


def test_a_field_that_kubernetes_does_not_know_is_seen() -> None:
    manifest = render({})["Deployment"]
    manifest["spec"]["template"]["spec"]["initContainers"][0]["restartPolice"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, NEWEST, strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_the_sidecar_takes_the_configuration_it_is_given(name: str, tmp_path: Path) -> None:
    file = tmp_path / "sidecar.yaml"
    file.write_text(render(ci_values(name))["ConfigMap"]["data"]["sidecar.yaml"])
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "check", str(file)],
        env={**os.environ, **POD},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_whole_numbers_stay_whole_on_their_way_through_helm() -> None:
    text = render({"config": {"buffers": {"hard_limit": 134_217_728}}})["ConfigMap"]["data"]["sidecar.yaml"]
    assert yaml.safe_load(text)["buffers"]["hard_limit"] == 134_217_728


@pytest.mark.parametrize("name", NAMES)
def test_the_same_values_render_to_the_same_text(name: str) -> None:
    assert render_texts(ci_values(name)) == render_texts(ci_values(name))
