"""The registry of the demo: a real Consul agent where the program is there, otherwise a directory of leases.

Both can be started, asked who passes, and restarted without anything that they knew: the worst that a restart can do.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import NamedTuple

import aiohttp

from sidecar.demo.admin import SERVICE
from sidecar.demo.process import Child, StageError, free_port

AWAY = 2.0  # seconds that the agent is down in a restart, so that everybody notices
START_PATIENCE = 30.0  # seconds for an agent to elect itself
ANSWER_TIMEOUT = 2.0  # seconds for one answer
GRPC_TLS_SINCE = (1, 14)  # the first Consul with a second gRPC port, which is to be off as well
INSTALL = "On Debian scripts/install-consul installs it; elsewhere see https://developer.hashicorp.com/consul/install."


class Outage(NamedTuple):
    """When it went, when it was back, and what it was in words."""

    gone_at: float
    back_at: float
    sentence: str


class DemoRegistry(ABC):
    """What the script needs of a registry."""

    title: str
    children: list[Child]

    @property
    @abstractmethod
    def settings(self) -> dict[str, object]:
        """The section `registry` of a sidecar's configuration."""

    @abstractmethod
    async def start(self) -> None:
        """Return once it answers. Raises StageError."""

    @abstractmethod
    async def passing(self) -> set[str]:
        """The ids of the greeters that it calls passing; empty while it does not answer."""

    @abstractmethod
    async def restart(self) -> Outage:
        """Take away all that it knows."""


class ConsulRegistry(DemoRegistry):
    """`consul agent -dev` on free ports. It keeps everything in memory: a restart forgets all."""

    def __init__(self, program: str, directory: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.title = f"a Consul agent on http://{self.address}"
        ports = {"http": self.address.rpartition(":")[2], "dns": -1, "grpc": -1}
        ports |= {"server": free_port(), "serf-lan": free_port(), "serf-wan": free_port()}
        if consul_version(program) >= GRPC_TLS_SINCE:
            ports["grpc-tls"] = -1
        flags = [f"-{name}-port={port}" for name, port in ports.items()]
        command = [program, "agent", "-dev", "-bind=127.0.0.1", "-client=127.0.0.1", "-log-level=warn", *flags]
        self.agent = Child("the Consul agent", command, directory / "consul.log")
        self.children = [self.agent]

    @property
    def settings(self) -> dict[str, object]:
        return {"consul": {"address": self.address}}

    async def start(self) -> None:
        self.agent.start()
        give_up_at = time.monotonic() + START_PATIENCE
        while not await self._names("consul"):  # the agent registers itself once it has a leader
            self.agent.check()
            if time.monotonic() > give_up_at:
                raise StageError(f"the Consul agent has no leader after {START_PATIENCE:g}s. {self.agent.tail()}")
            await asyncio.sleep(0.05)

    async def passing(self) -> set[str]:
        return await self._names(SERVICE)

    async def _names(self, service: str) -> set[str]:
        url = f"http://{self.address}/v1/health/service/{service}?passing"
        timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
                entries = await response.json() if response.status == 200 else []
        except (aiohttp.ClientError, TimeoutError):
            return set()
        return {entry["Service"]["ID"] for entry in entries}

    async def restart(self) -> Outage:
        gone_at = time.monotonic()
        await self.agent.end()
        await asyncio.sleep(AWAY)
        await self.start()
        back_at = time.monotonic()
        sentence = (
            f"The Consul agent was ended and started again, without its data; it was away for {back_at - gone_at:.1f} s"
        )
        return Outage(gone_at, back_at, sentence)


class FileRegistry(DemoRegistry):
    """The embedded registry: a directory of leases that the sidecars share."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "registry"
        self.title = f"the directory of leases {self.root}"
        self.children = []

    @property
    def settings(self) -> dict[str, object]:
        return {"file": {"path": str(self.root)}}

    async def start(self) -> None:
        self.root.mkdir()

    async def passing(self) -> set[str]:
        passing = set()
        for path in (self.root / SERVICE).glob("*.json"):
            try:
                lease = json.loads(path.read_bytes())
            except FileNotFoundError:
                continue
            if lease["status"] == "passing":
                passing.add(str(lease["id"]))
        return passing

    async def restart(self) -> Outage:
        gone_at = time.monotonic()
        wiped = self.root.with_name("registry-wiped")
        self.root.rename(wiped)  # all at once, whoever writes there now
        shutil.rmtree(wiped)
        return Outage(gone_at, gone_at, "The directory of leases was wiped")


def consul_version(program: str) -> tuple[int, ...]:
    """Major and minor; (0, 0) if it does not say."""
    done = subprocess.run([program, "version"], capture_output=True, text=True, timeout=START_PATIENCE)
    found = re.search(r"v(\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def choose(wanted: str, directory: Path) -> DemoRegistry:
    """`auto`, `consul` or `file`. Raises StageError."""
    program = shutil.which("consul") if wanted != "file" else None
    if program is not None:
        return ConsulRegistry(program, directory)
    if wanted == "consul":
        raise StageError(f"The program `consul` is not on PATH, and --registry consul needs it. {INSTALL}")
    return FileRegistry(directory)
