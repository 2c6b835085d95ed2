"""The registry that is the configuration file: members that are written down, and never change until a reload."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from sidecar.control.registry import Health, Instance, Lease, Registry, RegistryError
from sidecar.control.selection import describe, takes
from sidecar.control.settings import Selection
from sidecar.policy.snapshot import Member, Snapshot


class StaticRegistry(Registry):
    """The members of one upstream. It speaks once."""

    name = "static"
    silence = None

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = tuple(members)

    async def register(self, instance: Instance, health: Health) -> Lease:
        """Nobody can register in a file that somebody wrote by hand."""
        raise RegistryError(
            f"{instance.settings.name} cannot be registered: the members are written in the configuration"
        )

    async def watch(self, service: str, discovery: Selection) -> AsyncIterator[Snapshot]:
        """The one snapshot, then silence. `tags` and `meta` are honoured; the rest of `discovery` is for registries."""
        members = tuple(member for member in self.members if takes(discovery, member))
        left_out = len(self.members) - len(members)
        wanted = describe(discovery)
        yield Snapshot(service=service, members=members, source=self.name, left_out=left_out, wanted=wanted)
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Nothing is open."""
