"""Values that would make a bad pod are refused before anything is applied, with a sentence that says what to change."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from sidecar.config.schema import schema_text
from tests.chart.helm import CHART, Refused, Values, render

pytestmark = pytest.mark.once

SCHEMA = json.loads((CHART / "values.schema.json").read_text())

# The values, and what must stand in the refusal.
WRONG_VALUES: dict[str, tuple[Values, str]] = {
    "an unknown key": ({"replica": 2}, "replica"),
    "an unknown key of the sidecar": ({"sidecar": {"image": {"name": "x"}}}, "/sidecar/image"),
    "text for a number": ({"replicas": "two"}, "/replicas"),
    "a short digest": ({"sidecar": {"image": {"digest": "sha256:12"}}}, "/sidecar/image/digest"),
    "no requests": ({"sidecar": {"resources": {"requests": None}}}, "/sidecar/resources"),
    "a misspelt key of the configuration": ({"config": {"upstream": []}}, "upstream"),
    "a misspelt key further down": (
        {"config": {"upstreams": [{"service": "a", "listen": "127.0.0.1:1", "balancr": "x"}]}},
        "balancr",
    ),
    "a port out of range": ({"config": {"service": {"port": 70_000}}}, "/config/service/port"),
    "a duration in words": ({"config": {"drain": {"grace": "a while"}}}, "/config/drain/grace"),
}

BROKEN_RULES: dict[str, tuple[Values, str]] = {
    "too short a grace": (
        {"terminationGracePeriodSeconds": 54},
        "terminationGracePeriodSeconds is 54, but config.drain.propagation (5s) + app.shutdownSeconds (20) +"
        " config.drain.grace (30s) need 55s",
    ),
    "a grace in minutes": ({"config": {"drain": {"grace": "2m"}}}, "need 145s"),
    "no admin API": ({"config": {"admin": {"listen": None}}}, "config.admin.listen must be set"),
    "no probe address": ({"config": {"admin": {"probe_listen": None}}}, "config.admin.probe_listen must be reachable"),
    "probes on loopback": (
        {"config": {"admin": {"probe_listen": "127.0.0.1:19901"}}},
        "config.admin.probe_listen must be reachable",
    ),
    "a listener in the sidecar's files": (
        {"config": {"upstreams": [{"service": "a", "listen": "unix:/run/a.sock"}]}},
        "use a 127.0.0.1 address",
    ),
    "a listener that only the sidecar can work out": (
        {"config": {"upstreams": [{"service": "a", "listen": "127.0.0.1:${PORT}"}]}},
        "cannot fill it in",
    ),
    "a grace that only the sidecar can work out": (
        {"config": {"drain": {"grace": "${GRACE}"}}},
        "must be a duration such as 5s",
    ),
    "a port that only the sidecar can work out": (
        {"config": {"service": {"port": "${PORT}"}}},
        "the pod needs a number",
    ),
    "two upstreams with one variable": (
        {"config": {"upstreams": [{"service": s, "listen": f"127.0.0.1:{p}"} for s, p in (("a-b", 1), ("a.b", 2))]}},
        "both be handed to the application as UPSTREAM_A_B_ADDR",
    ),
    "an image without a tag": (
        {"app": {"image": {"repository": "registry.example/shop"}}},
        "the image registry.example/shop needs a tag or a digest",
    ),
}


@pytest.mark.parametrize("case", WRONG_VALUES)
def test_the_schema_refuses(case: str) -> None:
    values, words = WRONG_VALUES[case]
    with pytest.raises(Refused, match="values don't meet the specifications") as refusal:
        render(values)
    assert words in str(refusal.value)


@pytest.mark.parametrize("case", BROKEN_RULES)
def test_the_template_refuses(case: str) -> None:
    values, words = BROKEN_RULES[case]
    with pytest.raises(Refused) as refusal:
        render(values)
    assert words in str(refusal.value)


def test_a_grace_that_just_suffices_is_taken() -> None:
    manifests = render({"terminationGracePeriodSeconds": 55})
    assert manifests["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 55


def test_the_schema_holds_the_schema_of_the_configuration() -> None:
    config = json.loads(schema_text())
    del config["$schema"]
    definitions = config.pop("$defs")
    assert SCHEMA["$defs"] == {**definitions, "Config": config}, "run scripts/chart-schema"


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_every_value_has_a_place_in_the_schema() -> None:
    import yaml

    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert missing(values, SCHEMA) == []


def missing(values: dict[str, Any], schema: dict[str, Any], path: str = "") -> list[str]:
    """The keys of the default values that the hand-written part of the schema does not name."""
    found = []
    for key, value in values.items():
        known = schema.get("properties", {}).get(key)
        if known is None:
            found.append(f"{path}/{key}")
        elif isinstance(value, dict) and "properties" in known:
            found += missing(value, known, f"{path}/{key}")
    return found
