"""The registry that is a Consul agent: registering with it, and watching through it.

The agent on this machine owns our registration (services belong to agents in Consul), so ghosts are looked for there.
What a request looks like stands in `consul_client`, what an answer means in `consul_watch`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from sidecar.control.consul_client import AgentError, ConsulClient
from sidecar.control.consul_target import resolve_target
from sidecar.control.consul_watch import DRAINED, BlockingQuery, CheckEntry, ServiceEntry, Weights, check_id_of
from sidecar.control.registry import Health, Instance, Lease, Registry, RegistryError, UnknownRegistration
from sidecar.control.settings import CheckSettings, ConsulSettings, Selection
from sidecar.policy.snapshot import Snapshot
from sidecar.telemetry.metrics import RegistryMetrics

log = logging.getLogger("sidecar.control")

# In the metadata of every registration of ours: what carries it and is stale may be removed.
MARKER = ("registered-by", "sidecar")
TTL_INTERVALS = 3  # a check expires after this many missed probes
TTL_FLOOR = 10.0  # seconds; and not sooner than this, for a busy machine must not look dead
RENEWALS_PER_TTL = 3  # one may be lost and one late
MAX_OUTPUT = 1000  # characters; Consul keeps 4 KiB, and it travels in a URL
SILENCE = 1.5  # of `wait`: a watch that says nothing for longer is dead
NOTICE = 0.5  # seconds at most to say that a registration goes on purpose: it is worth no more
NOT_FOUND = 404


class HeldEntry(Struct, rename="pascal"):
    """What the agent says of one registration."""

    service: ServiceEntry | None = None
    checks: list[CheckEntry] | None = None


class AgentEntry(Struct, rename="pascal"):
    """What the agent says of itself."""

    meta: dict[str, str] | None = None


class ConsulRegistry(Registry):
    """A Consul agent. Raises ValueError when built with an address that makes no sense."""

    name = "consul"

    def __init__(
        self,
        settings: ConsulSettings,
        environment: Mapping[str, str],
        metrics: RegistryMetrics | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.metrics = metrics or RegistryMetrics()
        self.clock = clock
        self.client = ConsulClient(resolve_target(settings, environment), settings.timeout)
        self.silence = SILENCE * settings.wait + settings.timeout
        if self.client.target.exposes_token:
            log.warning("the Consul token travels unencrypted to %s; use https or a local agent", self.client.label)

    async def register(self, instance: Instance, health: Health) -> ConsulLease:
        """Register, put the reason into the check, then remove our ghosts. Only the first of these may fail."""
        await self.client.load()
        lease = ConsulLease(self.client, instance)
        await lease.register(health)
        try:
            await lease.renew(health)
            await self._remove_ghosts(instance)
        except RegistryError as error:
            log.warning("%s is registered, but tidying up failed: %s", instance.id, error)
        return lease

    async def _remove_ghosts(self, instance: Instance) -> None:
        """Deregister entries of ours for the same service at the same address that have another id."""
        name, api = instance.settings.name, self.client.api
        what = f"look for old registrations of {name}"
        answer = await self.client.run(what, api.agent.services(f'Service == "{name}"', token=self.client.token()))
        try:
            held = msgspec.convert(answer, dict[str, ServiceEntry])
        except msgspec.ValidationError as error:
            raise RegistryError(f"{self.client.label} listed services in a form that makes no sense: {error}") from None
        for other in held.values():
            same_place = (other.address, other.port) == (instance.address, instance.settings.port)
            ours = (other.meta or {}).get(MARKER[0]) == MARKER[1]
            if other.id != instance.id and same_place and ours:
                request = api.agent.service.deregister(other.id, token=self.client.token())
                await self.client.run(f"remove the ghost {other.id}", request)
                log.info("removed the ghost %s, an earlier registration at the same address", other.id)

    async def watch(self, service: str, discovery: Selection) -> AsyncIterator[Snapshot]:
        """Snapshots by blocking queries."""
        await self.client.load()
        query = BlockingQuery(self.client, service, discovery, self.settings, self.metrics, self.clock)
        while True:
            yield await query.next()

    async def locate(self) -> str:
        """`zone` in the metadata of the agent's node, as members there are taken to be in it. Needs agent:read."""
        await self.client.load()
        answer = await self.client.get("look up its own node, which needs agent:read", "/v1/agent/self", [])
        try:
            return (msgspec.json.decode(answer.body, type=AgentEntry).meta or {}).get("zone", "")
        except msgspec.DecodeError as error:
            raise RegistryError(
                f"{self.client.label} described itself in a form that makes no sense ({error}):"
                f" {self.client.excerpt(answer.body)}"
            ) from None

    async def close(self) -> None:
        """Close the connections to the agent; registrations stay."""
        await self.client.close()

    def __repr__(self) -> str:
        return f"<ConsulRegistry {self.client.target.address.label}>"


