"""A tree of YAML nodes and a shape to a value, with every problem on the way noted at its place.

The type of the setting decides what a scalar means, not the look of the scalar: `off` is a word where a word is
wanted, `10:30` is never a number, and `${PORT}` is whatever stands in the environment. A value that cannot be
read becomes UNREADABLE, so that the rest of the file is still read and checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import yaml
from msgspec import inspect

from sidecar.config.document import NULL_TAG, place_of
from sidecar.config.problem import Place, Problem, guess, nearest
from sidecar.config.quantity import build_duration, build_size, parse_duration, parse_size
from sidecar.config.shape import Shape, fields_of, shape_of
from sidecar.config.variable import fill, has_variable

Path = tuple[str | int, ...]

MAX_SHOWN_TEXT = 60  # characters of a wrong value that a message repeats
STANDARD_TAG = "tag:yaml.org,2002:"

_WHOLE = re.compile(r"[+-]?[0-9]{1,20}", re.ASCII)
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?", re.ASCII)
_TRUTH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


class Unreadable:
    """Stands where a value could not be read; the problem is noted already.

    It absorbs what a later check asks of it (every attribute is itself, it holds nothing, it compares with
    nothing), so that one mistake is reported once and hides no other.
    """

    def __getattr__(self, name: str) -> Unreadable:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __bool__(self) -> bool:
        return False

    def __lt__(self, other: object) -> bool:
        return False

    __gt__ = __lt__

    def __repr__(self) -> str:
        return "UNREADABLE"


UNREADABLE: Final = Unreadable()


class Refused(Exception):
    """A scalar that is not what its setting wants; carries the rest of the sentence."""


class Reader:
    """Reads one document. `problems` and `places` fill up on the way."""

    def __init__(self, source: str, environment: Mapping[str, str]) -> None:
        self.source = source
        self.environment = environment
        self.problems: list[Problem] = []
        self.places: dict[Path, Place] = {}  # of every value that was written

    def read(self, node: yaml.Node, shape: Shape, path: Path = ()) -> Any:
        """The value of `node`, or UNREADABLE."""
        self.places[path] = place_of(node.start_mark)
        if not node.tag.startswith(STANDARD_TAG):
            return self.note(node, f"the tag {node.tag[:MAX_SHOWN_TEXT]} is not known; leave it out")
        match shape.core:
            case inspect.StructType():
                return self._section(node, shape, path)
            case inspect.VarTupleType():
                return self._list(node, shape, path)
            case inspect.DictType():
                return self._mapping(node, shape, path)
            case inspect.UnionType(types=choices):
                return self.read(node, _choose(node, choices), path)
        return self._scalar(node, shape, path)

    def note(self, node: yaml.Node, sentence: str) -> Unreadable:
        """Note a problem at `node`."""
        self.problems.append(Problem(self.source, place_of(node.start_mark), sentence))
        return UNREADABLE

    # -- collections ------------------------------------------------------------------------------------

    def _section(self, node: yaml.Node, shape: Shape, path: Path) -> Any:
        """A key without a value stands for the section at its defaults, as `{}` does."""
        assert isinstance(shape.core, inspect.StructType)
        fields = {field.name: field for field in fields_of(shape.core.cls)}
        if not isinstance(node, yaml.MappingNode) and not is_null(node):
            keys = ", ".join(list(fields)[:3])
            return self.note(node, f"{name_of(path)} must be a section with keys such as {keys}, not {kind_of(node)}")
        values = {}
        for key, value in self._pairs(node):
            field = fields.get(key.value)
            if field is None:
                word = key.value[:MAX_SHOWN_TEXT]
                self.note(key, f"unknown key '{word}'{_within(path)}{guess(word, fields)}")
            else:
                values[field.name] = self.read(value, field.shape, (*path, field.name))
        for name, field in fields.items():
            if field.required and name not in values:
                self.note(node, f"'{name}' is missing{_within(path)}: {field.shape.description}")
                values[name] = UNREADABLE
        return shape.core.cls(**values)

    def _pairs(self, node: yaml.Node) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
        """The keys and values of a mapping whose keys are usable, each key once."""
        pairs: list[tuple[yaml.ScalarNode, yaml.Node]] = []
        first: dict[str, Place] = {}
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                self.note(key, f"a key must be a plain word, not {kind_of(key)}")
            elif key.value == "<<":
                self.note(key, "merge keys (<<) are not read; write the keys out, or use an alias for a whole section")
            elif key.value in first:
                line = first[key.value].line
                self.note(key, f"the key '{key.value[:MAX_SHOWN_TEXT]}' was given already in line {line}")
            else:
                first[key.value] = place_of(key.start_mark)
                pairs.append((key, value))
        return pairs

    def _list(self, node: yaml.Node, shape: Shape, path: Path) -> Any:
        assert isinstance(shape.core, inspect.VarTupleType)
        if is_null(node):
            return None if shape.nullable else ()
        if not isinstance(node, yaml.SequenceNode):
            return self.note(node, f"{name_of(path)} must be a list, not {kind_of(node)}")
        item = shape_of(shape.core.item_type)
        return tuple(self.read(each, item, (*path, index)) for index, each in enumerate(node.value))

    def _mapping(self, node: yaml.Node, shape: Shape, path: Path) -> Any:
        assert isinstance(shape.core, inspect.DictType)
        if is_null(node):
            return None if shape.nullable else {}
        if not isinstance(node, yaml.MappingNode):
            return self.note(node, f"{name_of(path)} must be a mapping of words to values, not {kind_of(node)}")
        value_shape = shape_of(shape.core.value_type)
        return {key.value: self.read(value, value_shape, (*path, key.value)) for key, value in self._pairs(node)}

    # -- scalars ----------------------------------------------------------------------------------------

    def _scalar(self, node: yaml.Node, shape: Shape, path: Path) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            return self.note(node, f"{name_of(path)} must be {wanted(shape)}, not {kind_of(node)}")
        text, null = node.value, is_null(node)
        filled = has_variable(text)
        if filled:
            text, sentences = fill(text, self.environment)
            for sentence in sentences:
                self.note(node, f"{name_of(path)}: {sentence}")
            if sentences:
                return UNREADABLE
            null = text == "" and (shape.nullable or not isinstance(shape.core, inspect.StrType))
        if null:
            return None if shape.nullable else self.note(node, f"{name_of(path)} has no value; {_give(shape)}")
        quoted = bool(node.style) and not filled
        try:
            return read_scalar(text, shape, quoted)
        except Refused as refusal:
            return self.note(node, f"{name_of(path)} {refusal}")


def read_scalar(text: str, shape: Shape, quoted: bool = False) -> Any:
    """The value that `text` stands for in a setting of this shape. Raises Refused."""
    if shape.unit in QUANTITIES:
        parse, build = QUANTITIES[shape.unit]
        try:
            value = parse(text)
        except ValueError as error:
            raise Refused(str(error)) from None
        return _bounded(value, shape.core, build)
    match shape.core:
        case inspect.StrType():
            return _text(text, shape.core)
        case inspect.LiteralType(values=values):
            if text not in values:
                raise Refused(f"must be {wanted(shape)}, not '{_cut(text)}'{nearest(text, map(str, values))}")
            return text
        case inspect.BoolType():
            if text not in _TRUTH or quoted:
                raise Refused(f"must be {wanted(shape)}, not {_quote(text, quoted)}")
            return _TRUTH[text]
        case inspect.IntType():
            if quoted or not _WHOLE.fullmatch(text):
                raise Refused(f"must be {wanted(shape)}, not {_quote(text, quoted)}")
            return _bounded(int(text), shape.core, str)
        case inspect.FloatType():
            if quoted or not _NUMBER.fullmatch(text):
                raise Refused(f"must be {wanted(shape)}, not {_quote(text, quoted)}")
            return _bounded(float(text), shape.core, str)
    raise TypeError(f"no setting can have the type {shape.core}")


QUANTITIES: dict[str, tuple[Callable[[str], Any], Callable[[Any], str]]] = {
    "duration": (parse_duration, build_duration),
    "size": (parse_size, build_size),
}


def is_null(node: yaml.Node) -> bool:
    """Whether `node` is nothing, `null` or `~`."""
    return isinstance(node, yaml.ScalarNode) and node.tag == NULL_TAG and not node.style


def kind_of(node: yaml.Node) -> str:
    """What a node is, in words."""
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return f"'{_cut(node.value)}'"


def name_of(path: Path) -> str:
    """`upstreams[1].listen`; `the file` at the top."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part[:MAX_SHOWN_TEXT]}"
    return text.removeprefix(".") or "the file"


