"""The registry that is a directory: leases appear, change, expire and are released, seen by several processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.control.file import CONFIRM_INTERVAL, FileRegistry, FolderReader
from sidecar.control.registry import Health, Instance, RegistryError, UnknownRegistration
from sidecar.control.settings import DiscoverySettings, FileSettings, ServiceSettings, WeightSettings
from sidecar.policy.snapshot import Snapshot
from tests.control.waiting import eventually

ALL = DiscoverySettings()
WELL = Health(status="passing", output="all is well")
ILL = Health(status="critical", output="out of memory")


class Clock:
    """Time that the test moves: what a monotonic clock says, and what the wall says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Scene:
    """A registry in a folder, with the test's own clocks."""

    def __init__(self, folder: Path, ttl: float = 3.0) -> None:
        self.clock = Clock()
        self.wall_ahead = 0.0
        self.registry = FileRegistry(
            FileSettings(path=str(folder), ttl=ttl, poll_interval=0.01),
            self.clock,
            lambda: self._newest() + self.wall_ahead,
        )
        self.folder = folder

    def _newest(self) -> float:
        """Wall time in which nothing passes between writing and looking, but for what the test adds."""
        return max((path.stat().st_mtime for path in self.folder.rglob("*.json")), default=0.0)

    def reader(self) -> FolderReader:
        return FolderReader(self.registry, "orders")


def instance(identity: str, port: int, **more: object) -> Instance:
    settings = ServiceSettings(name="orders", port=port, **more)  # type: ignore[arg-type]
    return Instance(id=identity, address="127.0.0.1", settings=settings)


def addresses(snapshot: Snapshot) -> list[str]:
    return [member.address for member in snapshot.members]


