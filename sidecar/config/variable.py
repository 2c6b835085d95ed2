"""`${VAR}` and `${VAR:-default}` inside one scalar of the file. The environment is an argument; nothing else is read.

`$${` stands for a literal `${`. A default may hold anything but a closing brace; it is used when the variable
is unset or empty, as in a shell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_BODY = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL | re.ASCII)


def has_variable(text: str) -> bool:
    """Whether `fill` could change `text`."""
    return "${" in text


def fill(text: str, environment: Mapping[str, str]) -> tuple[str, list[str]]:
    """`text` with its references replaced, and a sentence for each one that cannot be."""
    parts: list[str] = []
    sentences: list[str] = []
    position = 0
    while (start := text.find("${", position)) >= 0:
        if start > position and text[start - 1] == "$":
            parts += [text[position : start - 1], "${"]
            position = start + 2
            continue
        end = text.find("}", start)
        body = text[start + 2 : end] if end >= 0 else None
        value, sentence = _value(body, environment)
        parts += [text[position:start], value]
        sentences += [sentence] if sentence else []
        if end < 0:
            return "".join(parts), sentences
        position = end + 1
    return "".join([*parts, text[position:]]), sentences


def _value(body: str | None, environment: Mapping[str, str]) -> tuple[str, str]:
    """What stands for `${body}`, and what is wrong with it, if anything. None: it is not closed."""
    found = _BODY.fullmatch(body) if body is not None else None
    if found is None:
        forms = "write ${NAME} or ${NAME:-default}, or $${ for the characters themselves"
        return "", f"'${{{(body or '')[:40]}' is not a variable; {forms}"
    name, default = found.groups()
    value = environment.get(name)
    if default is not None:
        return value or default, ""
    if value is None:
        return "", f"the environment variable {name[:80]} is not set; set it, or write ${{{name[:80]}:-default}}"
    return value, ""
