"""The registrar: probes the co-located app and keeps its registration true until it is released (C2, C3, C4, C6).

Two loops. One probes; the other keeps the lease: registers once the app answers, renews with the reason, compares the
registry's entry with ours, and registers again when it is gone or differs. The state is the table below. A registry
that is down is waited for; nothing here ends by itself but through `release`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable

from sidecar.control.probe import CRITICAL, Finding, Judgement, Probe, probe_of
from sidecar.control.registry import (
    Health,
    Instance,
    Lease,
    Registry,
    RegistryDenied,
    RegistryError,
    UnknownRegistration,
)
from sidecar.policy.backoff import Backoff
from sidecar.policy.balancer import Rng
from sidecar.telemetry.metrics import RegistryMetrics

log = logging.getLogger("sidecar.control")

# States: not in the registry; in it, app not passing; in it, app passing; being taken out; out for good.
UNREGISTERED = "unregistered"
REGISTERED = "registered"
PASSING = "passing"
DRAINING = "draining"
RELEASED = "released"

# Inputs.
ACQUIRE = "acquire"
PASS = "pass"
FAIL = "fail"
LOSE = "lose"
DRAIN = "drain"
END = "end"

TRANSITIONS: dict[tuple[str, str], str] = {
    (UNREGISTERED, ACQUIRE): REGISTERED,
    (REGISTERED, PASS): PASSING,
    (REGISTERED, FAIL): REGISTERED,
    (PASSING, PASS): PASSING,
    (PASSING, FAIL): REGISTERED,
    (REGISTERED, LOSE): UNREGISTERED,
    (PASSING, LOSE): UNREGISTERED,
    (UNREGISTERED, DRAIN): DRAINING,
    (REGISTERED, DRAIN): DRAINING,
    (PASSING, DRAIN): DRAINING,
    # What was under way when the drain began may still end; the release comes after it.
    (DRAINING, ACQUIRE): DRAINING,
    (DRAINING, PASS): DRAINING,
    (DRAINING, FAIL): DRAINING,
    (DRAINING, LOSE): DRAINING,
    (DRAINING, DRAIN): DRAINING,
    (RELEASED, DRAIN): RELEASED,
    (DRAINING, END): RELEASED,
    (RELEASED, END): RELEASED,
}

START_INTERVAL = 0.5  # seconds between probes until the app has answered once (Nerve 500 ms)
# The agent is local and cheap to ask, and a registration must be back within 10 s of its return.
BACKOFF_BASE, BACKOFF_FACTOR, BACKOFF_MAX, BACKOFF_JITTER = 0.2, 2.0, 3.0, 0.2
DENIED_PAUSE = 10.0  # seconds at least after a refusal by ACL (SE-44)
RELEASE_PAUSE = 0.2  # seconds between two tries to deregister


class Registrar:
    """The registration of one app. Without a registry it only probes."""

    def __init__(
        self,
        registry: Registry | None,
        instance: Instance,
        *,
        reconcile_interval: float = 5.0,
        metrics: RegistryMetrics | None = None,
        on_event: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: Rng | None = None,
    ) -> None:
        self.registry = registry
        self.instance = instance
        self.reconcile_interval = reconcile_interval
        self.metrics = metrics or RegistryMetrics()
        self.on_event = on_event
        self.clock = clock
        self.rng: Rng = rng or random.Random()
        self.state = UNREGISTERED
        self.registered_once = False
        self._asker = f"lease {instance.id} {id(self)}"
        check = instance.settings.check
        self.judgement = Judgement(check.passes, check.failures)
        self.backoff = Backoff(BACKOFF_BASE, BACKOFF_FACTOR, BACKOFF_MAX, BACKOFF_JITTER)
        self._lease: Lease | None = None
        self._reported: Health | None = None  # what the registry was told last
        self._renew_at = 0.0
        self._verify_at = 0.0
        self._answered = False  # the app, at least once
        self._trouble = False  # the registry fails, and we have said so
        self._last_error = "no answer in time"
        self._door = asyncio.Lock()  # one request about our registration at a time; a release waits for it
        self._changed = asyncio.Event()  # the health has
        self._ended = asyncio.Event()

    @property
    def health(self) -> Health:
        """The app's health as of the last probe."""
        return self.judgement.health

    @property
    def ready(self) -> bool:
        """Whether the registration has succeeded once, or there is nothing to register with."""
        return self.registry is None or self.registered_once

    async def run(self) -> None:
        """Probe and keep the lease until released."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._probe_until_released())
            tasks.create_task(self._keep_until_released())

    async def release(self, timeout: float = 5.0) -> bool:
        """Deregister, and never register again. Tries for `timeout` seconds; False: the entry may still be there."""
        self._enter(DRAIN)
        self._ended.set()
        self._changed.set()
        gone = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout), self._door:
                gone = self._lease is None or await self._deregister(self._lease)
        self.metrics.forget(self._asker)
        if gone:
            self._lease = None
        else:
            text = f"{self.instance.id} could not be deregistered ({self._last_error}); its check will expire by itself"
            self._say(logging.WARNING, text)
        self._enter(END)
        return gone

    # === the state, and who hears of it ===

    def _enter(self, event: str) -> None:
        """The one door to `state`."""
        try:
            self.state = TRANSITIONS[self.state, event]
        except KeyError:
            raise RuntimeError(f"a registration that is {self.state} cannot {event}") from None

    def _say(self, level: int, sentence: str) -> None:
        log.log(level, sentence, extra={"service": self.instance.settings.name, "id": self.instance.id})
        if self.on_event is not None:
            self.on_event(sentence)

    # === probing ===

    async def _probe_until_released(self) -> None:
        probe = probe_of(self.instance.settings)
        interval = self.instance.settings.check.interval
        try:
            while not self._ended.is_set():
                self._judge(self.judgement.health, self.judgement.add(await self._ask(probe)))
                pause = interval if self._answered else min(interval, START_INTERVAL)
                await self._sleep(pause)
        finally:
            await probe.close()

    async def _ask(self, probe: Probe) -> Finding:
        """One probe. A mistake of ours must not end the probing, and is no proof that the app is well."""
        try:
            return await probe.ask()
        except Exception as error:
            log.exception("the probe of %s failed in a way it should not", self.instance.settings.name)
            return Finding(CRITICAL, f"the sidecar's probe failed: {type(error).__name__}: {error}")

    def _judge(self, before: Health, after: Health) -> None:
        """Tell of a change, and let the registry know."""
        name = self.instance.settings.name
        if after == before:
            return
        self._changed.set()
        if after.status == before.status:
            if after.status == CRITICAL and not self._answered and before.output == "not probed yet":
                self._say(logging.INFO, f"{name} does not answer yet ({after.output}); it is registered once it does")
        elif after.status == CRITICAL:
            self._say(logging.WARNING, f"{name} is critical: {after.output}")
        else:
            self._answered = True
            self._say(logging.INFO, f"{name} is {after.status}: {after.output}")

    # === keeping the lease ===

    async def _keep_until_released(self) -> None:
        if self.registry is None:
            return
        while not self._ended.is_set():
            self._changed.clear()
            try:
                async with self._door:
                    if not self._ended.is_set():
                        await self._step(self.registry)
            except RegistryError as error:
                if isinstance(error, UnknownRegistration) and self._lease is not None:
                    self._lose(str(error))
                else:
                    await self._sleep(self._suffer(error))
            except Exception:
                log.exception("keeping %s registered failed in a way it should not", self.instance.id)
                await self._sleep(BACKOFF_MAX)
            else:
                await self._wait(self._changed, self._until_due())

    async def _step(self, registry: Registry) -> None:
        """Do what is due. Raises UnknownRegistration when the lease is lost, RegistryError when nobody can tell."""
        now, health = self.clock(), self.health
        if self._lease is None:
            if health.status == CRITICAL:
                return
            await self._register(registry, health)
        else:
            if health != self._reported or now >= self._renew_at:
                await self._lease.renew(health)
                self._note_report(health, now)
            if now >= self._verify_at:
                await self._lease.verify()
                self._verify_at = now + self.reconcile_interval
        self._recover()

    async def _register(self, registry: Registry, health: Health) -> None:
        now = self.clock()
        self._lease = await registry.register(self.instance, health)
        self.metrics.registrations += 1
        again = " again" if self.registered_once else ""
        self.registered_once = True
        self._enter(ACQUIRE)
        self._note_report(health, now)
        self._verify_at = now + self.reconcile_interval
        self._say(logging.INFO, f"{self.instance.id} is registered{again} with {registry.name} as {health.status}")

    def _note_report(self, health: Health, now: float) -> None:
        """The registry knows `health` since `now`."""
        assert self._lease is not None
        self._reported = health
        self._renew_at = now + self._lease.renew_interval
        self._enter(FAIL if health.status == CRITICAL else PASS)

    def _lose(self, reason: str) -> None:
        """The registration is gone or not ours any more: begin anew, at once."""
        self._lease = None
        self._reported = None
        self.metrics.lost += 1
        self._recover()
        self._enter(LOSE)
        if self.state == UNREGISTERED:
            then = (
                "it is registered again once the app answers" if self.health.status == CRITICAL else "registering again"
            )
            self._say(logging.WARNING, f"{reason}; {then}")

    def _suffer(self, error: RegistryError) -> float:
        """The registry fails: say it once; the seconds to wait."""
        self.metrics.errors += 1
        self.metrics.note(self._asker, False)
        if not self._trouble:
            self._trouble = True
            self._say(logging.WARNING, f"{error}; the registration of {self.instance.id} is tried again until it works")
        pause = self.backoff.fail(self.rng)
        return max(DENIED_PAUSE, pause) if isinstance(error, RegistryDenied) else pause

    def _recover(self) -> None:
        self.metrics.note(self._asker, True)
        self.backoff.succeed()
        if self._trouble:
            self._trouble = False
            self._say(logging.INFO, f"the registry answers again about {self.instance.id}")

    def _until_due(self) -> float | None:
        """Seconds until the next renewal or comparison; None: only a change of health brings work."""
        if self._lease is None:
            return None
        return max(0.0, min(self._renew_at, self._verify_at) - self.clock())

    # === the end ===

    async def _deregister(self, lease: Lease) -> bool:
        """Take the entry out, however many tries it takes; the caller sets the time limit."""
        while True:
            try:
                await lease.release()
            except RegistryError as error:
                self._last_error = str(error)
                await asyncio.sleep(RELEASE_PAUSE)
            else:
                self._say(logging.INFO, f"{self.instance.id} is deregistered")
                return True

    # === waiting ===

    async def _sleep(self, seconds: float) -> None:
        """Wait, but not beyond the end."""
        await self._wait(self._ended, seconds)

    async def _wait(self, event: asyncio.Event, seconds: float | None) -> None:
        if seconds == float("inf"):
            seconds = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()

    def __repr__(self) -> str:
        return f"<Registrar {self.instance.id} {self.state} app={self.health.status}>"
