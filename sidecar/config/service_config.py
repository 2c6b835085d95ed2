"""gRPC's service configs that the file names: read when the file is, so that a start or a reload has all of them.

What stands in them is known by `policy.service_config`.
"""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Final

from msgspec import structs

from sidecar.config.model import Config, UpstreamEntry
from sidecar.config.reader import Path, name_of

MOST: Final = 2**20  # octets; the configuration file's own limit


def inline(config: Config) -> tuple[Config, list[tuple[Path, str]]]:
    """`config` with the text of each service config in place of its path, and what could not be read."""
    findings: list[tuple[Path, str]] = []
    entries: list[UpstreamEntry] = []
    for index, entry in enumerate(config.upstreams):
        named = entry.service_config
        if isinstance(named, str) and not named.lstrip().startswith("{"):
            path: Path = ("upstreams", index, "service_config")
            try:
                text = FilePath(named).read_text(encoding="utf-8")[:MOST]
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                findings.append((path, f"{name_of(path)} '{named}' cannot be read: {reason}"))
                text = "{}"
            entries.append(structs.replace(entry, service_config=text))
        else:
            entries.append(entry)
    if entries:
        config = structs.replace(config, upstreams=tuple(entries))
    return config, findings
