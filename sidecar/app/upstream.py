"""One upstream put together: cluster and balancer, its members, who places its RPCs, where the app dials."""

from __future__ import annotations

import asyncio
import importlib
import logging
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sidecar.app.own_balancer import OwnBalancer
from sidecar.config.model import StaticEndpoint, UpstreamEntry
from sidecar.control.levels import Levels
from sidecar.control.registry import Registry
from sidecar.control.settings import RegistrySettings, Selection
from sidecar.control.static import StaticRegistry
from sidecar.control.watch import Watch
from sidecar.policy.balancer import Balancer
from sidecar.policy.builtin import BALANCERS
from sidecar.policy.cluster import Cluster
from sidecar.policy.judge import Classifier
from sidecar.policy.method import MethodTable, build_table, merged
from sidecar.policy.method_settings import MethodSettings
from sidecar.policy.route import Router
from sidecar.policy.service_config import parse_service_config
from sidecar.policy.settings import BalancingSettings
from sidecar.policy.snapshot import Member
from sidecar.proxy.dispatch import Dispatch
from sidecar.proxy.engine import Engine
from sidecar.proxy.health_checks import HealthChecks
from sidecar.proxy.listener import Listener
from sidecar.proxy.load_watch import LoadWatch
from sidecar.telemetry.metrics import ListenerMetrics, RegistryMetrics, UpstreamMetrics

if TYPE_CHECKING:
    from sidecar.proxy.gate import Gate

log = logging.getLogger("sidecar.app")


