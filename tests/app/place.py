"""A whole sidecar in this process, on a configuration file that a test may rewrite."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from sidecar.app.sidecar import Sidecar
from sidecar.config.reload import ConfigSource


class Place:
    """A file, and the sidecar that was started from it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "sidecar.yaml"
        self.sidecar: Sidecar

    def write(self, **config: Any) -> None:
        """The file's new content."""
        self.path.write_text(yaml.safe_dump({"admin": {"listen": "127.0.0.1:0"}, **config}))

    def bound(self, service: str) -> str:
        """Where the app dials it."""
        return self.sidecar.by_name[service].listener.bound


@asynccontextmanager
async def running(directory: Path, **config: Any) -> AsyncIterator[Place]:
    """Started, and ended when the block ends unless the test did that."""
    place = Place(directory)
    place.write(**{"drain": {"grace": "100ms", "propagation": "10ms"}, **config})
    source = ConfigSource(str(place.path), {})
    thresholds = gc.get_threshold()
    place.sidecar = Sidecar(source, source.load(), {})
    try:
        await place.sidecar.start()
        yield place
    finally:
        if not place.sidecar.ended.is_set():
            place.sidecar.quit()
            await place.sidecar.stop()
        gc.unfreeze()
        gc.set_threshold(*thresholds)


def upstream(service: str, *endpoints: str, listen: str = "127.0.0.1:0", **entry: Any) -> dict[str, Any]:
    """An entry with static endpoints; without any, one that nobody listens on."""
    return {"service": service, "listen": listen, "endpoints": list(endpoints) or ["127.0.0.1:1"], **entry}