def wanted(shape: Shape) -> str:
    """What a scalar setting takes, in words."""
    match shape.core:
        case inspect.LiteralType(values=values):
            return f"one of {', '.join(map(str, values))}"
        case inspect.BoolType():
            return "true or false"
        case _ if shape.unit:
            return {"duration": "a duration such as 250ms or 2m", "size": "a size such as 4MiB"}.get(shape.unit, "text")
        case inspect.IntType() | inspect.FloatType() as core:
            whole = "a whole number" if isinstance(core, inspect.IntType) else "a number"
            return f"{whole}{limits(core, str)}"
    return "text"


def limits(core: inspect.IntType | inspect.FloatType, build: Callable[[Any], str]) -> str:
    """` from 1 to 100`, ` of at least 1`, or nothing."""
    low, high = core.ge, core.le
    if low is not None and high is not None:
        return f" from {build(low)} to {build(high)}"
    if low is not None:
        return f" of at least {build(low)}"
    return f" of at most {build(high)}" if high is not None else ""


def _bounded(value: Any, core: inspect.Type, build: Callable[[Any], str]) -> Any:
    assert isinstance(core, inspect.IntType | inspect.FloatType)
    if (core.ge is not None and value < core.ge) or (core.le is not None and value > core.le):
        kind = "a value" if build is not str else wanted(Shape(core)).split(" from ")[0].split(" of ")[0]
        raise Refused(f"must be {kind}{limits(core, build)}, not {build(value)}")
    return value