class Upstream:
    """A configured upstream. It ends with `retire` (a reload left it out) or with the process."""

    def __init__(
        self,
        engine: Engine,
        entry: UpstreamEntry,
        balancer: Balancer,
        zone: str = "",
        classifier: Classifier | None = None,
    ) -> None:
        self.engine = engine
        self.entry = entry
        name = entry.known_as
        self.cluster = Cluster(name, balancer, entry.balancing, own_zone(entry, zone))
        self.metrics = UpstreamMetrics(name)
        self.listener_metrics = ListenerMetrics(name)
        self.dispatch = Dispatch(engine, self.cluster, self.metrics, entry.connection, entry.limits, methods_of(entry))
        self.dispatch.ejector.reconfigure(entry.ejection, classifier)
        self.health = HealthChecks(self.dispatch, entry.health_check)
        self.load = LoadWatch(self.dispatch)
        self.listener = self.build_listener(entry.listen)
        self.seed = int(engine.rng.random() * 2**64)  # of its subsets: a reload moves nobody
        self._watches: list[asyncio.Task[None]] = []
        self._gate_made_of: object = None

    def build_listener(self, address: str | None) -> Listener:
        """A listener for this upstream, not yet bound."""
        return Listener(self.engine, self.dispatch, address or "", self.listener_metrics)

    def lead_on(self, upstreams: Mapping[str, Upstream]) -> None:
        """Whereto its routes and its mirror lead, now that every upstream is there; and what its RPCs pass."""
        entry, dispatch = self.entry, self.dispatch
        dispatches = {name: upstream.dispatch for name, upstream in upstreams.items()}
        dispatch.router = Router(entry.routes, dispatches) if entry.routes else None
        target = dispatches[entry.mirror.upstream] if entry.mirror is not None else None
        made_of = (entry.limits, entry.rate, entry.methods, entry.faults, entry.mirror, target)
        if made_of != self._gate_made_of:  # else it stays as it is, with all that it has learned
            self._gate_made_of = made_of
            dispatch.gate = self._build_gate(target)

    def _build_gate(self, target: Dispatch | None) -> Gate | None:
        """What RPCs pass beyond the plain caps; None when nothing of the kind is configured."""
        entry, dispatch, engine = self.entry, self.dispatch, self.engine
        limits, mirror = entry.limits, None
        rates = [entry.rate, *(method.rate for method in entry.methods.values())]
        if not any(rates) and limits.adaptive is None and not entry.faults and entry.mirror is None:
            return None
        # Few configure any of it, and nobody else waits for its imports.
        from sidecar.policy.admission import Admission
        from sidecar.policy.concurrency import Concurrency
        from sidecar.policy.fault import Faults
        from sidecar.proxy.gate import Gate
        from sidecar.proxy.mirror import Mirror

        adaptive = Concurrency(limits.adaptive, engine.rng) if limits.adaptive is not None else None
        faults = Faults(entry.faults, engine.clock())
        if entry.mirror is not None and target is not None:
            mirror = Mirror(entry.mirror, dispatch, target)
        for fault in faults.all:
            log.warning("%s: injects on purpose: %s", dispatch.name, fault)
        return Gate(dispatch, Admission(dispatch.name, adaptive), faults, mirror)

    def notes(self, now: float) -> tuple[str, ...]:
        """What its RPCs pass at present, in sentences for an operator."""
        gate, methods = self.dispatch.gate, self.dispatch.methods
        notes = list(gate.notes(now)) if gate is not None else []
        if methods is not None and methods.throttle is not None and methods.throttle.note:
            notes.append(methods.throttle.note)
        return tuple(notes)

    def follow(self, registry: Registry | None, settings: RegistrySettings, metrics: RegistryMetrics) -> None:
        """Take the membership from `registry`, or from the file's own endpoints, from now on."""
        self.forget()
        source = registry
        if self.entry.endpoints is not None:
            source = StaticRegistry([member_of(endpoint) for endpoint in self.entry.endpoints])
        if source is None:
            return
        service, discovery = self.entry.service, self.entry.discovery
        selections: tuple[Selection, ...] = (discovery, *discovery.failover)
        levels = Levels(self.cluster, len(selections), discovery.subset_size, self.seed).levels
        for level, selection in zip(levels, selections, strict=True):
            label = f"{level.name} (failover level {level.number})" if level.number else level.name
            watch = Watch(source, service, selection, level, settings, metrics=metrics, label=label)
            self._watches.append(asyncio.get_running_loop().create_task(watch.run()))

    @property
    def lacks_zone(self) -> bool:
        """Whether it is to look at zones and does not know its own."""
        return self.entry.balancing.zone_aware is not None and not self.cluster.zone

    def settle_in(self, zone: str) -> None:
        """The sidecar's own zone has been found out. One that is stated stays."""
        if not self.cluster.zone:
            self.cluster.reconfigure(self.cluster.balancer, self.entry.balancing, zone)

    def forget(self) -> None:
        """Stop asking the registry. The membership stays as it is."""
        for watch in self._watches:
            watch.cancel()
        self._watches = []

    def reconfigure(
        self,
        entry: UpstreamEntry,
        balancer: Balancer | None,
        zone: str = "",
        classifier: Classifier | None = None,
    ) -> None:
        """New settings; a new balancer starts with the endpoints and their counters as they are."""
        self.entry = entry
        self.cluster.reconfigure(balancer or self.cluster.balancer, entry.balancing, own_zone(entry, zone))
        self.dispatch.reconfigure(entry.connection, entry.limits, methods_of(entry))
        self.dispatch.ejector.reconfigure(entry.ejection, classifier)
        self.health.reconfigure(entry.health_check)
        self.load.reconfigure()

    def move(self, listener: Listener) -> Listener:
        """Listen there from now on; returns the former listener, whose connections live on."""
        former, self.listener = self.listener, listener
        former.stop()
        former.drain()
        return former

    @property
    def idle(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.dispatch.in_flight == 0 and not self.listener.connections

    def retire(self) -> None:
        """It is no longer configured: accept nothing new, let what runs finish."""
        self.forget()
        self.listener.stop()
        self.listener.drain()


# === from the file ===


def load_balancer(name: str, rng: random.Random, settings: BalancingSettings | None = None) -> Balancer:
    """A built-in balancer, or a user's class named `module:Class`. Raises ValueError with a sentence."""
    factory = BALANCERS.get(name)
    if factory is not None:
        return factory(rng, settings or BalancingSettings())
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise ValueError(f"balancer {name!r} cannot be loaded: {type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Balancer)):
        raise ValueError(f"balancer {name!r} is not a class that derives from sidecar.policy.balancer.Balancer")
    try:
        return OwnBalancer(found(), name)
    except Exception as error:
        raise ValueError(f"balancer {name!r} cannot be made without arguments: {error}") from error


def load_balancers(entries: Mapping[str, UpstreamEntry], rng: random.Random) -> tuple[dict[str, Balancer], list[str]]:
    """A balancer for each entry, and a sentence for each that cannot be had."""
    balancers: dict[str, Balancer] = {}
    problems: list[str] = []
    for name, entry in entries.items():
        try:
            balancers[name] = load_balancer(entry.balancer, rng, entry.balancing)
        except ValueError as error:
            problems.append(f"upstream {name}: {error}")
    return balancers, problems


def methods_of(entry: UpstreamEntry) -> MethodTable | None:
    """What `entry` sets by method. Its own sections hold for the methods that give none."""
    own = MethodSettings(**{name: getattr(entry, name) for name in MethodSettings.__struct_fields__})
    if entry.service_config is None:
        return build_table(own, entry.methods, entry.retry_budget, entry.retry_throttle)
    grpc = parse_service_config(entry.service_config)
    methods = dict(grpc.methods)
    for name, settings in entry.methods.items():  # what the file says itself goes before
        methods[name] = merged(methods.get(name, MethodSettings()), settings)
    return build_table(merged(grpc.own, own), methods, entry.retry_budget, entry.retry_throttle or grpc.throttle)


def member_of(endpoint: str | StaticEndpoint) -> Member:
    """An endpoint written in the file, as a member."""
    if isinstance(endpoint, str):
        return Member(address=endpoint)
    return Member(
        address=endpoint.address,
        weight=endpoint.weight,
        zone=endpoint.zone or endpoint.meta.get("zone", ""),
        priority=endpoint.priority,
        tags=endpoint.tags,
        meta=endpoint.meta,
    )


def own_zone(entry: UpstreamEntry, registered: str) -> str:
    """The sidecar's own zone as the upstream states it, else as the co-located service is `registered` with."""
    aware = entry.balancing.zone_aware
    return (aware.own if aware is not None else None) or registered
