"""What `/config_dump` and `sidecar check --json` may show."""

from __future__ import annotations

import json

from msgspec import inspect

from sidecar.config.loader import build_config
from sidecar.config.model import Config
from sidecar.config.redaction import REDACTED, dump
from sidecar.config.shape import fields_of, sections_of

TEXT = """\
registry: {consul: {token: s3cret, wait: 90s}}
upstreams: [{service: a, listen: "localhost:1", connection: {backoff_base: 250ms}}, {service: b, listen: "localhost:2",
  endpoints: ["a:1", {address: "b:1", meta: {zone: a}}]}]
buffers: {hard_limit: 1GiB}
"""


def test_a_secret_never_shows() -> None:
    dumped = dump(build_config("a.yaml", TEXT.encode(), {}))
    assert dumped["registry"]["consul"]["token"] == REDACTED
    assert "s3cret" not in json.dumps(dumped)


def test_an_unset_secret_shows_as_unset() -> None:
    dumped = dump(build_config("a.yaml", b"registry: {consul: }", {}))
    assert dumped["registry"]["consul"]["token"] is None


def test_every_setting_that_sounds_secret_is_marked() -> None:
    for section in sections_of(Config):
        for field in fields_of(section):
            sounds = any(word in field.name for word in ("token", "password", "secret"))
            if sounds and not field.name.endswith("_file") and isinstance(field.shape.core, inspect.StrType):
                assert field.shape.secret, f"{section.__name__}.{field.name}"


def test_units_are_spelled_out_and_loading_the_dump_gives_the_same() -> None:
    config = build_config("a.yaml", TEXT.replace("token: s3cret, ", "").encode(), {})
    dumped = dump(config)
    assert dumped["registry"]["consul"]["wait"] == "90s"
    assert dumped["buffers"]["hard_limit"] == "1GiB"
    first, second = dumped["upstreams"]
    assert first["connection"]["backoff_base"] == "250ms"
    assert second["endpoints"] == [
        "a:1",
        {
            "address": "b:1",
            "weight": 1,
            "priority": 0,
            "zone": "",
            "tags": [],
            "meta": {"zone": "a"},
        },
    ]
    assert "file" not in dumped["registry"]
    assert build_config("dump.json", json.dumps(dumped).encode(), {}) == config
