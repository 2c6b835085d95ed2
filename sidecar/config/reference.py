"""The two readable forms of the settings: a YAML file with every key at its default, and the tables of the manual.

Both are made from the fields alone, so that a setting is written once. `scripts/docs` writes them to the tree, and a
test compares. The list of metrics, made from its catalogue, is written along with them.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct, inspect

from sidecar.config.model import Config
from sidecar.config.override import OVERRIDES
from sidecar.config.quantity import build_duration, build_size
from sidecar.config.reader import limits
from sidecar.config.redaction import plain_scalar
from sidecar.config.schema import schema_text
from sidecar.config.shape import FieldShape, Shape, fields_of, parts_of, section_in
from sidecar.telemetry.catalogue import to_markdown as metrics_manual

WIDTH = 110  # columns of a comment

YAML_HEAD = """\
# yaml-language-server: $schema=schema.json
# Every key of the sidecar, at its default. This file loads as it is, and says nothing but the defaults; keep of it
# what you change. A key behind `#` is off by default: take the `#` away, there and from the lines under it.
# Made by scripts/docs from the settings in the code; edit those.
#
# Durations are 250ms, 1.5s, 2m, 1h or a plain number of seconds. Sizes are 16KiB, 4MiB, 1GB or a plain number of
# octets. ${VAR} and ${VAR:-default} are filled in from the environment, in any value.
"""

MANUAL_HEAD = """\
# Configuration

One YAML file, given as `sidecar run --config FILE`. `sidecar check FILE` says everything that is wrong with it, each
problem as `file:line:column: sentence`, and exits with 2; when nothing is wrong, it says what the file amounts to.

* [`config/sidecar.yaml`](../config/sidecar.yaml) holds every key at its default. Every key is optional unless it says
  otherwise.
* [`config/examples/`](../config/examples) has small files that run as they are.
* [`config/schema.json`](../config/schema.json), which `sidecar schema` prints, makes an editor complete and check keys.

This page, the first and the last of these are made from the settings in the code by `scripts/docs`.

## How values are written

* **Durations**: `250ms`, `1.5s`, `2m`, `1h`, or a plain number of seconds.
* **Sizes**: `16KiB`, `4MiB`, `1GiB` (powers of 1024), `16KB`, `4MB`, `1GB` (powers of 1000), or a plain number of
  octets.
* **Variables**: `${VAR}` and `${VAR:-default}` stand in any value, and are filled in from the environment after the
  YAML was read, so that a variable can never add a key. A default also replaces an empty variable. A variable that is
  not set and has no default is an error. `$${` stands for the characters `${`. Within braces YAML wants quotes:
  `{port: "${PORT}"}`.
* **Empty values**: a section without a value is that section at its defaults, as `{}` is; `grpc:` under `check` is
  enough to choose it. For any other key, no value and `null` mean unset.
* **Words**: the type of the setting decides, not the look of the value. `off` and `no` are words where a word is
  wanted; `true` and `false` are the only truth values; digits in quotes are text, not a number.
* Anchors and aliases work. Merge keys (`<<`), duplicate keys, tags and a second document are errors.

## Flags and variables above the file

A few settings can be given for one start: a flag wins over its variable, and the variable wins over the file.

| Setting | Flag of `sidecar run` | Variable |
|---|---|---|
| the file itself | `--config` | `SIDECAR_CONFIG` |
"""

MANUAL_RELOAD = """\

## Reload

The file is read again on SIGHUP, on `POST /reload`, and when its content changes, which is looked for every 2 s. A file
with a mistake changes nothing: every problem is logged and the settings in force stay.