def _text(text: str, core: inspect.StrType) -> str:
    if core.min_length and len(text) < core.min_length:
        raise Refused(f"must have at least {core.min_length} characters, not '{text}'" if text else "must not be empty")
    if core.max_length and len(text) > core.max_length:
        raise Refused(f"must have at most {core.max_length} characters, not {len(text)}")
    if core.pattern and (not re.search(core.pattern, text) or text.endswith("\n")):
        raise Refused(f"must match {core.pattern}, and '{_cut(text)}' does not")
    return text


def _choose(node: yaml.Node, choices: tuple[inspect.Type, ...]) -> Shape:
    """The one choice of a union that a node of this kind can be: a section for a mapping, else the scalar."""
    shapes = [shape_of(each) for each in choices]
    sections = [each for each in shapes if isinstance(each.core, inspect.StructType)]
    scalars = [each for each in shapes if not isinstance(each.core, inspect.StructType)]
    return (sections if isinstance(node, yaml.MappingNode) or not scalars else scalars)[0]


def _give(shape: Shape) -> str:
    return f"give {wanted(shape)}, or leave the key out"


def _within(path: Path) -> str:
    return f" in {name_of(path)}" if path else ""


def _quote(text: str, quoted: bool) -> str:
    return f'the text "{_cut(text)}" (leave out the quotes)' if quoted else f"'{_cut(text)}'"


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_TEXT else text[:MAX_SHOWN_TEXT] + "..."
