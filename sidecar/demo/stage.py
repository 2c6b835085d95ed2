"""Everything that runs in the demo: the registry, the greeters, a sidecar for each, and one for the client.

Each sidecar is `sidecar run` with a configuration file of its own, as an operator would write it. Nothing of it
outlives the stage.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

import yaml

from sidecar.demo.admin import SERVICE, Admin
from sidecar.demo.process import Child, StageError, free_port, python
from sidecar.demo.registry import DemoRegistry

PATIENCE = 60.0  # seconds for anything that should take two, on a machine that is busy with other things
PROBE_INTERVAL = "500ms"  # how often a sidecar asks its greeter
PROPAGATION = "1s"  # how long `sidecar drain` waits for callers; they hear within 250 ms here

T = TypeVar("T")


class Instance:
    """One greeter and the sidecar that registers it."""

    def __init__(self, name: str, registry: DemoRegistry, directory: Path) -> None:
        self.name = name
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.admin_address = f"127.0.0.1:{free_port()}"
        service = {"name": SERVICE, "id": name, "address": "127.0.0.1", "port": self.port}
        check = {"grpc": {}, "interval": PROBE_INTERVAL, "failures": 2}
        config = {
            "service": {**service, "check": check},
            "registry": registry.settings,
            "admin": {"listen": self.admin_address},
            "drain": {"propagation": PROPAGATION},
            "log": {"format": "text"},
        }
        command = python("sidecar.demo.greeter", "--port", str(self.port), "--name", name)
        self.greeter = Child(name, command, directory / f"{name}.log")
        self.sidecar = sidecar_child(f"the sidecar of {name}", f"{name}-sidecar", config, directory)
        drain = python("sidecar", "drain", "--admin", self.admin_address)
        self.drain = Child(f"`sidecar drain` of {name}", drain, directory / f"{name}-drain.log")
        self.children = [self.drain, self.sidecar, self.greeter]

    def start(self) -> None:
        """Start both; the sidecar registers the greeter once it answers."""
        self.greeter.start()
        self.sidecar.start()

    async def end(self) -> None:
        """In order: out of the registry first. Raises StageError if one of them does not end well."""
        for child in (self.sidecar, self.greeter):
            running = child.running
            code = await child.end()
            if running and code != 0:
                raise StageError(f"{child.name} was told to end and did so with code {code}. {child.tail()}")

    async def close(self) -> None:
        """The same at the end of everything, when it no longer matters how they end."""
        for child in self.children:
            await child.end()


class Stage:
    """All of it. `open`, then whatever the script does, then `close`, in any case."""

    def __init__(self, registry: DemoRegistry, directory: Path) -> None:
        self.registry = registry
        self.directory = directory
        self.instances: dict[str, Instance] = {}
        self.app_address = f"127.0.0.1:{free_port()}"
        admin_address = f"127.0.0.1:{free_port()}"
        config = {
            "registry": registry.settings,
            "upstreams": [{"service": SERVICE, "listen": self.app_address, "balancer": "least_request"}],
            "admin": {"listen": admin_address},
            "log": {"format": "text"},
        }
        self.client = sidecar_child("the client's sidecar", "client-sidecar", config, directory)
        self.admin = Admin(admin_address)
        self._born = 0
        self._leaving: list[Instance] = []

    async def open(self, instances: int) -> None:
        """Start everything, and return once the client's sidecar has connected to every instance."""
        await self.registry.start()
        for _ in range(instances):
            self.add()
        self.client.start()
        await self.until(self.admin.ready, "the client's sidecar is ready")
        for name in self.instances:
            await self.until_pickable(name)

    def add(self) -> Instance:
        """One more instance."""
        self._born += 1
        instance = Instance(f"greeter-{self._born}", self.registry, self.directory)
        self.instances[instance.name] = instance
        instance.start()
        return instance

    async def remove(self, instance: Instance) -> None:
        """End what is left of it."""
        del self.instances[instance.name]
        self._leaving.append(instance)
        await instance.end()
        self._leaving.remove(instance)

    # === waiting ===

    async def until(
        self, condition: Callable[[], Awaitable[T]], what: str, patience: float = PATIENCE, pause: float = 0.02
    ) -> T:
        """Ask until the answer is true, and return it. Raises StageError, also when a process has ended meanwhile."""
        give_up_at = time.monotonic() + patience
        while not (answer := await condition()):
            self.check()
            if time.monotonic() > give_up_at:
                raise StageError(f"Not within {patience:g} s: {what}. The logs are in {self.directory}")
            await asyncio.sleep(pause)
        return answer

    async def until_pickable(self, name: str) -> float:
        """The instant at which RPCs could go to it."""

        async def pickable() -> bool:
            endpoint = (await self.admin.endpoints()).get(name)
            return endpoint is not None and endpoint.pickable

        await self.until(pickable, f"RPCs can go to {name}")
        return time.monotonic()

    async def until_out(self, name: str) -> float:
        """The instant at which it was known that none goes there any more."""

        async def out() -> bool:
            endpoint = (await self.admin.endpoints()).get(name)
            return endpoint is None or not endpoint.pickable

        await self.until(out, f"no RPC goes to {name} any more", pause=0.001)
        return time.monotonic()

    def check(self) -> None:
        """Raises StageError if something has ended that should run."""
        for child in self._children():
            child.check()

    # === the end ===

    def _children(self) -> list[Child]:
        everybody = [*self._leaving, *self.instances.values()]
        return [self.client, *(child for one in everybody for child in one.children), *self.registry.children]

    async def close(self) -> None:
        """End everything: the client's sidecar first, the registry last."""
        await self.admin.close()
        await self.client.end()
        await asyncio.gather(*(instance.close() for instance in [*self._leaving, *self.instances.values()]))
        for child in self.registry.children:
            await child.end()

    def kill(self) -> None:
        """End everything now."""
        for child in self._children():
            child.signal(signal.SIGKILL)


def sidecar_child(name: str, stem: str, config: Mapping[str, object], directory: Path) -> Child:
    """`sidecar run` with `config` in a file."""
    path = directory / f"{stem}.yaml"
    path.write_text(yaml.safe_dump(dict(config), sort_keys=False), "utf-8")
    return Child(name, python("sidecar", "run", "--config", str(path)), directory / f"{stem}.log")
