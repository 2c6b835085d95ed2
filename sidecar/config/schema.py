"""The JSON Schema of the file, for editors and the chart: msgspec's own, told of units, variables, empty sections."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from msgspec import inspect

from sidecar.config.model import Config
from sidecar.config.quantity import DURATION_PATTERN, SIZE_PATTERN, build_duration, build_size
from sidecar.config.shape import Shape, fields_of, sections_of

DIALECT = "https://json-schema.org/draft/2020-12/schema"
TITLE = "Sidecar configuration"

# What may stand for any value that is not text: `${VAR}` is filled in before the value is read.
VARIABLE = {
    "Variable": {
        "type": "string",
        "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}",
        "description": "${VAR} or ${VAR:-default}, from the environment.",
    },
    "Duration": {
        "description": "250ms, 1.5s, 2m, 1h, or a plain number of seconds.",
        "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": DURATION_PATTERN}],
    },
    "Size": {
        "description": "16KiB, 4MiB, 1GB, or a plain number of octets.",
        "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": SIZE_PATTERN}],
    },
}
NOTES = ("description", "examples", "default")
UNITS = {"duration": ("Duration", build_duration), "size": ("Size", build_size)}


def build_schema() -> dict[str, Any]:
    """The schema as a value."""
    made = msgspec.json.schema(Config)
    definitions = made["$defs"]
    for section in sections_of(Config):
        properties = definitions[section.__name__]["properties"]
        for field in fields_of(section):
            properties[field.name] = _property(properties[field.name], field.shape)
        if not definitions[section.__name__]["required"]:  # so it may also be left empty
            del definitions[section.__name__]["required"]
            definitions[section.__name__]["type"] = ["object", "null"]
    root = definitions.pop("Config")
    return {"$schema": DIALECT, **root, "title": TITLE, "type": "object", "$defs": {**VARIABLE, **definitions}}


def schema_text() -> str:
    """The schema as `sidecar schema` prints it."""
    return json.dumps(build_schema(), indent=2) + "\n"


def _property(made: dict[str, Any], shape: Shape) -> dict[str, Any]:
    """One property, with what the file may say beyond what msgspec would take."""
    kept: dict[str, Any] = {key: made[key] for key in NOTES if key in made}
    if shape.unit in UNITS:
        name, build = UNITS[shape.unit]
        if isinstance(kept.get("default"), int | float):
            kept["default"] = build(kept["default"])
        return {**kept, "anyOf": [_reference(name), _reference("Variable"), *_null(shape.nullable)]}
    match shape.core:
        case inspect.StructType():  # its keys tell their own defaults
            return {**{key: kept[key] for key in kept if key != "default"}, **_reference(shape.core.cls.__name__)}
        case inspect.VarTupleType() | inspect.DictType() if not shape.nullable:
            return {**made, "type": [made["type"], "null"]}
        case inspect.StrType(pattern=None):
            return made
        case inspect.StrType() | inspect.IntType() | inspect.FloatType() | inspect.BoolType() | inspect.LiteralType():
            bare = [each for each in made.get("anyOf", [made]) if each.get("type") != "null"]
            scalar = {key: value for key, value in bare[0].items() if key not in kept}
            return {**kept, "anyOf": [scalar, _reference("Variable"), *_null(shape.nullable)]}
    return made


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def _null(nullable: bool) -> list[dict[str, Any]]:
    return [{"type": "null"}] if nullable else []