class ConsulLease(Lease):
    """A registration with the agent."""

    def __init__(self, client: ConsulClient, instance: Instance) -> None:
        self.client = client
        self.instance = instance
        self.check_id = check_id_of(instance.id)
        self._probed_by_agent = instance.settings.check.by == "agent"
        self._token = ""
        if not self._probed_by_agent:
            self.renew_interval = ttl_of(instance.settings.check) / RENEWALS_PER_TTL

    async def register(self, health: Health) -> None:
        """Write the entry and its check. Existing checks of others, such as maintenance, are left alone."""
        settings = self.instance.settings
        self._token = self.client.token()
        request = self.client.api.agent.service.register(
            settings.name,
            service_id=self.instance.id,
            address=self.instance.address or None,
            port=settings.port,
            tags=list(settings.tags),
            meta=self._meta(),
            weights={"Passing": settings.weights.passing, "Warning": settings.weights.warning},
            check=check_definition(self.instance, self.check_id, health),
            token=self._token,
        )
        await self.client.run(f"register {self.instance.id}", request)

    async def renew(self, health: Health) -> None:
        """Tell the TTL check how the app is, with the reason. Nothing to do where the agent probes."""
        if self._probed_by_agent:
            return
        check = self.client.api.agent.check
        calls = {"passing": check.ttl_pass, "warning": check.ttl_warn, "critical": check.ttl_fail}
        request = calls[health.status](self.check_id, health.output[:MAX_OUTPUT], token=self.client.token())
        try:
            known = await self.client.run(f"renew {self.instance.id}", request)
        except AgentError as error:
            if is_unknown_check(error.text):
                known = False
            else:
                raise
        if not known:
            raise UnknownRegistration(f"{self.client.label} does not know the check of {self.instance.id} any more")

    async def verify(self) -> None:
        """Compare the agent's entry with ours, field by field, and see that our check is there."""
        if self.client.token() != self._token:
            raise UnknownRegistration(f"the ACL token has changed since {self.instance.id} was registered")
        answer = await self.client.get(
            f"look up {self.instance.id}",
            f"/v1/agent/health/service/id/{self.instance.id}",
            [("format", "json")],
            verdicts=True,
        )
        if answer.status == NOT_FOUND:
            raise UnknownRegistration(f"{self.client.label} does not know {self.instance.id} any more")
        try:
            held = msgspec.json.decode(answer.body, type=HeldEntry)
        except msgspec.DecodeError as error:
            raise RegistryError(
                f"{self.client.label} answered something about {self.instance.id} that makes no sense ({error}):"
                f" {self.client.excerpt(answer.body)}"
            ) from None
        differing = self._differences(held)
        if differing:
            raise UnknownRegistration(
                f"{self.client.label} holds another {' and '.join(differing)} for {self.instance.id} than configured"
            )

    def _differences(self, held: HeldEntry) -> list[str]:
        """The names of the fields in which the agent's entry is not what it should be."""
        entry, settings = held.service, self.instance.settings
        if entry is None:
            return ["service"]
        weights = entry.weights or Weights()
        pairs: dict[str, tuple[Any, Any]] = {
            "service": (entry.service, settings.name),
            "address": (entry.address, self.instance.address),
            "port": (entry.port, settings.port),
            "tags": (tuple(entry.tags or ()), settings.tags),
            "meta": (entry.meta or {}, self._meta()),
            "weights": ((weights.passing, weights.warning), (settings.weights.passing, settings.weights.warning)),
            "check": (any(check.check_id == self.check_id for check in held.checks or ()), True),
        }
        return [name for name, (theirs, ours) in pairs.items() if theirs != ours]

    def _meta(self) -> dict[str, str]:
        return {**self.instance.settings.meta, MARKER[0]: MARKER[1]}

    async def release(self) -> None:
        """Deregister. An entry that is already gone is fine."""
        await self._give_notice()
        request = self.client.api.agent.service.deregister(self.instance.id, token=self.client.token())
        try:
            await self.client.run(f"deregister {self.instance.id}", request)
        except AgentError as error:
            if not is_unknown_service(error.text):
                raise

    async def _give_notice(self) -> None:
        """Say in the check that it goes on purpose: callers that doubt absences believe it at once (`is_withdrawn`).

        Not by maintenance, which would stay if the entry did. A check that the agent makes itself cannot say it.
        """
        if self._probed_by_agent:
            return
        with contextlib.suppress(RegistryError, TimeoutError):
            async with asyncio.timeout(NOTICE):
                request = self.client.api.agent.check.ttl_fail(self.check_id, DRAINED, token=self.client.token())
                await self.client.run(f"give notice of the end of {self.instance.id}", request)

    def __repr__(self) -> str:
        return f"<ConsulLease {self.instance.id} at {self.client.target.address.label}>"


