"""What this copy of the program is made of, found by looking at files: nothing of it is imported."""

from __future__ import annotations

import importlib.util
import platform
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import TypedDict

from sidecar import __version__


class BuildFacts(TypedDict):
    """`extensions` are the compiled modules, by their name below the package."""

    version: str
    python: str
    codec: str
    loop: str
    compiled: bool
    extensions: list[str]


def build_facts() -> BuildFacts:
    """The codec and the loop are those that a sidecar would take by itself."""
    extensions = compiled_modules(Path(__file__).parent)
    native = "http2.native" in extensions
    return BuildFacts(
        version=__version__,
        python=f"{platform.python_version()} ({platform.python_implementation()})",
        codec="native" if native else "reference" + distribution("h2"),
        loop="native" if "proxy.poll" in extensions else other_loop(),
        compiled=bool(extensions),
        extensions=extensions,
    )


def compiled_modules(package: Path) -> list[str]:
    """The extension modules for this interpreter below `package`."""
    suffix = EXTENSION_SUFFIXES[0]
    found = (path.relative_to(package) for path in package.rglob(f"*{suffix}"))
    return sorted(".".join(path.parts).removesuffix(suffix) for path in found)


def other_loop() -> str:
    """Which one it is where ours was not built."""
    return "uvloop" + distribution("uvloop") if importlib.util.find_spec("uvloop") is not None else "asyncio"


def distribution(name: str) -> str:
    """` name version` for what is installed; nothing otherwise."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f" ({name} {version(name)})"
    except PackageNotFoundError:
        return ""
