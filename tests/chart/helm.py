"""Helm's own engine, from the package helm-python-sdk, and Kubernetes' schemas, from kubernetes-validate.

The engine runs in a process of its own, because it brings the Go runtime with threads and signal handlers that have no
place in the process of the tests. `python -m tests.chart.helm` is that process: one JSON request in, one answer out.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "sidecar"
CI_VALUES = sorted(CHART.glob("ci/*-values.yaml"))

Values = dict[str, Any]
Manifest = dict[str, Any]


class Refused(Exception):
    """Helm would not render these values; the message is Helm's own."""


def ci_values(name: str) -> Values:
    """The values of `ci/<name>-values.yaml`."""
    return yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text()) or {}


def lint(values: Values, kube_version: str) -> list[str]:
    """What `helm lint --strict` finds, from warnings upwards."""
    answer = ask({"do": "lint", "values": values, "kube_version": kube_version})
    return [message["error"] for message in answer["messages"] if message["severity"] > 1]


def render_texts(values: Values) -> dict[str, str]:
    """The text of each template, by its file name. Raises Refused."""
    answer = ask({"do": "render", "values": values})
    return {Path(path).name: text for path, text in answer.items()}


def render(values: Values) -> dict[str, Manifest]:
    """The manifests by their kind; a chart that makes two of a kind needs another function. Raises Refused."""
    texts = render_texts(values)
    documents = [each for name, text in texts.items() if name.endswith(".yaml") for each in yaml.safe_load_all(text)]
    manifests = {each["kind"]: each for each in documents if each}
    assert len(manifests) == len([each for each in documents if each])
    return manifests


def ask(request: dict[str, Any]) -> Any:
    """One request to the engine's process. Raises Refused."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.chart.helm"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    if done.returncode == 1:
        raise Refused(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def answer() -> int:
    """The other end of `ask`: exit code 0 with the answer, 1 with Helm's refusal, 2 if Helm is not there."""
    try:
        import helm_python
    except ImportError as error:
        print(f"Helm's engine is not installed ({error}); pip install helm-python-sdk", file=sys.stderr)
        return 2
    request = json.load(sys.stdin)
    try:
        if request["do"] == "lint":
            version = f"v{request['kube_version']}"
            result = helm_python.lint(CHART, request["values"], strict=True, kube_version=version)
        else:
            with helm_python.Chart.load(CHART) as chart:
                result = chart.render(request["values"], name="shop", namespace="default")
    except helm_python.HelmError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(answer())
