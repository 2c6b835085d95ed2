"""Text from outside (paths, messages, a registry's names) made safe to print: one line, printable, of bounded length.

JSON and HTML have their own escaping on top; this is what keeps a terminal and a line-based reader unharmed (SE-22).
"""

from __future__ import annotations

from typing import Final

# Longer than any honest method path or status message, shorter than what fills a disk.
LONGEST: Final = 500

_ELLIPSIS: Final = "..."


def printable(value: str | bytes, longest: int = LONGEST) -> str:
    """`value` with everything that is not printable written as an escape, cut to `longest` characters."""
    if isinstance(value, bytes):
        text = value[: longest + 1].decode("utf-8", "backslashreplace")
    else:
        text = value[: longest + 1]
    if not text.isprintable():
        text = "".join(char if char.isprintable() else _escape(char) for char in text)
    if len(text) > longest:
        return text[: longest - len(_ELLIPSIS)] + _ELLIPSIS
    return text


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
