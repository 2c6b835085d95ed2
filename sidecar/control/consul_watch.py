"""One service seen through Consul's blocking queries, as a series of snapshots.

Here stand the rules of the index, the pace of the loop, and what an answer of `/v1/health/service` means. Errors leave
as RegistryError and end the query: whoever begins again begins at index 0 (RL-20, RL-25). Nothing here decides whether
an answer is believed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from sidecar.control.consul_client import Answer, ConsulClient
from sidecar.control.registry import RegistryDenied, RegistryError
from sidecar.control.selection import describe, takes
from sidecar.control.settings import ConsulSettings, Selection
from sidecar.policy.snapshot import PASSING, WARNING, Member, Snapshot
from sidecar.telemetry.metrics import RegistryMetrics

WAIT_JITTER = 1 / 16  # Consul adds up to wait/16 to every blocking query
# Checks that Consul itself adds while an operator has taken a service or a whole node out.
MAINTENANCE = ("_service_maintenance:", "_node_maintenance")
CRITICAL_WORDS = frozenset(("critical", "maintenance"))
# What a sidecar writes into the check of its own registration just before it takes that out.
DRAINED = "drained by its sidecar"

# How many returns at once, and then how many a second. Consul's documentation asks for a burst of 2 and about one per
# 15 s; we take that for returns that brought no new index, which only a query that does not block can cause, and are
# faster where the index moved: a rolling restart moves it several times per instance, and each is to be seen far
# within a second.
IDLE_BURST, IDLE_RATE = 2, 1 / 15
MOVED_BURST, MOVED_RATE = 10, 5.0


class NodeEntry(Struct, rename="pascal"):
    """A machine, as an answer states it."""

    node: str = ""
    address: str = ""
    meta: dict[str, str] | None = None
    locality: dict[str, str] | None = None


class Weights(Struct, rename="pascal"):
    """Consul's weights; both are 1 unless set."""

    passing: int = 1
    warning: int = 1


class ServiceEntry(Struct, rename="pascal"):
    """An instance, as an answer states it."""

    port: int
    id: str = field(name="ID")
    service: str = ""
    address: str = ""
    tags: list[str] | None = None
    meta: dict[str, str] | None = None
    weights: Weights | None = None
    locality: dict[str, str] | None = None


class CheckEntry(Struct, rename="pascal"):
    """One check of an instance or of its node."""

    check_id: str = field(name="CheckID")
    status: str
    output: str = ""


class HealthEntry(Struct, rename="pascal"):
    """One instance with its node and its checks."""

    node: NodeEntry
    service: ServiceEntry
    checks: list[CheckEntry] | None = None


HealthAnswer = list[HealthEntry]


class TokenBucket:
    """`burst` passes at once, then `rate` a second. Says how long to wait; does not wait itself."""

    def __init__(self, burst: int, rate: float) -> None:
        self.burst = burst
        self.rate = rate
        self._tokens = float(burst)
        self._filled_at: float | None = None

    def take(self, now: float) -> float:
        """Take one pass; the seconds until it is valid."""
        if self._filled_at is not None:
            self._tokens = min(self.burst, self._tokens + (now - self._filled_at) * self.rate)
        self._filled_at = now
        self._tokens -= 1
        return max(0.0, -self._tokens / self.rate)


class BlockingQuery:
    """The series of queries about one service. `next` returns when there is news, or when `wait` has passed."""

    def __init__(
        self,
        client: ConsulClient,
        service: str,
        discovery: Selection,
        settings: ConsulSettings,
        metrics: RegistryMetrics,
        clock: Callable[[], float],
    ) -> None:
        self.client = client
        self.service = service
        self.discovery = discovery
        self.settings = settings
        self.metrics = metrics
        self.clock = clock
        self.index = 0
        self._idle = TokenBucket(IDLE_BURST, IDLE_RATE)
        self._moved = TokenBucket(MOVED_BURST, MOVED_RATE)
        self._pause = 0.0
        self._unfit = 0  # healthy instances that Consul left out by tags and filter, as of `index`

    async def next(self) -> Snapshot:
        """The membership at the next index, or the same one confirmed. Raises RegistryError."""
        if self._pause > 0:
            await asyncio.sleep(self._pause)
        asked_at = self.clock()
        wait = self.settings.wait
        answer = await self.client.get(
            f"list the instances of {self.service}",
            f"/v1/health/service/{self.service}",
            self._params(),
            timeout=wait + wait * WAIT_JITTER + self.settings.timeout,
        )
        now = self.clock()
        index = read_index(answer, self.client)
        entries = self._decode(answer)
        self._note_consistency(answer)
        if not entries and answer.headers.get("X-Consul-KnownLeader", "true") == "false":
            raise RegistryError(
                f"{self.client.label} knows no leader and lists no instance of {self.service}, which proves nothing"
            )
        if not entries and answer.headers.get("X-Consul-Results-Filtered-By-ACLs") == "true":
            raise RegistryDenied(
                f"{self.client.label} hides the instances of {self.service}: the token needs service:read and node:read"
            )
        moved = index > self.index
        waited_out = not moved and now - asked_at >= wait
        bucket = self._moved if moved else self._idle
        self._pause = 0.0 if waited_out else bucket.take(now)
        self.index = follow_index(self.index, index)
        snapshot = snapshot_of(self.service, entries, index, self.discovery)
        if snapshot.members or snapshot.left_out:
            return snapshot
        if moved:
            self._unfit = await self._count_unfit()
        return replace(snapshot, left_out=self._unfit)

    def _params(self) -> list[tuple[str, str]]:
        """No `passing` here: the critical ones are left out by us, so that maintenance can be told from absence."""
        params = [("wait", f"{round(self.settings.wait * 1000)}ms"), *self._place()]
        if self.index:
            params.append(("index", str(self.index)))
        params += [("tag", tag) for tag in self.discovery.tags]
        if self.discovery.filter:
            params.append(("filter", self.discovery.filter))
        return params

    def _place(self) -> list[tuple[str, str]]:
        """Whom to ask, whatever is asked."""
        params = [("stale", "")] if self.settings.consistency == "stale" else []
        datacenter = self.discovery.datacenter or self.settings.datacenter
        return [*params, ("dc", datacenter)] if datacenter else params

    async def _count_unfit(self) -> int:
        """How many healthy instances there are whatever their tags. Asked once where none fits: Consul does not say.

        It is only for the reader of a refusal, so a failure counts none and leaves the answer as good as it was.
        """
        if not self.discovery.tags and not self.discovery.filter:
            return 0
        try:
            what = f"list all instances of {self.service}"
            answer = await self.client.get(what, f"/v1/health/service/{self.service}", self._place())
            everybody = Selection(passing_only=self.discovery.passing_only)
            return len(snapshot_of(self.service, self._decode(answer), 0, everybody).members)
        except RegistryError:
            return 0

    def _decode(self, answer: Answer) -> HealthAnswer:
        try:
            return msgspec.json.decode(answer.body, type=HealthAnswer)
        except (msgspec.DecodeError, ValueError) as error:
            raise RegistryError(
                f"{self.client.label} answered something that is not a list of instances of {self.service} ({error}):"
                f" {self.client.excerpt(answer.body)}"
            ) from None

    def _note_consistency(self, answer: Answer) -> None:
        self.metrics.known_leader = answer.headers.get("X-Consul-KnownLeader", "true") == "true"
        contact = answer.headers.get("X-Consul-LastContact", "")
        if contact.isdecimal():
            self.metrics.last_contact = int(contact) / 1000  # Consul counts milliseconds


