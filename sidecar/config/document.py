"""The octets of a file to one tree of YAML nodes, each with its place. Knows YAML, and no setting.

Everything that a hostile or broken file can do is refused here, before anything walks the tree: too large, not
text, not one document, nested too deep, aliases that multiply or contain themselves.
"""

from __future__ import annotations

import re
from typing import Protocol

import yaml

from sidecar.config.problem import ConfigErrors, Place, Problem


class Mark(Protocol):
    """What both parsers give for a position, counted from 0."""

    line: int
    column: int


MAX_FILE_SIZE = 2**20  # 1 MiB; a ConfigMap holds no more
MAX_DEPTH = 50  # the settings need 6
MAX_NODES = 100_000  # with every alias written out

NULL_TAG = "tag:yaml.org,2002:null"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml where it was built in

# What YAML 1.2 section 5.1 does not allow in a stream.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def parse_document(source: str, data: bytes) -> yaml.Node:
    """The root of the only document in `data`. Raises ConfigErrors with one problem."""
    text = _decode(source, data)
    try:
        _measure(source, text)
        root = yaml.compose(text, Loader=LOADER)
    except yaml.MarkedYAMLError as error:
        place = place_of(error.problem_mark or error.context_mark)
        if error.context == "expected a single document in the stream":
            raise _refuse(source, place, "a second document starts here; the file must be one document") from None
        words = [part for part in (error.context, error.problem) if part]
        raise _refuse(source, place, f"this is not YAML: {', '.join(words)}") from None
    except yaml.YAMLError as error:
        raise _refuse(source, Place(1, 1), f"this is not YAML: {' '.join(str(error).split())}") from None
    if root is None or (isinstance(root, yaml.ScalarNode) and root.tag == NULL_TAG and not root.style):
        raise _refuse(source, Place(1, 1), "the file is empty; write at least one key, or {} for all defaults")
    return root


def place_of(mark: Mark | None) -> Place:
    """A parser's mark as a place."""
    return Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)


def _decode(source: str, data: bytes) -> str:
    if len(data) > MAX_FILE_SIZE:
        raise _refuse(source, None, f"the file is larger than {MAX_FILE_SIZE // 2**20} MiB; is it the right one?")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = _place_in(data[: error.start].decode("utf-8", "replace"))
        raise _refuse(source, place, f"the file is not UTF-8 text: octet 0x{data[error.start]:02x} here") from None
    found = _UNPRINTABLE.search(text)
    if found:
        raise _refuse(source, _place_in(text[: found.start()]), f"the control character {found[0]!r} is not allowed")
    return text


def _measure(source: str, text: str) -> None:
    """Walk the events, which costs no recursion, and refuse what would be dear to walk as a tree."""
    sizes: dict[str, int] = {}  # of every finished anchor, aliases written out
    open_nodes: list[tuple[str | None, int]] = []  # anchor, and the count when it began
    open_anchors: set[str] = set()
    count = 0
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in open_anchors:
                raise _refuse(source, place_of(event.start_mark), f"*{event.anchor} stands inside what it refers to")
            count += sizes.get(event.anchor or "", 1)
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, count))
            open_anchors.update([event.anchor] if event.anchor else [])
            count += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, began = open_nodes.pop()
            if anchor:
                sizes[anchor] = count - began
                open_anchors.discard(anchor)
        if len(open_nodes) > MAX_DEPTH:
            raise _refuse(source, place_of(event.start_mark), f"nested deeper than {MAX_DEPTH} levels")
        if count > MAX_NODES:
            sentence = f"more than {MAX_NODES} values by here (with aliases written out)"
            raise _refuse(source, place_of(event.start_mark), sentence)


def _place_in(before: str) -> Place:
    return Place(before.count("\n") + 1, len(before) - before.rfind("\n"))


def _refuse(source: str, place: Place | None, sentence: str) -> ConfigErrors:
    return ConfigErrors([Problem(source, place, sentence)])
