"""py-consul as far as it is used: its asyncio client, and not the synchronous one that its package imports first.

That one (`consul.std`) brings requests and urllib3 with it: as long again to import, and 5 MiB in every sidecar. While
the package is imported, an empty module stands in its place; afterwards whoever asks for it gets the real one.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

UNUSED = "consul.std"


def import_consul() -> Any:
    """The package `consul` with `consul.aio`, `consul.base` and `consul.exceptions`. (Any: py-consul has no types.)"""
    if "consul" not in sys.modules:
        stand_in = ModuleType(UNUSED)
        stand_in.Consul = None  # type: ignore[attr-defined]  # all that the package wants of it
        sys.modules[UNUSED] = stand_in
        try:
            importlib.import_module("consul")
        finally:
            del sys.modules[UNUSED]
    importlib.import_module("consul.aio")
    importlib.import_module("consul.exceptions")
    return importlib.import_module("consul")


consul = import_consul()