def read_index(answer: Answer, client: ConsulClient) -> int:
    """The index of an answer. Raises RegistryError when there is none: then it is not Consul that answered."""
    text = answer.headers.get("X-Consul-Index", "")
    if not text.isdecimal():
        raise RegistryError(
            f"{client.label} answered without an index, so it may not be Consul: {client.excerpt(answer.body)}"
        )
    return int(text)


def follow_index(last: int, new: int) -> int:
    """The index to ask with next: 0 after one that went back, at least 1 otherwise (Consul's documentation)."""
    return 0 if new < last else max(new, 1)


def snapshot_of(service: str, entries: HealthAnswer, index: int, selection: Selection) -> Snapshot:
    """The members an answer lists, ordered by address, and who was taken out on purpose."""
    members: dict[str, Member] = {}
    withdrawn: set[str] = set()
    left_out = 0
    good = (PASSING,) if selection.passing_only else (PASSING, WARNING)
    for entry in entries:
        member = member_of(entry)
        if member is None:
            continue
        if is_withdrawn(entry):
            withdrawn.add(member.address)
        elif member.weight > 0 and member.status in good:
            if not takes(selection, member):
                left_out += 1
                continue
            known = members.get(member.address)
            if known is None or (known.status != PASSING and member.status == PASSING):
                members[member.address] = member
    ordered = tuple(members[address] for address in sorted(members))
    out = tuple(sorted(withdrawn - members.keys()))
    return Snapshot(
        service=service,
        members=ordered,
        source="consul",
        index=index,
        withdrawn=out,
        left_out=left_out,
        wanted=describe(selection),
    )


def is_withdrawn(entry: HealthEntry) -> bool:
    """Whether an operator has taken the instance out, or its own sidecar is about to."""
    own = (check_id_of(entry.service.id), DRAINED)
    return any(
        check.check_id.startswith(MAINTENANCE) or (check.check_id, check.output) == own for check in entry.checks or ()
    )


def check_id_of(identity: str) -> str:
    """What the check is called that a sidecar registers with an instance."""
    return f"service:{identity}"


def member_of(entry: HealthEntry) -> Member | None:
    """One instance; None when it has no address or port to dial. A member's status is that of its worst check."""
    service, node = entry.service, entry.node
    host = service.address or node.address
    if not host or not service.port:
        return None
    statuses = {check.status for check in entry.checks or ()}
    status = PASSING
    if statuses & CRITICAL_WORDS:
        status = "critical"
    elif WARNING in statuses:
        status = WARNING
    weights = service.weights or Weights()
    return Member(
        address=f"[{host}]:{service.port}" if ":" in host else f"{host}:{service.port}",
        id=service.id,
        status=status,
        weight=weights.warning if status == WARNING else weights.passing,
        zone=zone_of(service, node),
        tags=tuple(service.tags or ()),
        meta=service.meta or {},
    )


def zone_of(service: ServiceEntry, node: NodeEntry) -> str:
    """Where the instance runs: `zone` in its own metadata, else Consul's locality, else `zone` in its node's metadata.

    The metadata come first because a sidecar takes its own zone from there: two that say the same are in one zone.
    """
    words = ((service.meta, "zone"), (service.locality, "Zone"), (node.locality, "Zone"), (node.meta, "zone"))
    return next((zone for said, key in words if (zone := (said or {}).get(key))), "")
