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
