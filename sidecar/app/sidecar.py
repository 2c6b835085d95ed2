"""The sidecar as a whole: what a configuration becomes, what a reload changes of it, and the order in which it ends.

It implements the admin room's view of the process. A reload is prepared in full, and only then carried out: either all
of the new configuration is in force or none of it (RL-05), and no stream is cut.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import platform
import random
from collections.abc import Mapping, Sequence

from sidecar import __version__
from sidecar.admin.access import AccessLog
from sidecar.admin.log import configure as configure_log
from sidecar.admin.log import set_level
from sidecar.admin.server import AdminServer
from sidecar.admin.view import UpstreamView
from sidecar.app.registration import Registration, build_registry
from sidecar.app.upstream import Upstream, load_balancers
from sidecar.build import build_facts
from sidecar.config.model import Config, UpstreamEntry
from sidecar.config.problem import ConfigErrors
from sidecar.config.redaction import dump
from sidecar.config.reload import ConfigSource
from sidecar.control.registry import Registry
from sidecar.http2.codec import codec_name, load_codec
from sidecar.policy.balancer import Balancer
from sidecar.proxy.drain import Drain
from sidecar.proxy.engine import Engine
from sidecar.proxy.listener import Listener
from sidecar.telemetry.metrics import ListenerMetrics, ProcessMetrics, RegistryMetrics, bump

log = logging.getLogger("sidecar.app")

POLL_INTERVAL = 2.0  # seconds between two looks at the configuration file: watchers miss a ConfigMap's symlink swap
HEARTBEAT = 0.25  # seconds between two measurements of the event loop's lag
LIVE_LIMIT = 5.0  # seconds without a heartbeat after which the loop counts as stuck (Kubernetes' probe period 10 s)


class Sidecar:
    """One process' worth of objects. `start`, then `ended` is awaited, then `stop`."""

    def __init__(self, source: ConfigSource, config: Config, environment: Mapping[str, str]) -> None:
        self.source = source
        self.config = config
        self.environment = environment
        self.rng = random.Random()
        self.process = ProcessMetrics()
        self.registry_counters = RegistryMetrics()
        self.ended = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._retired: list[Upstream] = []
        self._former: list[Listener] = []  # listeners that moved; their connections live on
        self._drained: asyncio.Task[Sequence[str]] | None = None
        self._drain: Drain | None = None
        self._reloading = asyncio.Lock()
        self._beat_at = 0.0

        # Membership and registration: the control room's side.
        self.registry, self.registry_host = build_registry(config.registry, environment, self.registry_counters)
        self.registration = self._build_registration(config)

        # The data path. The access log is its outermost ear: it hears what the caller saw.
        access = AccessLog(config.log)
        self.engine = Engine(
            loop=asyncio.get_running_loop(),
            codec_class=load_codec(config.http2.codec),
            http2=config.http2,
            buffers=config.buffers,
            metrics=self.process,
            rng=self.rng,
            log_rpc=access.rpc,
            log_from=access.lowest,
        )
        entries = {entry.service: entry for entry in config.upstreams}
        balancers, problems = load_balancers(entries, self.rng)
        if problems:
            raise ValueError("\n".join(problems))
        self.by_service = {
            service: Upstream(self.engine, entry, balancers[service]) for service, entry in entries.items()
        }

        # What it shows.
        self.admin = AdminServer(config.admin, self)

    def _build_registration(self, config: Config) -> Registration:
        return Registration(config, self.registry, self.registry_host, self.environment, self.registry_counters)

    # === life ===

    async def start(self) -> None:
        """Bind everything, then follow the registry and register. Raises OSError for an address that is taken."""
        for upstream in self.by_service.values():
            await upstream.listener.start()
        await self.admin.start()
        for upstream in self.by_service.values():
            upstream.follow(self.registry, self.config.registry, self.registry_counters)
            log.info("%s: the app dials %s", upstream.entry.service, upstream.listener.bound)
        self.registration.start()
        loop = asyncio.get_running_loop()
        self._beat_at = self.now()
        self._tasks = [loop.create_task(self._heartbeat()), loop.create_task(self._poll_config())]
        gc.collect()
        gc.freeze()  # what lives as long as the process is never scanned again
        log.info("sidecar %s started: codec %s, admin %s", __version__, self.codec, self.admin.address or "off")

    async def stop(self) -> None:
        """End in order: out of the registry first, then the streams, then everything else (C4, RL-02)."""
        log.info("ending: deregistering, then finishing what runs, for up to %gs", self.config.drain.grace)
        problem = await self.registration.release()
        if problem:
            log.warning("%s", problem)
        for upstream in self.by_service.values():
            upstream.forget()
        everything = [*self.by_service.values(), *self._retired]
        self._drain = Drain(
            self.engine,
            [*(upstream.listener for upstream in everything), *self._former],
            [upstream.dispatch for upstream in everything],
        )
        if self.ended_in_haste:
            self._drain.hurry()
        cut = await self._drain.run(self.config.drain.grace)
        for task in self._tasks:
            task.cancel()
        await self.admin.close()
        if self.registry is not None:
            await self.registry.close()
        self.engine.close()
        log.info("ended; %d RPC(s) had to be cut", cut)

    ended_in_haste = False

    def quit(self) -> None:
        """The first time: end in order. The second time: do not wait for what runs."""
        if self.ended.is_set():
            self.ended_in_haste = True
            if self._drain is not None:
                log.warning("told to end a second time: cutting what still runs")
                self._drain.hurry()
        self.ended.set()

    async def drain(self) -> Sequence[str]:
        """Deregister, then wait for the callers to notice; outbound goes on (K3). A second call joins the first."""
        if self._drained is None:
            self._drained = asyncio.get_running_loop().create_task(self._deregister())
        return await asyncio.shield(self._drained)

    async def _deregister(self) -> Sequence[str]:
        registered = self.registration.registrar is not None
        problem = await self.registration.release()
        if registered:
            log.info("draining: waiting %gs for callers to notice; outbound goes on", self.config.drain.propagation)
            await asyncio.sleep(self.config.drain.propagation)
        return [problem] if problem else []

    # === background ===

    async def _heartbeat(self) -> None:
        while True:
            due_at = self.now() + HEARTBEAT
            await asyncio.sleep(HEARTBEAT)
            self._beat_at = self.now()
            self.process.loop_lag.observe(max(0.0, self._beat_at - due_at))
            self._bury_retired()

    def _bury_retired(self) -> None:
        for upstream in [upstream for upstream in self._retired if upstream.idle]:
            self._retired.remove(upstream)
            upstream.dispatch.close("no longer configured")
        self._former = [listener for listener in self._former if listener.connections]

    async def _poll_config(self) -> None:
        while True:
            await asyncio.sleep(POLL_INTERVAL)
            if self.source.changed():
                log.info("%s has changed; reloading", self.source.path)
                await self.reload()

    # === reload ===

    async def reload(self) -> Sequence[str]:
        """Put the file's present content in force, or say everything that is wrong with it and change nothing."""
        async with self._reloading:
            problems = await self._reload()
        bump(self.process.config_reloads, "failure" if problems else "success")
        self.process.config_reload_success = not problems
        for problem in problems:
            log.error("reload refused: %s", problem)
        if problems:
            log.error("the former configuration stays in force")
        else:
            log.info("the configuration was reloaded")
        return problems

    async def _reload(self) -> Sequence[str]:
        try:
            config = self.source.load()
        except ConfigErrors as errors:
            return [str(problem) for problem in errors.problems]
        entries = {entry.service: entry for entry in config.upstreams}
        wanted = {service: entry for service, entry in entries.items() if self._needs_balancer(entry)}
        balancers, problems = load_balancers(wanted, self.rng)
        fresh, moved, more = await self._bind(entries, balancers)
        problems += more
        codec_class = self.engine.codec_class
        registry, host = self.registry, self.registry_host
        try:
            codec_class = load_codec(config.http2.codec)
            if config.registry != self.config.registry:
                registry, host = build_registry(config.registry, self.environment, self.registry_counters)
        except Exception as error:
            problems.append(str(error))
        if problems:
            for listener in [*(upstream.listener for upstream in fresh.values()), *moved.values()]:
                listener.stop()
            for upstream in fresh.values():
                upstream.dispatch.close("the reload was refused")
            return problems
        # Nothing can fail from here on.
        self.engine.codec_class = codec_class
        self.engine.reconfigure(config.http2, config.buffers)
        await self._replace_registry(config, registry, host)
        self._replace_upstreams(config, entries, balancers, fresh, moved)
        if config.log.level != self.config.log.level:
            set_level(config.log.level)
        for name in ("admin", "log"):
            if getattr(config, name) != getattr(self.config, name) and name == "admin":
                log.warning("a new admin address takes effect at the next start")
        self.config = config
        return []

    def _needs_balancer(self, entry: UpstreamEntry) -> bool:
        known = self.by_service.get(entry.service)
        return known is None or known.entry.balancer != entry.balancer

    async def _bind(
        self, entries: Mapping[str, UpstreamEntry], balancers: Mapping[str, Balancer]
    ) -> tuple[dict[str, Upstream], dict[str, Listener], list[str]]:
        """Bind what is new, before anything is given up: new upstreams, and listeners that move."""
        fresh: dict[str, Upstream] = {}
        moved: dict[str, Listener] = {}
        problems: list[str] = []
        for service, entry in entries.items():
            known = self.by_service.get(service)
            if known is None and service in balancers:
                fresh[service] = Upstream(self.engine, entry, balancers[service])
                listener = fresh[service].listener
            elif known is not None and known.entry.listen != entry.listen:
                listener = moved[service] = known.build_listener(entry.listen)
            else:
                continue
            try:
                await listener.start()
            except OSError as error:
                problems.append(str(error))
        return fresh, moved, problems

    async def _replace_registry(self, config: Config, registry: Registry | None, host: str) -> None:
        changed = registry is not self.registry
        if changed or config.service != self.config.service:
            await self.registration.release()
        if changed:
            former = self.registry
            self.registry, self.registry_host = registry, host
            for upstream in self.by_service.values():
                upstream.forget()
            if former is not None:
                await former.close()
        if (changed or config.service != self.config.service) and self._drained is None:
            self.registration = self._build_registration(config)
            self.registration.start()

    def _replace_upstreams(
        self,
        config: Config,
        entries: Mapping[str, UpstreamEntry],
        balancers: Mapping[str, Balancer],
        fresh: Mapping[str, Upstream],
        moved: Mapping[str, Listener],
    ) -> None:
        for service in [service for service in self.by_service if service not in entries]:
            retired = self.by_service.pop(service)
            retired.retire()
            self._retired.append(retired)
        refollow = config.registry != self.config.registry
        for service, entry in entries.items():
            upstream = self.by_service.get(service)
            if upstream is None:
                self.by_service[service] = fresh[service]
                fresh[service].follow(self.registry, config.registry, self.registry_counters)
                continue
            before = upstream.entry
            upstream.reconfigure(entry, balancers.get(service))
            if service in moved:
                self._former.append(upstream.move(moved[service]))
            if refollow or (before.endpoints, before.discovery) != (entry.endpoints, entry.discovery):
                upstream.follow(self.registry, config.registry, self.registry_counters)

    # === the admin room's view ===

    @property
    def codec(self) -> str:
        """Which codec new connections get."""
        return codec_name(self.engine.codec_class)

    def upstreams(self) -> Sequence[UpstreamView]:
        """Every upstream, in the order of the file."""
        return [
            UpstreamView(cluster=upstream.cluster, metrics=upstream.metrics, listen=upstream.listener.bound)
            for upstream in self.by_service.values()
        ]

    def listener_metrics(self) -> Sequence[ListenerMetrics]:
        """The counters of every listener."""
        return [upstream.listener_metrics for upstream in self.by_service.values()]

    def registry_metrics(self) -> RegistryMetrics:
        """The counters of the registry."""
        return self.registry_counters

    def process_metrics(self) -> ProcessMetrics:
        """The counters of the process."""
        return self.process

    def readiness(self) -> Sequence[str]:
        """A registry that never answered, or a drain; never an upstream without instances (P7)."""
        if self.ended.is_set():
            return ["the sidecar is ending"]
        if self._drained is not None:
            return ["the sidecar is drained: its service is deregistered"]
        return [
            upstream.cluster.explain().text for upstream in self.by_service.values() if not upstream.cluster.discovered
        ]

    def loop_alive(self) -> bool:
        """Whether the heartbeat is recent."""
        return self.now() - self._beat_at < LIVE_LIMIT

    def config_dump(self) -> Mapping[str, object]:
        """The configuration in force, secrets replaced."""
        return dump(self.config)

    def server_info(self) -> Mapping[str, object]:
        """What runs here."""
        facts = build_facts()
        return {
            "version": __version__,
            "python": platform.python_version(),
            "codec": self.codec,
            "loop": type(self.engine.loop).__module__.partition(".")[0],
            "compiled": "yes" if facts["compiled"] else "no",
            "config": self.source.path,
        }

    def set_log_level(self, level: str) -> None:
        """Raises ValueError for a word that is no level."""
        set_level(level)

    def now(self) -> float:
        """The clock of clusters and endpoints."""
        return self.engine.clock()


__all__ = ["Sidecar", "configure_log"]