def test_a_lease_is_seen_until_it_is_released(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    reader = scene.reader()
    assert addresses(reader.read(ALL)) == []
    lease = asyncio.run(scene.registry.register(instance("a", 1), WELL))
    assert addresses(reader.read(ALL)) == ["127.0.0.1:1"]
    asyncio.run(lease.verify())
    asyncio.run(lease.release())
    assert addresses(reader.read(ALL)) == []
    asyncio.run(lease.release())  # already gone is fine


def test_a_lease_that_is_not_renewed_expires_and_a_renewal_brings_it_back(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ttl=3)
    reader = scene.reader()
    lease = asyncio.run(scene.registry.register(instance("a", 1), WELL))
    assert lease.renew_interval == 1
    reader.read(ALL)
    scene.clock.now += 3.0
    assert addresses(reader.read(ALL)) == ["127.0.0.1:1"]
    scene.clock.now += 0.1
    assert addresses(reader.read(ALL)) == []
    asyncio.run(lease.renew(WELL))
    assert addresses(reader.read(ALL)) == ["127.0.0.1:1"]


def test_a_lease_that_was_dead_before_we_looked_is_dead(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    asyncio.run(scene.registry.register(instance("a", 1), WELL))
    scene.wall_ahead = 10
    assert addresses(scene.reader().read(ALL)) == []


@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_a_jump_of_the_wall_clock_expires_nothing(tmp_path: Path, jump: float) -> None:
    scene = Scene(tmp_path)
    reader = scene.reader()
    asyncio.run(scene.registry.register(instance("a", 1), WELL))
    reader.read(ALL)
    scene.wall_ahead = jump
    scene.clock.now += 1
    assert addresses(reader.read(ALL)) == ["127.0.0.1:1"]


def test_critical_is_out_and_warning_has_its_weight(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    reader = scene.reader()
    lease = asyncio.run(scene.registry.register(instance("a", 1, weights=WeightSettings(passing=9, warning=2)), WELL))
    assert reader.read(ALL).members[0].weight == 9
    asyncio.run(lease.renew(Health(status="warning", output="slow")))
    assert [(m.status, m.weight) for m in reader.read(ALL).members] == [("warning", 2)]
    assert addresses(reader.read(DiscoverySettings(passing_only=True))) == []
    asyncio.run(lease.renew(ILL))
    assert addresses(reader.read(ALL)) == []


def test_tags_choose_and_meta_arrives(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    asyncio.run(scene.registry.register(instance("a", 1, tags=("v1", "eu"), meta={"zone": "z1"}), WELL))
    asyncio.run(scene.registry.register(instance("b", 2, tags=("v2",)), WELL))
    (member,) = scene.reader().read(DiscoverySettings(tags=("v1",))).members
    assert (member.id, member.zone, member.meta) == ("a", "z1", {"zone": "z1"})


def test_metadata_chooses_and_who_lacks_it_is_counted(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    for name, port, meta in (("a", 1, {"version": "v1"}), ("b", 2, {"version": "v2", "x": "y"}), ("c", 3, {})):
        asyncio.run(scene.registry.register(instance(name, port, meta=meta), WELL))
    found = scene.reader().read(DiscoverySettings(meta={"version": "v2"}))
    assert (addresses(found), found.left_out) == (["127.0.0.1:2"], 2)
    assert found.wanted == "version=v2 in its metadata"


@pytest.mark.parametrize("content", [b"", b"{", b'{"service": 1}', b"\xff\xfe", b"[]"])
def test_a_corrupt_lease_is_skipped_with_its_name_and_the_others_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    scene = Scene(tmp_path)
    reader = scene.reader()
    asyncio.run(scene.registry.register(instance("a", 1), WELL))
    (tmp_path / "orders" / "broken.json").write_bytes(content)
    assert addresses(reader.read(ALL)) == ["127.0.0.1:1"]
    assert addresses(reader.read(ALL)) == ["127.0.0.1:1"]
    assert sum("broken.json" in record.message for record in caplog.records) == 1, "said once"


def test_ghosts_and_the_long_dead_are_removed_by_whoever_registers(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    asyncio.run(scene.registry.register(instance("ghost", 1), WELL))
    asyncio.run(scene.registry.register(instance("neighbour", 2), WELL))
    asyncio.run(scene.registry.register(instance("a", 1), WELL))
    assert sorted(path.name for path in (tmp_path / "orders").iterdir()) == ["a.json", "neighbour.json"]
    scene.wall_ahead = 61
    asyncio.run(scene.registry.register(instance("b", 3), WELL))
    assert "neighbour.json" not in {path.name for path in (tmp_path / "orders").iterdir()}


@pytest.mark.parametrize("harm", ["removed", "corrupt", "changed"])
def test_a_harmed_lease_says_so(tmp_path: Path, harm: str) -> None:
    scene = Scene(tmp_path)
    lease = asyncio.run(scene.registry.register(instance("a", 1), WELL))
    if harm == "removed":
        lease.path.unlink()
    elif harm == "corrupt":
        lease.path.write_text("{")
    else:
        lease.path.write_bytes(lease.path.read_bytes().replace(b'"port":1', b'"port":2'))
    with pytest.raises(UnknownRegistration):
        asyncio.run(lease.verify())


def test_a_renewal_of_a_removed_lease_asks_to_register_again(tmp_path: Path) -> None:
    lease = asyncio.run(Scene(tmp_path).registry.register(instance("a", 1), WELL))
    lease.path.unlink()
    with pytest.raises(UnknownRegistration, match="has been removed"):
        asyncio.run(lease.renew(WELL))
    assert not lease.path.exists()


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    registry = FileRegistry(FileSettings(path=str(tmp_path / "taken")))
    with pytest.raises(RegistryError, match=r"taken.* cannot be written"):
        asyncio.run(registry.register(instance("a", 1), WELL))


def test_an_id_with_slashes_stays_inside_the_directory(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "leases")
    asyncio.run(scene.registry.register(instance("../../escape", 1), WELL))
    assert [path.parent for path in tmp_path.rglob("*.json")] == [tmp_path / "leases" / "orders"]


def test_a_filter_expression_is_refused_in_words(tmp_path: Path) -> None:
    async def body() -> None:
        await anext(Scene(tmp_path).registry.watch("orders", DiscoverySettings(filter="x == y")))

    with pytest.raises(RegistryError, match="knows no filter expressions"):
        asyncio.run(body())


def test_a_watch_says_each_change_once_and_confirms_now_and_then(tmp_path: Path) -> None:
    async def body() -> None:
        scene = Scene(tmp_path, ttl=1e6)
        watch = scene.registry.watch("orders", ALL)
        assert addresses(await anext(watch)) == []
        change = asyncio.ensure_future(anext(watch))
        await scene.registry.register(instance("a", 1), WELL)
        assert addresses(await change) == ["127.0.0.1:1"]
        confirmation = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        assert not confirmation.done()
        scene.clock.now += CONFIRM_INTERVAL
        assert addresses(await confirmation) == ["127.0.0.1:1"]

    asyncio.run(body())


OTHER_PROCESS = """
import asyncio, sys
from sidecar.control.file import FileRegistry
from sidecar.control.registry import Health, Instance
from sidecar.control.settings import FileSettings, ServiceSettings

async def main(folder, port):
    registry = FileRegistry(FileSettings(path=folder, ttl=0.5))
    health = Health(status="passing", output="from another process")
    settings = ServiceSettings(name="orders", port=int(port))
    lease = await registry.register(Instance(id=f"other-{port}", address="127.0.0.1", settings=settings), health)
    print("registered", flush=True)
    while True:
        await asyncio.sleep(lease.renew_interval / 4)
        await lease.renew(health)

asyncio.run(main(*sys.argv[1:]))
"""


@contextlib.asynccontextmanager
async def another_process(folder: Path, port: int) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A process that registers an instance and renews it until it is killed."""
    arguments = [sys.executable, "-c", OTHER_PROCESS, str(folder), str(port)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, env=environment) as process:
        try:
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline) == b"registered\n"
            yield process
        finally:
            process.kill()


def test_two_processes_share_a_directory_and_one_that_is_killed_expires(tmp_path: Path) -> None:
    async def body() -> None:
        registry = FileRegistry(FileSettings(path=str(tmp_path), ttl=0.5, poll_interval=0.02))
        seen: list[list[str]] = []

        async def follow() -> None:
            async for snapshot in registry.watch("orders", ALL):
                seen.append(addresses(snapshot))

        follower = asyncio.ensure_future(follow())
        async with another_process(tmp_path, 1) as doomed, another_process(tmp_path, 2):
            both = ["127.0.0.1:1", "127.0.0.1:2"]
            await eventually(lambda: seen and seen[-1] == both, "both are seen")
            doomed.send_signal(signal.SIGKILL)
            await eventually(lambda: seen[-1] == ["127.0.0.1:2"], "the killed one expires, the other one stays")
        await eventually(lambda: seen[-1] == [], "the second one expires too")
        follower.cancel()
        await asyncio.gather(follower, return_exceptions=True)

    asyncio.run(body())
