"""The sidecar as a whole: what a configuration becomes, what a reload changes of it, and the order in which it ends.

It implements the admin room's view of the process. A reload is prepared in full, and only then carried out: either all
of the new configuration is in force or none of it (RL-05), and no stream is cut.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import sys
from collections.abc import Mapping, Sequence

from sidecar import __version__
from sidecar.admin.access import AccessLog
from sidecar.admin.log import set_level
from sidecar.admin.server import AdminServer
from sidecar.admin.view import UpstreamView
from sidecar.app.own_classifier import load_classifiers
from sidecar.app.own_zone import OwnZone
from sidecar.app.registration import Registration, build_registry
from sidecar.app.reload import Reload
from sidecar.app.upstream import Upstream, load_balancers
from sidecar.config.model import Config
from sidecar.config.problem import ConfigErrors
from sidecar.config.redaction import dump
from sidecar.config.reload import ConfigSource
from sidecar.control.registry import Registry
from sidecar.http2.codec import codec_name, load_codec
from sidecar.proxy.drain import Drain
from sidecar.proxy.engine import Engine
from sidecar.proxy.listener import Listener
from sidecar.telemetry.metrics import ListenerMetrics, ProcessMetrics, RegistryMetrics, bump

log = logging.getLogger("sidecar.app")

POLL_INTERVAL = 2.0  # seconds between two looks at the configuration file: watchers miss a ConfigMap's symlink swap
HEARTBEAT = 0.25  # seconds between two measurements of the event loop's lag
# Objects alive in RPCs under way, before the collector looks for cycles. RPCs leave none; Python's 700 is a burst.
GC_THRESHOLD = 50_000
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
        self.ended = asyncio.Event()  # told to end
        self.hasty = asyncio.Event()  # told a second time
        self.drained = False  # deregistered on demand: a reload registers no more
        self._tasks: list[asyncio.Task[None]] = []
        self.retired: list[Upstream] = []
        self.former: list[Listener] = []  # listeners that moved; their connections live on
        self._drain_task: asyncio.Task[Sequence[str]] | None = None
        self._drain: Drain | None = None
        self._reloading = asyncio.Lock()
        self._beat_at = 0.0

        # Membership and registration: the control room's side.
        self.registry, self.registry_host = build_registry(config.registry, environment, self.registry_counters)
        self.registration = self.build_registration(config, self.registry, self.registry_host)
        self.own_zone = OwnZone(self)

        # The data path. The access log is its outermost ear: it hears what the caller saw.
        self.access = AccessLog(config.log)
        self.engine = Engine(
            loop=asyncio.get_running_loop(),
            codec_class=load_codec(config.http2.codec),
            http2=config.http2,
            buffers=config.buffers,
            overload=config.overload,
            metrics=self.process,
            rng=self.rng,
            log_rpc=self.access.rpc,
            log_from=self.access.lowest,
        )
        entries = {entry.known_as: entry for entry in config.upstreams}
        balancers, problems = load_balancers(entries, self.rng)
        classifiers, more = load_classifiers(entries)
        if problems or more:
            raise ValueError("\n".join(problems + more))
        self.by_name = {
            name: Upstream(self.engine, entry, balancers[name], config.zone, classifiers.get(name))
            for name, entry in entries.items()
        }
        for upstream in self.by_name.values():
            upstream.lead_on(self.by_name)

        # What it shows.
        self.admin = AdminServer(config.admin, self)

    def build_registration(self, config: Config, registry: Registry | None, host: str) -> Registration:
        """The app's registration as `config` wants it, not yet started."""
        return Registration(config, registry, host, self.environment, self.registry_counters)

    # === life ===

    async def start(self) -> None:
        """Bind everything, then follow the registry and register. Raises OSError for an address that is taken.

        What the app waits for comes first: its RPCs flow as soon as the members are known. The admin API is last.
        A reload that is asked for meanwhile waits.
        """
        async with self._reloading:
            await self._start()

    async def _start(self) -> None:
        for upstream in self.by_name.values():
            await upstream.listener.start()
        await self.admin.bind()
        for upstream in self.by_name.values():
            upstream.follow(self.registry, self.config.registry, self.registry_counters)
            if upstream.listener.bound:
                log.info("%s: the app dials %s", upstream.entry.known_as, upstream.listener.bound)
        self.registration.start()
        loop = asyncio.get_running_loop()
        self._beat_at = self.now()
        forever = (self._heartbeat(), self._poll_config(), self.own_zone.run())
        self._tasks = [loop.create_task(each) for each in forever]
        await self.admin.serve()
        gc.collect()
        gc.freeze()  # what lives as long as the process is never scanned again
        gc.set_threshold(GC_THRESHOLD)
        gc.enable()
        log.info("sidecar %s started: codec %s, admin %s", __version__, self.codec, self.admin.address or "off")

    async def stop(self) -> None:
        """End in order: out of the registry first, then the streams, then everything else (C4, RL-02)."""
        log.info("ending: deregistering, then finishing what runs, for up to %gs", self.config.drain.grace)
        await self._release_unless_hasty()
        for upstream in self.by_name.values():
            upstream.forget()
        everything = [*self.by_name.values(), *self.retired]
        self._drain = Drain(
            self.engine,
            [*(upstream.listener for upstream in everything), *self.former],
            [upstream.dispatch for upstream in everything],
        )
        if self.hasty.is_set():
            self._drain.hurry()
        cut = await self._drain.run(self.config.drain.grace)
        for task in self._tasks:
            task.cancel()
        await self.admin.close()
        if self.registry is not None:
            await self.registry.close()
        self.engine.close()
        self.access.flush()
        log.info("ended; %d RPC(s) had to be cut", cut)

    async def _release_unless_hasty(self) -> None:
        """Deregister; a registry that does not answer must not keep a second SIGTERM waiting."""
        loop = asyncio.get_running_loop()
        release, hasty = loop.create_task(self._release()), loop.create_task(self.hasty.wait())
        await asyncio.wait((release, hasty), return_when=asyncio.FIRST_COMPLETED)
        hasty.cancel()
        if release.done():
            if release.result():
                log.warning("%s", release.result())
        else:
            release.cancel()

    async def _release(self) -> str:
        """A reload that is under way comes first: it may be about to register."""
        async with self._reloading:
            return await self.registration.release()

    def quit(self) -> None:
        """The first time: end in order. The second time: do not wait for what runs."""
        if self.ended.is_set():
            self.hasty.set()
            if self._drain is not None:
                log.warning("told to end a second time: cutting what still runs")
                self._drain.hurry()
        self.ended.set()

    async def drain(self) -> Sequence[str]:
        """Deregister, then wait for the callers to notice; outbound goes on (K3). A second call joins the first."""
        self.drained = True
        if self._drain_task is None:
            self._drain_task = asyncio.get_running_loop().create_task(self._deregister())
        return await asyncio.shield(self._drain_task)

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
            self.engine.note_lag(max(0.0, self._beat_at - due_at))
            self._bury_retired()

    def _bury_retired(self) -> None:
        for upstream in [upstream for upstream in self.retired if upstream.idle]:
            self.retired.remove(upstream)
            upstream.dispatch.close("no longer configured")
        self.former = [listener for listener in self.former if listener.connections]

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
            try:
                problems = await self._reload()
            except Exception as error:
                log.exception("internal error in a reload")
                problems = [f"internal error: {type(error).__name__}: {error}"]
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
        if self.ended.is_set():
            return ["the sidecar is ending"]
        try:
            config = self.source.load()
        except ConfigErrors as errors:
            return [str(problem) for problem in errors.problems]
        change = Reload(self, config)
        problems = await change.prepare()
        if problems:
            await change.abandon()
        else:
            await change.commit()
        return problems

    # === the admin room's view ===

    @property
    def codec(self) -> str:
        """Which codec new connections get."""
        return codec_name(self.engine.codec_class)

    def upstreams(self) -> Sequence[UpstreamView]:
        """Every upstream, in the order of the file."""
        return [
            UpstreamView(
                cluster=upstream.cluster,
                metrics=upstream.metrics,
                notes=upstream.notes(self.now()),
                listen=upstream.listener.bound,
            )
            for upstream in self.by_name.values()
        ]

    def listener_metrics(self) -> Sequence[ListenerMetrics]:
        """The counters of every listener."""
        return [upstream.listener_metrics for upstream in self.by_name.values() if upstream.entry.listen]

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
        if self.drained:
            return ["the sidecar is drained: its service is deregistered"]
        return [
            upstream.cluster.explain().text for upstream in self.by_name.values() if not upstream.cluster.discovered
        ]

    def loop_alive(self) -> bool:
        """Whether the heartbeat is recent."""
        return self.now() - self._beat_at < LIVE_LIMIT

    def config_dump(self) -> Mapping[str, object]:
        """The configuration in force, secrets replaced."""
        return dump(self.config)

    def server_info(self) -> Mapping[str, object]:
        """What runs here."""
        import platform

        return {
            "version": __version__,
            "python": platform.python_version(),
            "codec": self.codec,
            "loop": type(self.engine.loop).__module__.partition(".")[0],
            "compiled": "no" if str(sys.modules[Engine.__module__].__file__).endswith(".py") else "yes",
            "config": self.source.path,
        }

    def set_log_level(self, level: str) -> None:
        """Raises ValueError for a word that is no level."""
        set_level(level)

    def now(self) -> float:
        """The clock of clusters and endpoints."""
        return self.engine.clock()
