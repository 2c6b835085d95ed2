"""What is made from the settings: the file in the tree is what the code would write, and it is true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from msgspec import Struct

from sidecar.config.loader import build_config, load_config
from sidecar.config.model import Config
from sidecar.config.problem import ConfigErrors
from sidecar.config.reference import GENERATED, reference_manual, reference_yaml
from sidecar.config.schema import build_schema
from sidecar.config.shape import fields_of, sections_of

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "config" / "examples").glob("*.yaml"))
DISABLED = re.compile(r"^( *)#(?! [^ ])", re.MULTILINE)  # a key; a sentence has one space after its #


def uncommented(text: str, times: int) -> str:
    for _ in range(times):
        text = DISABLED.sub(r"\1", text)
    return text


def sentences(text: str) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        build_config("sidecar.yaml", text.encode(), {})
    return [problem.sentence for problem in caught.value.problems]


def hints(section: type[Struct]) -> list[object]:
    return list(section.__annotations__.values())


def schema_faults(document: Any) -> list[str]:
    validator = jsonschema.Draft202012Validator(build_schema())
    return [error.json_path for error in validator.iter_errors(document)]


# === the files in the tree ===


@pytest.mark.parametrize("name", GENERATED)
def test_the_file_in_the_tree_is_what_the_settings_say(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == GENERATED[name](), "run scripts/docs"


def test_the_reference_loads_to_the_defaults() -> None:
    assert load_config(ROOT / "config" / "sidecar.yaml", {}) == Config()


def test_the_reference_has_every_key_with_a_value_that_is_accepted() -> None:
    everything = uncommented(reference_yaml(), 3)
    assert sentences(everything) == [
        "service.check has grpc and http and tcp; keep one of them",
        "registry.consul and registry.file are both given; keep one of them",
        "upstreams[0] has endpoints, so discovery has no effect; keep one of them",
        "upstreams[0].discovery.failover[0] takes the same instances as upstreams[0].discovery,"
        " so it would never be used",
        "upstreams[0].health_check has grpc and http and tcp; keep one of them",
        "upstreams[0] has retry and hedge; an RPC is governed by one of them",
        "upstreams[0].methods./pkg.Service/Method has retry and hedge; an RPC is governed by one of them",
    ]
    for section in sections_of(Config):
        for field in fields_of(section):
            assert re.search(rf"^ *(- )?{field.name}:", everything, re.MULTILINE), f"{section.__name__}.{field.name}"


def test_one_level_of_comments_less_leaves_only_the_choice_of_a_registry() -> None:
    text = uncommented(reference_yaml(), 1)
    assert sentences(text) == ["registry.consul and registry.file are both given; keep one of them"]


def test_the_manual_has_a_row_for_every_key() -> None:
    manual = reference_manual()
    for section in sections_of(Config):
        for field in fields_of(section):
            assert f"| `{field.name}` |" in manual


def test_settings_state_types_and_not_the_text_of_types() -> None:
    """Each start would evaluate that text, field by field: a tenth of its time. So these files have no __future__."""
    written = [section for section in sections_of(Config) if any(isinstance(kind, str) for kind in hints(section))]
    assert [f"{section.__module__}.{section.__name__}" for section in written] == []


# === examples ===


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_loads_and_fits_the_schema(path: Path) -> None:
    assert load_config(path, {}).upstreams
    assert schema_faults(yaml.safe_load(path.read_text())) == []


def test_there_is_an_example_for_each_source_of_members() -> None:
    assert [path.stem for path in EXAMPLES] == ["consul", "file", "static"]


@pytest.mark.parametrize("path", [ROOT / "config" / "sidecar.yaml", *EXAMPLES], ids=lambda path: path.name)
def test_an_editor_finds_the_schema(path: Path) -> None:
    found = re.match(r"# yaml-language-server: \$schema=(\S+)\n", path.read_text())
    assert found
    assert (path.parent / found[1]).resolve() == ROOT / "config" / "schema.json"


# === the schema ===


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(build_schema())


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"registry": None},
        {"registry": {"consul": None}, "service": {"name": "a", "port": 1, "check": {"grpc": None, "interval": "2s"}}},
        {"service": {"name": "${NAME}", "port": "${PORT:-1}"}, "registry": {"consul": {}}, "upstreams": None},
        {"drain": {"grace": 30, "propagation": 0.5}, "http2": {"stream_window": "1MiB", "connection_window": 65_535}},
        {"upstreams": [{"service": "a", "listen": "unix:/a", "endpoints": ["a:1", {"address": "b:1", "weight": 2}]}]},
        {"admin": {"listen": None}, "log": {"access": "off"}},
    ],
)
def test_the_schema_takes_what_the_loader_takes(document: dict[str, Any]) -> None:
    assert schema_faults(document) == []
    build_config("a.yaml", yaml.safe_dump(document).encode(), {"NAME": "a"})


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"upstream": []}, "$"),
        ({"drain": {"grace": "2x"}}, "$.drain.grace"),
        ({"drain": {"grace": -1}}, "$.drain.grace"),
        ({"http2": {"codec": "nativ"}}, "$.http2.codec"),
        ({"http2": {"stream_window": 1.5}}, "$.http2.stream_window"),
        ({"service": {"name": "a"}}, "$.service"),
        ({"service": {"name": "a", "port": 70_000}}, "$.service.port"),
        ({"upstreams": [{"service": "a b", "listen": "a:1"}]}, "$.upstreams[0].service"),
    ],
)
def test_the_schema_refuses_at_the_place(document: dict[str, Any], path: str) -> None:
    assert schema_faults(document) == [path]
