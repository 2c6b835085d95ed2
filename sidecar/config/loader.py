"""A file and an environment to a `Config`, or to every problem at once. The only door from YAML to settings."""

from __future__ import annotations

import os
from collections.abc import Mapping

import yaml
from msgspec import inspect, structs

from sidecar.config.crosscheck import cross_check
from sidecar.config.document import MAX_FILE_SIZE, parse_document
from sidecar.config.model import Config
from sidecar.config.override import OVERRIDES, Override
from sidecar.config.problem import ConfigErrors, Place, Problem
from sidecar.config.reader import Path, Reader, Refused, name_of, read_scalar
from sidecar.config.service_config import inline
from sidecar.config.shape import Shape, fields_of, section_type, shape_of


def load_config(
    path: str | os.PathLike[str], environment: Mapping[str, str], overrides: Mapping[str, str] | None = None
) -> Config:
    """Read the file at `path`. `overrides` holds what flags say, by dotted key. Raises ConfigErrors."""
    return build_config(os.fspath(path), read_file(path), environment, overrides)


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The octets of the file, one more than allowed at most. Raises ConfigErrors."""
    try:
        with open(path, "rb") as file:
            return file.read(MAX_FILE_SIZE + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigErrors([Problem(os.fspath(path), None, f"cannot be read: {reason}")]) from None


def build_config(
    source: str, data: bytes, environment: Mapping[str, str], overrides: Mapping[str, str] | None = None
) -> Config:
    """The settings in `data`, which came from `source`. Raises ConfigErrors with every problem."""
    root = parse_document(source, data)
    reader = Reader(source, environment)
    config: Config = reader.read(root, shape_of(section_type(Config)))
    problems = reader.problems
    origins: dict[Path, str] = {}  # of the values that did not come from the file
    if not isinstance(root, yaml.MappingNode):
        raise ConfigErrors(problems)
    for override in OVERRIDES:
        config = _override(config, override, environment, overrides or {}, origins, problems)
    config, unread = inline(config)
    for path, sentence in [*unread, *cross_check(config)]:
        if path in origins:
            problems.append(Problem(origins[path], None, sentence))
        else:
            problems.append(Problem(source, _nearest(path, reader.places), sentence))
    if problems:
        raise ConfigErrors(problems)
    return config


def _override(
    config: Config,
    override: Override,
    environment: Mapping[str, str],
    overrides: Mapping[str, str],
    origins: dict[Path, str],
    problems: list[Problem],
) -> Config:
    """`config` with one setting from its flag or its variable, if either is given and not empty."""
    flag, variable = overrides.get(override.key), environment.get(override.variable)
    text, origin = (flag, override.flag) if flag else (variable, override.variable)
    if not text:
        return config
    section, key = override.key.split(".")
    try:
        value = read_scalar(text, _shape(section, key))
    except Refused as refusal:
        problems.append(Problem(origin, None, f"{name_of((section, key))} {refusal}"))
        return config
    origins[section, key] = origin
    whole = getattr(config, section)
    if not whole:  # the section itself could not be read
        return config
    return structs.replace(config, **{section: structs.replace(whole, **{key: value})})


def _shape(section: str, key: str) -> Shape:
    """The shape of one setting of one top-level section."""
    sections = {field.name: field.shape.core for field in fields_of(Config)}
    core = sections[section]
    assert isinstance(core, inspect.StructType)
    return next(field.shape for field in fields_of(core.cls) if field.name == key)


def _nearest(path: Path, places: Mapping[Path, Place]) -> Place:
    """Where `path` was written, or else the section that it is missing from."""
    while path not in places:
        path = path[:-1]
    return places[path]
