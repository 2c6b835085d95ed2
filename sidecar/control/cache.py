"""The last good list of one service on disk, for a restart while the registry is down (RL-21).

One file per service and choice of instances, mode 0600, replaced whole. It is read once, at start, and only when the
registry does not answer. Losing it costs nothing but that, so trouble with it is logged and otherwise ignored.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from sidecar.control.settings import Selection
from sidecar.control.small_file import replace_file
from sidecar.policy.snapshot import SUSPECT, Member, Snapshot

log = logging.getLogger("sidecar.control")

MAX_AGE = 86_400.0  # seconds; older lists do more harm than good (SmartStack's state file 86,400)
FORMAT = 1


class CachedList(Struct, frozen=True, kw_only=True):
    """What stands in the file. `saved_at` is wall time in seconds."""

    format: int
    service: str
    saved_at: float
    members: tuple[Member, ...]


class MembershipCache:
    """The file of one watch."""

    def __init__(
        self,
        folder: str,
        registry: str,
        service: str,
        discovery: Selection,
        wall: Callable[[], float] = time.time,
    ) -> None:
        choice = hashlib.sha256(msgspec.json.encode((registry, discovery))).hexdigest()[:12]
        self.path = Path(folder) / f"{service}-{choice}.json"
        self.service = service
        self.wall = wall
        self._offered: Snapshot | None = None
        self._saving: asyncio.Task[None] | None = None
        self._trouble = ""

    def keep(self, snapshot: Snapshot) -> None:
        """Write the list soon, in a thread. The newest offer wins."""
        self._offered = snapshot
        if self._saving is None or self._saving.done():
            self._saving = asyncio.get_running_loop().create_task(self._save())

    async def settle(self) -> None:
        """Wait until what was offered is on disk."""
        if self._saving is not None:
            await self._saving

    async def _save(self) -> None:
        while self._offered is not None:
            snapshot, self._offered = self._offered, None
            members = tuple(member for member in snapshot.members if member.status != SUSPECT)
            content = CachedList(format=FORMAT, service=self.service, saved_at=self.wall(), members=members)
            try:
                await asyncio.to_thread(self._write, msgspec.json.encode(content))
                self._trouble = ""
            except OSError as error:
                self._complain(f"the list of {self.service} cannot be kept on disk at {self.path}: {error.strerror}")

    def _write(self, content: bytes) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self.path, content, durable=True)

    def load(self) -> tuple[Snapshot, float] | None:
        """The list and its age in seconds; None when there is none, or none that can be trusted."""
        try:
            cached = msgspec.json.decode(self.path.read_bytes(), type=CachedList)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            self._complain(f"the list of {self.service} at {self.path} cannot be used: {error}")
            return None
        age = max(0.0, self.wall() - cached.saved_at)
        if cached.format != FORMAT or cached.service != self.service or age > MAX_AGE or not cached.members:
            log.info("%s: the list on disk is %.0fs old or of another kind and is not used", self.service, age)
            return None
        return Snapshot(service=self.service, members=cached.members, source="cache"), age

    def _complain(self, sentence: str) -> None:
        """Say it once, until it changes."""
        if sentence != self._trouble:
            self._trouble = sentence
            log.warning(sentence, extra={"upstream": self.service})

    def __repr__(self) -> str:
        return f"<MembershipCache {self.path}>"
