"""Whether an instance is among those that an upstream takes, by what every registry states of it.

Consul's own words (`datacenter`, `filter`) are for Consul to judge; tags and metadata mean the same everywhere.
"""

from __future__ import annotations

from sidecar.control.settings import Selection
from sidecar.policy.snapshot import Member


def takes(selection: Selection, member: Member) -> bool:
    """Whether `member` carries every tag and says everything in its metadata that `selection` asks for."""
    if not set(selection.tags).issubset(member.tags):
        return False
    return all(member.meta.get(key) == value for key, value in selection.meta.items())


def describe(selection: Selection) -> str:
    """What `selection` asks for, to complete "none has ..."; empty: it asks for nothing."""
    parts = []
    if selection.tags:
        parts.append(f"the {'tag' if len(selection.tags) == 1 else 'tags'} {', '.join(selection.tags)}")
    if selection.meta:
        parts.append(f"{', '.join(f'{key}={value}' for key, value in selection.meta.items())} in its metadata")
    if selection.filter:
        parts.append(f"what the filter `{selection.filter}` asks for")
    return " and ".join(parts)