## Every key
"""


# === YAML ===


def reference_yaml() -> str:
    """config/sidecar.yaml."""
    return YAML_HEAD + "\n" + "\n".join(_section_lines(Config, spaced=True)) + "\n"


def _section_lines(struct: type[Struct], spaced: bool = False) -> Iterator[str]:
    for number, field in enumerate(fields_of(struct)):
        if spaced and number:
            yield ""
        yield from (f"# {line}" for line in textwrap.wrap(_sentence(field.shape), WIDTH))
        yield from _field_lines(field)


def _field_lines(field: FieldShape) -> Iterator[str]:
    """The key itself, and what stands below it."""
    section = section_in(field.shape.core)
    if section is None:
        value = plain_scalar(field.default, field.shape)
        if field.required or (field.default is None and field.shape.examples):
            value = field.shape.examples[0]
        yield f"{field.name}: {_yaml_scalar(value)}"
    elif isinstance(field.shape.core, inspect.DictType):
        yield f"{field.name}:"
        (key,) = field.shape.examples[0]
        yield from ("#" + line for line in _indent([f'"{key}":', *_indent(_section_lines(section))]))
    elif not isinstance(field.shape.core, inspect.StructType):
        yield f"{field.name}:"
        yield from ("#" + line for line in _indent(_item_lines(section)))
    elif field.shape.nullable:
        yield from ("#" + line for line in [f"{field.name}:", *_indent(_section_lines(section))])
    else:
        yield f"{field.name}:"
        yield from _indent(_section_lines(section))


def _item_lines(section: type[Struct]) -> Iterator[str]:
    first, *rest = _section_lines(section)
    yield f"- {first}"
    yield from _indent(rest)


def _indent(lines: Iterator[str] | list[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)


def _sentence(shape: Shape) -> str:
    """The description, with the words that can be chosen."""
    if isinstance(shape.core, inspect.LiteralType):
        return f"{shape.description} One of {', '.join(map(str, shape.core.values))}."
    return shape.description


def _yaml_scalar(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9/][A-Za-z0-9_./-]*", value):
        return value
    return json.dumps(list(value) if isinstance(value, tuple) else value)


# === the manual ===


def reference_manual() -> str:
    """docs/configuration.md."""
    rows = [f"| `{each.key}` | `{each.flag}` | `{each.variable}` |" for each in OVERRIDES]
    parts = [MANUAL_HEAD + "\n".join(rows) + "\n" + MANUAL_RELOAD]
    parts += ["\n".join(_table(path, section)) for path, section in _walk("", Config, set())]
    return "\n".join(parts)


def _walk(path: str, struct: type[Struct], met: set[type[Struct]]) -> Iterator[tuple[str, type[Struct]]]:
    """Every section with its dotted name, depth first, and only where it is first met."""
    met.add(struct)
    yield path, struct
    for field in fields_of(struct):
        section = section_in(field.shape.core)
        if section is not None and section not in met:
            yield from _walk(_join(path, field), section, met)


def _join(path: str, field: FieldShape) -> str:
    items = {inspect.StructType: "", inspect.DictType: ".*"}.get(type(field.shape.core), "[]")
    return f"{path}.{field.name}{items}".removeprefix(".")


def _table(path: str, struct: type[Struct]) -> Iterator[str]:
    yield f"### `{path}`" if path else "### The top"
    yield ""
    yield " ".join((struct.__doc__ or "").split())
    yield ""
    yield "| Key | Value | Default | Meaning |"
    yield "|---|---|---|---|"
    for field in fields_of(struct):
        meaning = field.shape.description.replace("|", "\\|")
        yield f"| `{field.name}` | {_value_words(field.shape)} | {_default_words(field)} | {meaning} |"
    yield ""


def _value_words(shape: Shape) -> str:
    match shape.core:
        case inspect.StructType():
            return "section"
        case inspect.LiteralType(values=values):
            return ", ".join(f"`{value}`" for value in values)
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType() | inspect.FloatType() as core:
            kind, build = {
                "duration": ("duration", build_duration),
                "size": ("size", build_size),
            }.get(shape.unit, ("whole number" if isinstance(core, inspect.IntType) else "number", str))
            return f"{kind}{limits(core, build)}"
        case inspect.VarTupleType() as core:
            return f"list of {_value_words(parts_of(core)[0])}"
        case inspect.DictType() as core:
            return f"mapping of text to {_value_words(parts_of(core)[0])}"
        case inspect.UnionType() as core:
            return " or ".join(_value_words(part) for part in parts_of(core))
    return "address" if shape.unit == "address" else "text"


def _default_words(field: FieldShape) -> str:
    if field.required:
        return "required"
    if field.default is None:
        return "unset"
    if isinstance(field.shape.core, inspect.StructType):
        return "as below"
    if field.default in ((), {}, ""):
        return "empty"
    return f"`{_yaml_scalar(plain_scalar(field.default, field.shape))}`"


# === the files ===

GENERATED = {
    "config/schema.json": schema_text,
    "config/sidecar.yaml": reference_yaml,
    "docs/configuration.md": reference_manual,
    "docs/metrics.md": metrics_manual,
}


def write_all(root: Path) -> None:
    """Write every generated file below `root`."""
    for name, build in GENERATED.items():
        (root / name).write_text(build(), encoding="utf-8")


if __name__ == "__main__":
    write_all(Path.cwd())
