"""`${VAR}` and `${VAR:-default}` inside one scalar of the file. The environment is an argument; nothing else is read.

`$${` stands for a literal `${`. A default may hold anything but a closing brace; it is used when the variable
is unset or empty, as in a shell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)\}|\$\{")
_BODY = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL | re.ASCII)


def has_variable(text: str) -> bool:
    """Whether `fill` could change `text`."""
    return "${" in text


def fill(text: str, environment: Mapping[str, str]) -> tuple[str, list[str]]:
    """`text` with its references replaced, and a sentence for each one that cannot be."""
    sentences: list[str] = []

    def replace(found: re.Match[str]) -> str:
        if found[0] == "$${":
            return "${"
        body = _BODY.fullmatch(found[1]) if found[1] is not None else None
        if body is None:
            forms = "write ${NAME} or ${NAME:-default}, or $${ for the characters themselves"
            sentences.append(f"{found[0][:40]!r} is not a variable; {forms}")
            return ""
        name, default = body.groups()
        value = environment.get(name)
        if default is not None and not value:
            return str(default)
        if value is None:
            sentences.append(f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}")
            return ""
        return value

    return _REFERENCE.sub(replace, text), sentences
