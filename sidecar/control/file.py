"""The registry that is a directory: one small JSON lease per instance, shared by the sidecars of one machine.

    <path>/<service>/<id>.json

A lease lives as long as its file changes at least every `ttl`: each renewal replaces it. Readers measure that on
their own monotonic clock and use the file's time stamp only at first sight, so a jump of the wall clock expires
nothing. Leases that have been dead for long are removed by whoever registers next. No daemon, no lock.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import quote

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from sidecar.control.registry import Health, Instance, Lease, Registry, RegistryError, UnknownRegistration
from sidecar.control.selection import describe, takes
from sidecar.control.settings import FileSettings, Selection
from sidecar.control.small_file import replace_file
from sidecar.policy.snapshot import PASSING, WARNING, Member, Snapshot

log = logging.getLogger("sidecar.control")

RENEWALS_PER_TTL = 3  # one may be lost and one late
CONFIRM_INTERVAL = 5.0  # seconds after which an unchanged list is said again: a sign of life
SILENCE = 3 * CONFIRM_INTERVAL
LOCAL = "127.0.0.1"  # what an instance without an address is reached at: the directory is on its machine


class LeaseFile(Struct, frozen=True, kw_only=True):
    """What stands in a lease."""

    service: str
    id: str
    address: str
    port: int
    status: str
    output: str = ""
    tags: tuple[str, ...] = ()
    meta: dict[str, str] = {}
    weight_passing: int = 1
    weight_warning: int = 1
    renewals: int = 0  # makes each renewal another file


class FileRegistry(Registry):
    """A directory of leases."""

    name = "file"
    silence = SILENCE

    def __init__(
        self,
        settings: FileSettings,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.root = Path(settings.path)
        self.clock = clock
        self.wall = wall

    def folder(self, service: str) -> Path:
        """Where the leases of a service are."""
        return self.root / quote(service, safe="")

    async def register(self, instance: Instance, health: Health) -> FileLease:
        """Write the lease; remove ghosts and what has been dead for long."""
        lease = FileLease(self, instance)
        try:
            lease.path.parent.mkdir(parents=True, exist_ok=True)
            lease.write(health)
            self._tidy(lease)
        except OSError as error:
            raise RegistryError(f"the lease {lease.path} cannot be written: {error.strerror or error}") from None
        return lease

    def _tidy(self, lease: FileLease) -> None:
        """Remove leases at our address under another id, and those that have not changed for a long time."""
        instance = lease.instance
        place = (instance.address or LOCAL, instance.settings.port)
        for path in sorted(lease.path.parent.glob("*.json")):
            if path == lease.path:
                continue
            try:
                age = self.wall() - path.stat().st_mtime
                other = msgspec.json.decode(path.read_bytes(), type=LeaseFile)
            except (FileNotFoundError, msgspec.DecodeError):
                continue
            if (other.address, other.port) == place or age > instance.settings.check.deregister_after:
                path.unlink(missing_ok=True)
                log.info("removed the dead lease %s", other.id, extra={"service": other.service})

    async def watch(self, service: str, discovery: Selection) -> AsyncIterator[Snapshot]:
        """Look at the directory every `poll_interval`; say what changed, and now and then that nothing did."""
        if discovery.filter:
            raise RegistryError(f"{service}: the file registry knows no filter expressions; use tags")
        reader = FolderReader(self, service)
        last: Snapshot | None = None
        said_at = 0.0
        while True:
            snapshot = reader.read(discovery)
            now = self.clock()
            if last is None or snapshot.members != last.members or now - said_at >= CONFIRM_INTERVAL:
                last, said_at = snapshot, now
                yield snapshot
            await asyncio.sleep(self.settings.poll_interval)

    async def close(self) -> None:
        """Nothing is open."""

    def __repr__(self) -> str:
        return f"<FileRegistry {self.root}>"


class FileLease(Lease):
    """One file, replaced by each renewal."""

    def __init__(self, registry: FileRegistry, instance: Instance) -> None:
        self.registry = registry
        self.instance = instance
        self.path = registry.folder(instance.settings.name) / f"{quote(instance.id, safe='')}.json"
        self.renew_interval = registry.settings.ttl / RENEWALS_PER_TTL
        settings = instance.settings
        self._content = LeaseFile(
            service=settings.name,
            id=instance.id,
            address=instance.address or LOCAL,
            port=settings.port,
            status="critical",
            tags=settings.tags,
            meta=settings.meta,
            weight_passing=settings.weights.passing,
            weight_warning=settings.weights.warning,
        )

    def write(self, health: Health) -> None:
        """Replace the file. Raises OSError."""
        self._content = replace(
            self._content, status=health.status, output=health.output, renewals=self._content.renewals + 1
        )
        replace_file(self.path, msgspec.json.encode(self._content))

    async def renew(self, health: Health) -> None:
        """Replace the lease, unless somebody has removed it."""
        self._look()
        try:
            self.write(health)
        except OSError as error:
            raise RegistryError(f"the lease {self.path} cannot be renewed: {error.strerror or error}") from None

    async def verify(self) -> None:
        """Read the lease back."""
        if self._look() != self._content:
            raise UnknownRegistration(f"the lease {self.path} is not what was written")

    def _look(self) -> LeaseFile:
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=LeaseFile)
        except FileNotFoundError:
            raise UnknownRegistration(f"the lease {self.path} has been removed") from None
        except msgspec.DecodeError as error:
            raise UnknownRegistration(f"the lease {self.path} is corrupt: {error}") from None
        except OSError as error:
            raise RegistryError(f"the lease {self.path} cannot be read: {error.strerror or error}") from None

    async def release(self) -> None:
        """Remove the file."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise RegistryError(f"the lease {self.path} cannot be removed: {error.strerror or error}") from None

    def __repr__(self) -> str:
        return f"<FileLease {self.path}>"


