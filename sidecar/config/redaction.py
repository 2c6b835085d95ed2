"""The settings in force, as plain values for a reader: units spelled out, secrets replaced."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, inspect

from sidecar.config.quantity import build_duration, build_size
from sidecar.config.shape import Shape, fields_of, shape_of

REDACTED = "[redacted]"


def dump(config: Struct) -> dict[str, Any]:
    """Every setting by its key, defaults included. It can be written as JSON or YAML, and holds no secret.

    A section that is off is left out, as in the file: a null there would choose it.
    """
    values = {}
    for field in fields_of(type(config)):
        value = getattr(config, field.name)
        if value is not None or not isinstance(field.shape.core, inspect.StructType):
            values[field.name] = _plain(value, field.shape)
    return values


def plain_scalar(value: Any, shape: Shape) -> Any:
    """One value as an operator would write it."""
    if value is None:
        return None
    if shape.secret:
        return REDACTED
    if shape.unit == "duration":
        return build_duration(value)
    return build_size(value) if shape.unit == "size" else value


def _plain(value: Any, shape: Shape) -> Any:
    if isinstance(value, Struct):
        return dump(value)
    if isinstance(value, tuple) and isinstance(shape.core, inspect.VarTupleType):
        item = shape_of(shape.core.item_type)
        return [_plain(each, item) for each in value]
    if isinstance(value, dict) and isinstance(shape.core, inspect.DictType):
        item = shape_of(shape.core.value_type)
        return {key: _plain(each, item) for key, each in value.items()}
    return plain_scalar(value, shape)
