"""What the admin room needs to know of the process, as a Protocol that the composition root implements.

Nothing here is kept between two requests: every answer is read at the moment it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from sidecar.policy.cluster import Cluster
from sidecar.telemetry.metrics import ListenerMetrics, ProcessMetrics, RegistryMetrics, UpstreamMetrics


class UpstreamView(Struct, frozen=True, kw_only=True):
    """One upstream: its members, its counters, and the address the app dials."""

    cluster: Cluster
    metrics: UpstreamMetrics
    notes: tuple[str, ...] = ()  # what its RPCs pass beyond the plain caps, in sentences
    listen: str  # as bound: with the port that the system chose, where the file says 0; empty: not dialled


class SidecarView(Protocol):
    """The sidecar as the admin API shows it and commands it."""

    def upstreams(self) -> Sequence[UpstreamView]:
        """Every upstream, in the order of the file."""
        ...

    def listener_metrics(self) -> Sequence[ListenerMetrics]:
        """The counters of every listener."""
        ...

    def registry_metrics(self) -> RegistryMetrics:
        """The counters of the registry."""
        ...

    def process_metrics(self) -> ProcessMetrics:
        """The counters of the process."""
        ...

    def readiness(self) -> Sequence[str]:
        """Why traffic should not be sent yet, or no longer, one sentence each; empty means ready."""
        ...

    def loop_alive(self) -> bool:
        """Whether the event loop keeps up. Never a question of upstreams or of the registry."""
        ...

    def config_dump(self) -> Mapping[str, object]:
        """The configuration in force, as plain JSON values, secrets already replaced."""
        ...

    def server_info(self) -> Mapping[str, object]:
        """What runs, as plain JSON values; at least version, python, codec, loop and compiled, all strings."""
        ...

    async def drain(self) -> Sequence[str]:
        """The first phase of the end (K3): deregister, then wait until callers have noticed.

        What went wrong, one sentence each; empty means that all went well. A second call joins the first.
        """
        ...

    async def reload(self) -> Sequence[str]:
        """Read the file again. Every mistake as a sentence; empty means that it is in force."""
        ...

    def set_log_level(self, level: str) -> None:
        """Raises ValueError, with the levels there are, for a word that is none."""
        ...

    def quit(self) -> None:
        """End in good order, as on SIGTERM. Returns at once."""
        ...

    def now(self) -> float:
        """The clock that clusters and endpoints are kept by (loop clock, seconds)."""
        ...
