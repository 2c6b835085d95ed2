"""A membership kept true: a registry's answers in, `apply` and `note_registry` of a book of members out.

One task per upstream and level. What is believed is decided by `policy.Membership`; here is the waiting: for the
registry, for changes to gather, for a moment to try again. The last good list stays through every failure (RL-21).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from sidecar.control.registry import Registry, RegistryDenied, RegistryError
from sidecar.control.settings import RegistrySettings, Selection
from sidecar.policy.backoff import FULL, Backoff
from sidecar.policy.balancer import Rng
from sidecar.policy.cluster import Change
from sidecar.policy.membership import HELD, Decision, Membership
from sidecar.policy.snapshot import Snapshot
from sidecar.telemetry.metrics import RegistryMetrics, bump

if TYPE_CHECKING:
    from sidecar.control.cache import MembershipCache

log = logging.getLogger("sidecar.control")

COALESCE = 0.1  # seconds: changes closer together are applied as one (Envoy merges host updates within 1 s)
START_JITTER = 0.5  # seconds over which the first questions of a thousand sidecars are spread (RL-26)
CACHE_AFTER = 1.0  # seconds without an answer at start, after which the list on disk is better than none
CACHE_REFRESH = 60.0  # seconds after which an unchanged list is written again, for its age (SmartStack 60)
BACKOFF_BASE, BACKOFF_FACTOR, BACKOFF_MAX = 0.25, 2.0, 10.0  # full jitter; Consul's own watches wait 5 s and more
DENIED_PAUSE = 10.0  # seconds at least after a refusal by ACL (SE-44)


class MemberBook(Protocol):
    """What a watch writes to: a `Cluster`, or one level of it (`control.levels`)."""

    name: str

    @property
    def endpoints(self) -> Sequence[object]:
        """What is known so far."""
        ...

    def apply(self, snapshot: Snapshot, now: float) -> Change:
        """Take over a full membership."""
        ...

    def note_registry(self, up: bool, detail: str, now: float) -> None:
        """Whether the registry answers."""
        ...

    def age(self, now: float) -> float:
        """Seconds since the membership was last confirmed."""
        ...


class Watch:
    """Follows one service for one book of members. `run` ends only by being cancelled."""

    def __init__(
        self,
        registry: Registry,
        service: str,
        discovery: Selection,
        book: MemberBook,
        settings: RegistrySettings,
        *,
        metrics: RegistryMetrics | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: Rng | None = None,
        start_jitter: float = START_JITTER,
        label: str = "",
    ) -> None:
        self.registry = registry
        self.service = service
        self.label = label or book.name  # what log lines call it
        self.discovery = discovery
        self.book = book
        self.settings = settings
        self.metrics = metrics or RegistryMetrics()
        self.clock = clock
        self.rng: Rng = rng or random.Random()
        self.start_jitter = start_jitter
        self.membership = Membership(settings.empty_grace, settings.removal_guard)
        self.backoff = Backoff(BACKOFF_BASE, BACKOFF_FACTOR, BACKOFF_MAX, FULL)
        self.answered = False  # at least once
        self.up = False
        self._pending: Snapshot | None = None  # decided, waiting for changes to gather
        self._applied_at = float("-inf")
        self._heard_at = 0.0
        self._began_at = 0.0
        self._kept_at = float("-inf")
        self._cache_tried = False
        self._stale = False
        self._cache: MembershipCache | None = None
        self._lively = registry.silence is not None  # there is somebody to ask, who may be down
        self._asker = f"watch {service} {id(self)}"
        if settings.cache_dir and self._lively:
            from sidecar.control.cache import MembershipCache

            self._cache = MembershipCache(settings.cache_dir, registry.name, service, discovery)

    async def run(self) -> None:
        """Follow the registry until cancelled."""
        self._began_at = self.clock()
        try:
            if self._lively:
                await asyncio.sleep(self.start_jitter * self.rng.random())
            while True:
                pause = await self._follow()
                self._warn_if_stale(self.clock())
                await asyncio.sleep(pause)
        finally:
            self.metrics.forget(self._asker)
            if self._cache is not None:
                await self._cache.settle()

    async def _follow(self) -> float:
        """Listen until the registry fails; the seconds to wait before trying again."""
        answers = self.registry.watch(self.service, self.discovery)
        try:
            await self._listen(answers)
        except RegistryDenied as error:
            self._fail(str(error))
            return max(DENIED_PAUSE, self.backoff.fail(self.rng))
        except RegistryError as error:
            self._fail(str(error))
        except Exception:
            log.exception("%s: the watch failed in a way it should not", self.label, extra={"upstream": self.book.name})
            self._fail("the watch failed in a way it should not; the log has the details")
        return self.backoff.fail(self.rng)

    async def _listen(self, answers: AsyncIterator[Snapshot]) -> None:
        """Take one answer after the other, and act on time in between."""
        self._heard_at = self.clock()
        news = asyncio.ensure_future(anext(answers))
        try:
            while True:
                await asyncio.wait((news,), timeout=self._until_due())
                if news.done():
                    self._hear(news.result())
                    news = asyncio.ensure_future(anext(answers))
                self._act(self.clock())
        finally:
            news.cancel()
            await asyncio.gather(news, return_exceptions=True)

    # === hearing and believing ===

    def _hear(self, answer: Snapshot) -> None:
        """The registry has answered."""
        now = self.clock()
        self._heard_at = now
        self._stale = False
        self.backoff.succeed()
        if self._lively:
            self.metrics.note(self._asker, True)
        if not self.up:
            self.up = True
            again = " again" if self.answered else ""
            count = len(answer.members)
            log.info(
                "%s: %s answers%s and lists %d instance(s)",
                self.label,
                self.registry.name,
                again,
                count,
                extra={"upstream": self.book.name, "instances": count},
            )
        self.answered = True
        self._decide(self.membership.on_answer(answer, now))
        self.book.note_registry(True, "", now)
        if self._cache is not None and self._pending is None and now >= self._kept_at + CACHE_REFRESH:
            self._keep(now)

    def _decide(self, decision: Decision) -> None:
        """Remember what is to be applied; say what was not taken at its word."""
        if decision.snapshot is not None:
            self._pending = decision.snapshot
        if decision.reason in HELD:
            bump(self.metrics.held, decision.reason)
        if decision.text:
            log.warning("%s: %s", self.label, decision.text, extra={"upstream": self.book.name})

    def _act(self, now: float) -> None:
        """Whatever time has made due."""
        if self._wants_cache() and now >= self._began_at + CACHE_AFTER:
            self._restore(now)
        self._decide(self.membership.on_time(now))
        if self._pending is not None and now >= self._applied_at + COALESCE:
            self._apply(now)
        silence = self.registry.silence
        if silence is not None and now - self._heard_at >= silence:
            raise RegistryError(f"{self.registry.name} has said nothing for {silence:.0f}s; the watch is rebuilt")

    def _apply(self, now: float) -> None:
        """Hand the membership over to the data path."""
        snapshot, self._pending = self._pending, None
        assert snapshot is not None
        self._applied_at = now
        change = self.book.apply(snapshot, now)
        if self._lively:
            bump(self.metrics.updates, self.service)
        if change.added or change.removed:
            log.info(
                "%s: %d instance(s), %d new, %d gone",
                self.label,
                len(snapshot.members),
                len(change.added),
                len(change.removed),
                extra={"upstream": self.book.name, "source": snapshot.source},
            )
        if snapshot.source != "cache":
            self._keep(now)

    def _keep(self, now: float) -> None:
        """Put the believed list on disk, if that is wanted."""
        if self._cache is not None and self.membership.believed is not None:
            self._kept_at = now
            self._cache.keep(self.membership.believed)

    def _until_due(self) -> float | None:
        """Seconds until time alone has something to do; None: never."""
        due: list[float] = []
        if self.registry.silence is not None:
            due.append(self._heard_at + self.registry.silence)
        if self.membership.recheck_at is not None:
            due.append(self.membership.recheck_at)
        if self._pending is not None:
            due.append(self._applied_at + COALESCE)
        if self._wants_cache():
            due.append(self._began_at + CACHE_AFTER)
        return max(0.0, min(due) - self.clock()) if due else None

    # === failing ===

    def _fail(self, reason: str) -> None:
        """The registry has failed: keep the list, tell it once."""
        now = self.clock()
        self.metrics.errors += 1
        self.metrics.note(self._asker, False)
        self.membership.on_outage()
        if self._pending is not None:
            self._apply(now)
        if self._wants_cache():
            self._restore(now)
        if self.up or not self.backoff.failures:
            kept = len(self.book.endpoints)
            log.warning(
                "%s: %s; the %d instance(s) known so far stay in use",
                self.label,
                reason,
                kept,
                extra={"upstream": self.book.name, "instances": kept},
            )
        self.up = False
        self.book.note_registry(False, reason, now)

    # === a restart while the registry is down ===

    def _wants_cache(self) -> bool:
        return self._cache is not None and not self._cache_tried and not self.answered

    def _restore(self, now: float) -> None:
        """Begin with the list on disk. Its members count as confirmed when the file was written."""
        self._cache_tried = True
        assert self._cache is not None
        found = self._cache.load()
        if found is None:
            return
        snapshot, age = found
        self.membership.restore(snapshot)
        self.book.apply(snapshot, now - age)
        log.warning(
            "%s: %s does not answer; %d instance(s) are taken from the list on disk, %.0fs old",
            self.label,
            self.registry.name,
            len(snapshot.members),
            age,
            extra={"upstream": self.book.name, "instances": len(snapshot.members)},
        )

    def _warn_if_stale(self, now: float) -> None:
        """Say once that the list has not been confirmed for long."""
        age = self.book.age(now)
        if age > self.settings.stale_warning and not self._stale:
            self._stale = True
            log.warning(
                "%s: the list of instances was last confirmed %.0fs ago and may be stale",
                self.label,
                age,
                extra={"upstream": self.book.name},
            )

    def __repr__(self) -> str:
        return f"<Watch {self.service} by {self.registry.name} {'up' if self.up else 'down'}>"
