"""From the configuration in force to another one: prepared in full, then carried out, or given up without a trace.

Whatever can fail (binding an address, loading a balancer or a codec, an address that makes no sense) happens in
`prepare`; `commit` cannot fail. No stream is cut: what is left out finishes what it has (RL-05, K7).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sidecar.admin.log import set_level
from sidecar.app.own_classifier import load_classifiers
from sidecar.app.registration import Registration, build_registry
from sidecar.app.upstream import Upstream, load_balancers
from sidecar.config.model import Config, UpstreamEntry
from sidecar.http2.codec import load_codec
from sidecar.policy.balancer import Balancer
from sidecar.policy.judge import Classifier
from sidecar.proxy.listener import Listener

if TYPE_CHECKING:
    from sidecar.app.sidecar import Sidecar

log = logging.getLogger("sidecar.app")


class Reload:
    """One reload of one sidecar. Use it once: `prepare`, then `commit` or `abandon`."""

    def __init__(self, sidecar: Sidecar, config: Config) -> None:
        self.sidecar = sidecar
        self.config = config
        self.entries = {entry.known_as: entry for entry in config.upstreams}
        self.balancers: dict[str, Balancer] = {}
        self.classifiers: dict[str, Classifier] = {}
        self.fresh: dict[str, Upstream] = {}  # upstreams that are new, bound
        self.moved: dict[str, Listener] = {}  # new listeners of upstreams that stay, bound
        self.codec_class = sidecar.engine.codec_class
        self.registry, self.registry_host = sidecar.registry, sidecar.registry_host
        self.registration: Registration | None = None  # in place of the present one

    # === what can fail ===

    async def prepare(self) -> list[str]:
        """Make everything that is new. Every problem as a sentence; with any, call `abandon`."""
        wanted = {name: entry for name, entry in self.entries.items() if self._needs_balancer(entry)}
        self.balancers, problems = load_balancers(wanted, self.sidecar.rng)
        self.classifiers, more = load_classifiers(self.entries)
        problems += more
        for name, entry in self.entries.items():
            listener = self._new_listener(name, entry)
            if listener is not None:
                try:
                    await listener.start()
                except OSError as error:
                    problems.append(str(error))
        try:
            self.codec_class = load_codec(self.config.http2.codec)
            if self.config.registry != self.sidecar.config.registry:
                self.registry, self.registry_host = build_registry(
                    self.config.registry, self.sidecar.environment, self.sidecar.registry_counters
                )
            if self.registry is not self.sidecar.registry or self.config.service != self.sidecar.config.service:
                self.registration = self.sidecar.build_registration(self.config, self.registry, self.registry_host)
        except Exception as error:
            problems.append(str(error))
        return problems

    @property
    def _zone(self) -> str:
        """The sidecar's own: the registry's word holds until it gives another."""
        return self.config.zone or self.sidecar.own_zone.known

    def _needs_balancer(self, entry: UpstreamEntry) -> bool:
        known = self.sidecar.by_name.get(entry.known_as)
        if known is None:
            return True
        return (known.entry.balancer, known.entry.balancing) != (entry.balancer, entry.balancing)

    def _new_listener(self, name: str, entry: UpstreamEntry) -> Listener | None:
        known = self.sidecar.by_name.get(name)
        if known is None and name in self.balancers:
            classifier = self.classifiers.get(name)
            self.fresh[name] = Upstream(self.sidecar.engine, entry, self.balancers[name], self._zone, classifier)
            return self.fresh[name].listener
        if known is not None and known.entry.listen != entry.listen:
            self.moved[name] = known.build_listener(entry.listen)
            return self.moved[name]
        return None

    async def abandon(self) -> None:
        """Give everything back that was made, and cut who has dialled it meanwhile."""
        for listener in [*(upstream.listener for upstream in self.fresh.values()), *self.moved.values()]:
            listener.abort()
        for upstream in self.fresh.values():
            upstream.dispatch.close("the reload was refused")
        if self.registry is not None and self.registry is not self.sidecar.registry:
            await self.registry.close()

    # === what cannot ===

    async def commit(self) -> None:
        """Put it in force."""
        sidecar, config = self.sidecar, self.config
        sidecar.engine.codec_class = self.codec_class
        sidecar.engine.reconfigure(config.http2, config.buffers, config.overload)
        await self._replace_registry()
        former = self._take_out()
        for name, entry in self.entries.items():
            self._put_in_force(name, entry)
        for upstream in sidecar.by_name.values():
            upstream.lead_on(sidecar.by_name)
        for upstream in former:
            upstream.retire()
        if config.log.level != sidecar.config.log.level:
            set_level(config.log.level)
        if config.admin != sidecar.config.admin:
            log.warning("the new admin address takes effect at the next start")
        if (config.log.format, config.log.access) != (sidecar.config.log.format, sidecar.config.log.access):
            log.warning("the new log.format and log.access take effect at the next start")
        sidecar.config = config

    async def _replace_registry(self) -> None:
        sidecar = self.sidecar
        if self.registration is None:
            return
        await sidecar.registration.release()
        if self.registry is not sidecar.registry:
            for upstream in sidecar.by_name.values():
                upstream.forget()
            former, sidecar.registry = sidecar.registry, self.registry
            sidecar.registry_host = self.registry_host
            if former is not None:
                await former.close()
        if not sidecar.drained and not sidecar.ended.is_set():
            sidecar.registration = self.registration
            sidecar.registration.start()

    def _take_out(self) -> list[Upstream]:
        """The upstreams that are no longer configured. They retire once no route leads to them any more."""
        by_name = self.sidecar.by_name
        former = [by_name.pop(name) for name in list(by_name) if name not in self.entries]
        self.sidecar.retired += former
        return former

    def _put_in_force(self, name: str, entry: UpstreamEntry) -> None:
        sidecar = self.sidecar
        upstream = sidecar.by_name.get(name)
        if upstream is None:
            upstream = sidecar.by_name[name] = self.fresh[name]
            refollow = True
        else:
            before = upstream.entry
            classifier = self.classifiers.get(name)
            upstream.reconfigure(entry, self.balancers.get(name), self._zone, classifier)
            if name in self.moved:
                sidecar.former.append(upstream.move(self.moved[name]))
            refollow = _members_of(before) != _members_of(entry)
        if refollow or self.config.registry != sidecar.config.registry:
            upstream.follow(sidecar.registry, self.config.registry, sidecar.registry_counters)


def _members_of(entry: UpstreamEntry) -> object:
    """What decides who an upstream's members are."""
    return entry.service, entry.endpoints, entry.discovery