def ttl_of(check: CheckSettings) -> float:
    """How long the TTL check lives without news, in seconds."""
    return check.ttl if check.ttl is not None else max(TTL_FLOOR, TTL_INTERVALS * check.interval)


def check_definition(instance: Instance, check_id: str, health: Health) -> dict[str, Any]:
    """The check as Consul's API wants it. It begins with what our own probe has just found out."""
    settings = instance.settings
    check = settings.check
    definition: dict[str, Any] = {
        "CheckID": check_id,
        "Name": f"{settings.name} health",
        "Status": health.status,
        "DeregisterCriticalServiceAfter": go_duration(check.deregister_after),
    }
    if check.by == "sidecar":
        return definition | {"TTL": go_duration(ttl_of(check)), "Notes": "fed by the sidecar's own probe of the app"}
    host = instance.address or settings.probe_address
    host = f"[{host}]" if ":" in host else host
    if check.grpc is not None:
        what = {"GRPC": f"{host}:{check.grpc.port or settings.port}/{check.grpc.service}".rstrip("/")}
    elif check.http is not None:
        what = {"HTTP": f"http://{host}:{check.http.port or settings.port}{check.http.path}"}
    else:
        port = check.tcp.port if check.tcp is not None else None
        what = {"TCP": f"{host}:{port or settings.port}"}
    return (
        definition
        | what
        | {
            "Interval": go_duration(check.interval),
            "Timeout": go_duration(check.timeout),
            "SuccessBeforePassing": check.passes,
            "FailuresBeforeCritical": check.failures,
        }
    )


def go_duration(seconds: float) -> str:
    """Seconds as Go writes them, to the millisecond."""
    return f"{round(seconds * 1000)}ms"


def is_unknown_check(text: str) -> bool:
    """Whether an error says that the check does not exist: a 500 up to Consul 1.9, a 404 since."""
    return "does not have associated TTL" in text or "Unknown check" in text


def is_unknown_service(text: str) -> bool:
    """Whether an error says that the service id does not exist."""
    return "does not exist" in text or "Unknown service" in text
