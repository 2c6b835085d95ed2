"""The registry of the configuration, and the co-located app's registration with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sidecar.config.model import Config
from sidecar.control.registry import Registry
from sidecar.control.settings import RegistrySettings
from sidecar.telemetry.metrics import RegistryMetrics

if TYPE_CHECKING:
    from sidecar.control.lease import Registrar

log = logging.getLogger("sidecar.app")


def build_registry(
    settings: RegistrySettings, environment: Mapping[str, str], metrics: RegistryMetrics
) -> tuple[Registry | None, str]:
    """The registry, and the host it is on (empty: this machine). Raises ValueError for an address that makes no sense.

    A registry's client is imported only when the configuration names it.
    """
    if settings.consul is not None:
        from sidecar.control.consul import ConsulRegistry
        from sidecar.control.consul_target import resolve_target

        address = resolve_target(settings.consul, environment).address
        return ConsulRegistry(settings.consul, environment, metrics), "" if address.socket else address.host
    if settings.file is not None:
        from sidecar.control.file import FileRegistry

        return FileRegistry(settings.file), ""
    return None, ""


class Registration:
    """The app's registration as a task. Without a service in the configuration it does nothing."""

    def __init__(
        self,
        config: Config,
        registry: Registry | None,
        host: str,
        environment: Mapping[str, str],
        metrics: RegistryMetrics,
    ):
        self.registrar: Registrar | None = None
        self._task: asyncio.Task[None] | None = None
        self._release: asyncio.Task[str] | None = None
        if config.service is not None:
            from sidecar.control.instance import instance_of
            from sidecar.control.lease import Registrar

            self.registrar = Registrar(
                registry,
                instance_of(config.service, host, environment),
                reconcile_interval=config.registry.reconcile_interval,
                metrics=metrics,
            )

    def start(self) -> None:
        """Probe, and register once the app answers."""
        if self.registrar is not None:
            self._task = asyncio.get_running_loop().create_task(self.registrar.run())

    async def release(self) -> str:
        """Deregister for good. What went wrong, or nothing. Who asks while it is under way waits for the same."""
        if self._release is None:
            self._release = asyncio.get_running_loop().create_task(self._deregister())
        return await asyncio.shield(self._release)

    async def _deregister(self) -> str:
        registrar, self.registrar = self.registrar, None
        if registrar is None:
            return ""
        gone = await registrar.release()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        return "" if gone else f"{registrar.instance.id} could not be deregistered; its check will expire by itself"
