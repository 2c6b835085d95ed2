"""The seam of the registries: what one must do. One file per registry implements it; the proxy never sees it.

A registry raises `RegistryError` for everything that is the registry's trouble (down, refused, garbage), with
a sentence that an operator understands; anything else is our bug.
"""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator

from msgspec import Struct

from sidecar.control.settings import Selection, ServiceSettings
from sidecar.policy.snapshot import Snapshot


class RegistryError(Exception):
    """The registry could not be asked or gave an answer that makes no sense."""


class RegistryDenied(RegistryError):
    """The registry is up and refuses: a token is missing, wrong or too weak. Trying again soon is no help (SE-44)."""


class UnknownRegistration(RegistryError):
    """The registry does not know the registration (restarted, wiped, expired): register again."""


class Instance(Struct, frozen=True, kw_only=True):
    """The registration as it should be. An empty `address` is the one that the registry knows this machine by."""

    id: str
    address: str
    settings: ServiceSettings


class Health(Struct, frozen=True, kw_only=True):
    """What a probe of the app came to. `status` is passing, warning or critical; `output` says why."""

    status: str
    output: str


class Lease(abc.ABC):
    """Our registration. It is acquired by `Registry.register`, kept by `renew`, ended by `release`.

    `renew_interval` is the longest time in seconds between two renewals; infinite where the registry probes by itself.
    """

    renew_interval: float = float("inf")

    @abc.abstractmethod
    async def renew(self, health: Health) -> None:
        """Report the app's health. Raises `UnknownRegistration` when the registry has forgotten us."""

    @abc.abstractmethod
    async def verify(self) -> None:
        """Compare the registry's entry with ours. Raises `UnknownRegistration` when it is missing or differs."""

    @abc.abstractmethod
    async def release(self) -> None:
        """Deregister. Callers stop picking us once their watches have seen it."""


class Registry(abc.ABC):
    """A place where services are registered and found.

    `name` is what snapshots call their source. `silence` is how many seconds `watch` may yield nothing before it must
    be taken for dead; None: it speaks once and that is all.
    """

    name: str
    silence: float | None = None

    @abc.abstractmethod
    async def register(self, instance: Instance, health: Health) -> Lease:
        """Register with `health` as the first verdict. Remove ghosts: our entries at this address under another id."""

    @abc.abstractmethod
    def watch(self, service: str, discovery: Selection) -> AsyncIterator[Snapshot]:
        """Full memberships, the first one at once, then one per change. Yielding the same list again confirms it.

        Raises `RegistryError`; the caller backs off and calls again. It ends only by being closed.
        """

    async def locate(self) -> str:
        """The zone that the registry knows this machine to be in; empty: it knows none. Raises `RegistryError`."""
        return ""

    @abc.abstractmethod
    async def close(self) -> None:
        """Give back connections. Registrations stay."""
