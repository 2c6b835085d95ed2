"""The settings structs seen as shapes: what msgspec knows of a field, without the wrapping.

Reader, schema, reference and redaction all walk shapes, so that none of them names a single setting.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from msgspec import NODEFAULT, Struct, inspect


class Shape(NamedTuple):
    """A type with everything that its layers of annotation say."""

    core: inspect.Type
    nullable: bool = False
    unit: str = ""  # duration, size or address
    secret: bool = False
    description: str = ""
    examples: tuple[Any, ...] = ()


class FieldShape(NamedTuple):
    """One key of a section."""

    name: str
    shape: Shape
    required: bool
    default: Any  # NODEFAULT when required


def shape_of(kind: inspect.Type) -> Shape:
    """`kind` without Metadata and without `| None`; what the outer layer says wins."""
    nullable = False
    extra: dict[str, Any] = {}
    schema: dict[str, Any] = {}
    while True:
        if isinstance(kind, inspect.Metadata):
            extra = {**(kind.extra or {}), **extra}
            schema = {**(kind.extra_json_schema or {}), **schema}
            kind = kind.type
        elif isinstance(kind, inspect.UnionType) and kind.includes_none and len(kind.types) == 2:
            nullable = True
            kind = next(each for each in kind.types if not isinstance(each, inspect.NoneType))
        else:
            return Shape(
                kind,
                nullable,
                unit=extra.get("unit", ""),
                secret=extra.get("secret", False),
                description=schema.get("description", ""),
                examples=tuple(schema.get("examples", ())),
            )


_SECTIONS: dict[type[Struct], inspect.StructType] = {}


def section_type(struct: type[Struct]) -> inspect.StructType:
    """A section as msgspec sees it. That evaluates every annotation below the section, so nothing is asked twice."""
    if struct not in _SECTIONS:
        _note_sections(inspect.type_info(struct))
    return _SECTIONS[struct]


def _note_sections(core: inspect.Type) -> None:
    if isinstance(core, inspect.StructType):
        _SECTIONS[core.cls] = core
        for field in core.fields:
            _note_sections(shape_of(field.type).core)
    else:
        for part in parts_of(core):
            _note_sections(part.core)


@cache
def fields_of(struct: type[Struct]) -> tuple[FieldShape, ...]:
    """The keys of a section, in the order they are written."""
    fields = []
    for field in section_type(struct).fields:
        default = field.default
        if field.default_factory is not NODEFAULT:
            default = field.default_factory()
        fields.append(FieldShape(field.encode_name, shape_of(field.type), field.required, default))
    return tuple(fields)


def sections_of(struct: type[Struct]) -> list[type[Struct]]:
    """`struct` and every struct below it, each once, in the order they are met."""
    met: dict[type[Struct], None] = {}

    def visit(core: inspect.Type) -> None:
        if isinstance(core, inspect.StructType):
            if core.cls not in met:
                met[core.cls] = None
                for field in fields_of(core.cls):
                    visit(field.shape.core)
        else:
            for part in parts_of(core):
                visit(part.core)

    visit(section_type(struct))
    return list(met)


def parts_of(core: inspect.Type) -> list[Shape]:
    """The item shape of a list, the value shape of a mapping, the choices of a union; nothing for a scalar."""
    match core:
        case inspect.VarTupleType() | inspect.ListType():
            return [shape_of(core.item_type)]
        case inspect.DictType():
            return [shape_of(core.value_type)]
        case inspect.UnionType():
            return [shape_of(each) for each in core.types]
    return []


def section_in(core: inspect.Type) -> type[Struct] | None:
    """The struct that `core` is, or holds as the items of a list."""
    if isinstance(core, inspect.StructType):
        return core.cls
    return next((found for part in parts_of(core) if (found := section_in(part.core))), None)