class SeenFile(Struct):
    """What a reader remembers of a file: its identity, when it last changed on the reader's clock, its content."""

    stamp: tuple[int, int]
    changed_at: float
    lease: LeaseFile | None


class FolderReader:
    """The leases of one service as one watcher sees them. Unchanged files are not read again."""

    def __init__(self, registry: FileRegistry, service: str) -> None:
        self.registry = registry
        self.service = service
        self.folder = registry.folder(service)
        self._seen: dict[str, SeenFile] = {}

    def read(self, discovery: Selection) -> Snapshot:
        """The members as of now. A folder that does not exist is a service without instances."""
        now = self.registry.clock()
        try:
            paths = list(self.folder.glob("*.json"))
            self._seen = {path.name: seen for path in paths if (seen := self._look(path, now)) is not None}
        except OSError as error:
            raise RegistryError(f"the leases in {self.folder} cannot be read: {error.strerror or error}") from None
        good = (PASSING,) if discovery.passing_only else (PASSING, WARNING)
        members: dict[str, Member] = {}
        left_out = 0
        for seen in self._seen.values():
            lease = seen.lease
            if lease is None or now - seen.changed_at > self.registry.settings.ttl:
                continue
            if lease.status in good:
                member = member_of(lease)
                if takes(discovery, member):
                    members[member.address] = member
                else:
                    left_out += 1
        ordered = tuple(members[address] for address in sorted(members))
        wanted = describe(discovery)
        return Snapshot(service=self.service, members=ordered, source="file", left_out=left_out, wanted=wanted)

    def _look(self, path: Path, now: float) -> SeenFile | None:
        """The file as it is now; None when it vanished meanwhile."""
        try:
            status = path.stat()
            stamp = (status.st_ino, status.st_mtime_ns)
            known = self._seen.get(path.name)
            if known is not None and known.stamp == stamp:
                return known
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        # At first sight only the wall clock can tell how old it is; a time stamp from the future counts as now.
        age = max(0.0, self.registry.wall() - status.st_mtime) if known is None else 0.0
        try:
            lease = msgspec.json.decode(content, type=LeaseFile)
        except msgspec.DecodeError as error:
            log.warning("skipped the corrupt lease %s: %s", path, error, extra={"service": self.service})
            return SeenFile(stamp, now - age, None)
        return SeenFile(stamp, now - age, lease)


def member_of(lease: LeaseFile) -> Member:
    """A lease as a member."""
    host = f"[{lease.address}]" if ":" in lease.address else lease.address
    return Member(
        address=f"{host}:{lease.port}",
        id=lease.id,
        status=lease.status,
        weight=lease.weight_warning if lease.status == WARNING else lease.weight_passing,
        zone=lease.meta.get("zone", ""),
        tags=lease.tags,
        meta=lease.meta,
    )
