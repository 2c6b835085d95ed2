"""A service's members as the sidecar knows them: the only place where control and proxy meet.

Control writes membership (`apply`, `note_registry`), the pool writes connectivity, ejection writes state, active checks
write their verdict; the data path reads `pickable`. Each writer passes one door that recomputes `pickable` and tells
the observers. Nothing here does I/O or knows the time but by argument.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from msgspec import Struct

from sidecar.policy.balancer import Balancer, PickContext
from sidecar.policy.endpoint import (
    AWAITED,
    CONNECTING,
    FAILED,
    HEALTHY,
    IDLE,
    PASSED,
    PROBATION,
    READY,
    TRANSIENT_FAILURE,
    UNCHECKED,
    Endpoint,
)
from sidecar.policy.event import KEPT, Event
from sidecar.policy.level import availability, find_reserve, last_resort, share_load, split_levels, suffices
from sidecar.policy.settings import BalancingSettings, ZoneSettings
from sidecar.policy.snapshot import Member, Snapshot
from sidecar.policy.zone import capacities, share_zones
from sidecar.rpc.status import UNAVAILABLE

# Why nothing can be picked: each is a metric label, and a sentence in `Refusal.text` (D18).
NEVER_DISCOVERED = "never_discovered"
NO_MEMBERS = "no_members"
SUBSET_MISS = "subset_miss"
ALL_CONNECTING = "all_connecting"
ALL_FAILING = "all_failing"
ALL_SATURATED = "all_saturated"
# Refusals that the data path adds to these.
QUEUE_FULL = "queue_full"
QUEUE_TIMEOUT = "queue_timeout"
IN_FLIGHT_CAP = "in_flight_cap"
BUFFERS_FULL = "buffers_full"
OVERLOADED = "overloaded"
SHUTTING_DOWN = "shutting_down"

# Waiting can help for these, and for no other.
WORTH_WAITING = frozenset((NEVER_DISCOVERED, ALL_CONNECTING, ALL_SATURATED))


class Refusal(Struct, frozen=True):
    """No endpoint can be picked, or a limit is reached. `text` names the upstream, the counts and the last error."""

    reason: str
    text: str
    status: int = UNAVAILABLE  # the grpc-status that the caller gets (table 6.1)
    pushback: float = 0.0  # seconds after which the caller may come again; 0.0: it is told nothing

    @property
    def worth_waiting(self) -> bool:
        """Whether the next moment may bring an endpoint."""
        return self.reason in WORTH_WAITING


class Change(Struct, frozen=True):
    """What a snapshot changed. Kept endpoints are the same objects as before (LB-11)."""

    added: tuple[Endpoint, ...]
    removed: tuple[Endpoint, ...]


Observer = Callable[[Change], None]


class Cluster:
    """The members of one service. It lives as long as its upstream is configured."""

    def __init__(
        self, name: str, balancer: Balancer, balancing: BalancingSettings | None = None, zone: str = ""
    ) -> None:
        settings = balancing or BalancingSettings()
        self.name = name
        self.balancer = balancer
        self.slow_start: float = settings.slow_start  # seconds
        self.panic_threshold: float = settings.panic_threshold
        self.zone = zone  # the sidecar's own; empty: not known
        self.zone_aware: ZoneSettings | None = settings.zone_aware
        self.endpoints: list[Endpoint] = []
        self.pickable: list[Endpoint] = []
        self.in_flight: int = 0  # attempts, on all endpoints
        self.trials: list[Endpoint] = []  # in probation and ready: each waits for one RPC
        self.events: deque[Event] = deque(maxlen=KEPT)  # the newest last
        self.source: str = ""  # of the newest snapshot; empty: none yet
        self.index: int = 0
        self.left_out: int = 0  # healthy instances that are not among those the upstream takes
        self.wanted: str = ""  # what they lack, in words
        self.confirmed_at: float = 0.0  # when the registry last confirmed the membership
        self.registry_up: bool = False
        self.registry_detail: str = "not asked yet"
        self.on_members: list[Observer] = []  # called with every change of membership
        self.on_pickable: list[Callable[[], None]] = []  # called when `pickable` may have grown or emptied
        self._by_address: dict[str, Endpoint] = {}
        self._levels: list[list[Endpoint]] = [self.endpoints]  # by priority
        self._turn: int = 0  # of the reserve: counts the retries that went there

    # === membership: written by control ===

    def apply(self, snapshot: Snapshot, now: float) -> Change:
        """Take over a full membership. Endpoints that stay keep their connections and counters."""
        added: list[Endpoint] = []
        members: dict[str, Member] = {}
        for member in snapshot.members:
            members.setdefault(member.address, member)
        removed = [endpoint for endpoint in self.endpoints if endpoint.address not in members]
        for endpoint in removed:
            endpoint.removed = True
            del self._by_address[endpoint.address]
        for address, member in members.items():
            kept = self._by_address.get(address)
            if kept is None:
                endpoint = self._by_address[address] = Endpoint(member, snapshot.source, now)
                if self.source:  # those of the first snapshot are new to this sidecar only
                    endpoint.warm_at = now + self.slow_start
                added.append(endpoint)
            else:
                kept.member = member
                kept.source = snapshot.source
                kept.weight = member.weight
        self.endpoints = [self._by_address[address] for address in members]
        self._levels = split_levels(self.endpoints)
        self._place()
        self.source = snapshot.source
        self.index = snapshot.index
        self.left_out = snapshot.left_out
        self.wanted = snapshot.wanted
        self.confirmed_at = now
        change = Change(tuple(added), tuple(removed))
        for observer in self.on_members:
            observer(change)
        self.refresh()
        return change

    def _place(self) -> None:
        """Whether each member is in another zone than we are; and its worth, as long as nothing divides the load."""
        for endpoint in self.endpoints:
            zone = endpoint.member.zone
            endpoint.foreign = bool(self.zone and zone and zone != self.zone)
            endpoint.worth = endpoint.weight

    def note_registry(self, up: bool, detail: str, now: float) -> None:
        """Whether the registry answers. An answer confirms the membership that stands."""
        self.registry_up = up
        self.registry_detail = detail
        if up and self.source:
            self.confirmed_at = now

    @property
    def discovered(self) -> bool:
        """Whether any membership, even an empty one, was ever taken over."""
        return self.source != ""

    def age(self, now: float) -> float:
        """Seconds since the membership was last confirmed; 0 for a static one."""
        return 0.0 if self.source == "static" or not self.source else now - self.confirmed_at

    # === connectivity and state: written by the pool and by ejection ===

    def set_connectivity(self, endpoint: Endpoint, connectivity: int, error: str = "") -> None:
        """The pool's news of one endpoint. `error` says why it fails, in words."""
        if error:
            endpoint.last_error = error
        if endpoint.connectivity == IDLE and connectivity == CONNECTING:
            endpoint.connectivity = connectivity  # neither can be picked, and both speak for their level
        elif endpoint.connectivity != connectivity:
            endpoint.connectivity = connectivity
            self.refresh()
        elif connectivity == TRANSIENT_FAILURE:
            self._tell()

    def set_ready(self, endpoints: list[Endpoint]) -> None:
        """The pool's good news of one or of many: one look at all members is enough for a thousand connects."""
        for endpoint in endpoints:
            endpoint.connectivity = READY
            endpoint.saturated = False
        self.refresh()

    def set_saturated(self, endpoint: Endpoint, saturated: bool) -> None:
        """Whether every stream slot of the endpoint is taken (H2-73)."""
        if endpoint.saturated != saturated:
            endpoint.saturated = saturated
            self.refresh()

    def set_state(self, endpoint: Endpoint, state: int, reason: str, now: float) -> None:
        """Ejection's verdict, with its reason in words."""
        endpoint.reason = reason
        if endpoint.state != state:
            if state == HEALTHY:
                endpoint.warm_at = now + self.slow_start
            endpoint.state = state
            endpoint.since_at = now
            endpoint.on_trial = False
            self.refresh()

    def set_checkup(self, endpoint: Endpoint, checkup: int, finding: str, now: float) -> None:
        """The active checks' verdict, with its reason in words."""
        endpoint.finding = finding
        if endpoint.checkup != checkup:
            if endpoint.checkup == FAILED:
                endpoint.warm_at = now + self.slow_start
            endpoint.checkup = checkup
            self.refresh()

    def begin_trial(self, endpoint: Endpoint) -> None:
        """An RPC goes to an endpoint in probation; no other one does before its end."""
        endpoint.on_trial = True
        if endpoint in self.trials:
            self.trials.remove(endpoint)

    def end_trial(self, endpoint: Endpoint) -> None:
        """That RPC told nothing: the next one is a trial again."""
        endpoint.on_trial = False
        self.refresh()

    # === settings: written by a reload ===

    def reconfigure(self, balancer: Balancer, balancing: BalancingSettings, zone: str = "") -> None:
        """New settings; another balancer begins with the endpoints as they are, and without the notes of the last."""
        self.slow_start = balancing.slow_start
        self.panic_threshold = balancing.panic_threshold
        self.zone = zone
        self.zone_aware = balancing.zone_aware
        self._place()
        if balancer is not self.balancer:
            self.balancer = balancer
            for endpoint in self.endpoints:
                endpoint.forget()
        self.refresh()

    # === what may be picked ===

    def refresh(self) -> None:
        """Recompute `pickable`: members -> levels -> of each its best tier -> zones."""
        if len(self._levels) > 1 or self.zone_aware is not None:
            self.pickable = self._divide()
        else:
            self.pickable = self._best(self.endpoints, may_panic=True)
        self.trials = [
            e
            for e in self.endpoints
            if e.state == PROBATION
            and e.connectivity == READY
            and not (e.saturated or e.on_trial)
            and e.checkup in (UNCHECKED, PASSED)
        ]
        self.balancer.on_change(self)
        self._tell()

    def _best(self, members: list[Endpoint], may_panic: bool) -> list[Endpoint]:
        """Ready and unsaturated -> believed -> healthy; or more of them, where those are too few or none."""
        ready = [e for e in members if e.connectivity == READY and not e.saturated and e.checkup != AWAITED]
        believed = [e for e in ready if not e.suspect]
        best = [e for e in believed if e.healthy]
        if may_panic and best and len(best) < self.panic_threshold * len(believed):
            # So few cannot carry the load of all: spread it over the unhealthy ones too (D9).
            best = believed
        if not best:
            best = [e for e in ready if e.healthy]
        if not best:
            # Panic: no ready endpoint is healthy; an unhealthy one beats none (OD-06).
            best = ready
        return best

    def _divide(self) -> list[Endpoint]:
        """Let each level carry its part of the load, by what its members are worth (D11)."""
        available = [availability(level) for level in self._levels]
        may_panic = len(self._levels) == 1 or not suffices(available)
        tiers = [self._best(level, may_panic) for level in self._levels]
        loads = share_load(available) if any(available) else last_resort(tiers)
        pickable: list[Endpoint] = []
        for level, tier, load in zip(self._levels, tiers, loads, strict=True):
            if load:
                pickable += self._weigh(level, tier, load)
        return pickable

    def _weigh(self, level: list[Endpoint], tier: list[Endpoint], load: float) -> list[Endpoint]:
        """Those of `tier` that take RPCs, each worth its part of the `load` of its level (D10)."""
        capacity = capacities(tier)
        total = sum(capacity.values())
        shares = {zone: held / total for zone, held in capacity.items()}
        rule = self.zone_aware
        if rule is not None and self.zone and len(tier) >= rule.min_endpoints and all(e.healthy for e in tier):
            shares = share_zones(self.zone, capacity, len({self.zone, *(e.member.zone for e in level)}))
        taken = [endpoint for endpoint in tier if endpoint.member.zone in shares]
        for endpoint in taken:
            zone = endpoint.member.zone
            endpoint.worth = endpoint.weight * load * shares[zone] / capacity[zone]
        return taken

    def _tell(self) -> None:
        for observer in self.on_pickable:
            observer()

    # === picking: read by the data path ===

    def pick(self, context: PickContext | None, now: float) -> Endpoint | Refusal:
        """An endpoint for one attempt, or why there is none."""
        if context is not None and context.tried:
            return self._pick_again(context, now)
        if self.trials:
            return self.trials[0]
        if self.pickable:
            return self.balancer.pick(self, context, now)
        return self.explain()

    def begin_attempt(self, endpoint: Endpoint) -> None:
        """One more is in flight there."""
        endpoint.in_flight += 1
        self.in_flight += 1

    def end_attempt(self, endpoint: Endpoint) -> None:
        """One that began is over."""
        endpoint.in_flight -= 1
        self.in_flight -= 1

    def _pick_again(self, context: PickContext, now: float) -> Endpoint | Refusal:
        """For a retry, which is never a trial: it has failed once already.

        Where this RPC was everywhere that carries load, it goes to the reserve rather than where it was: to another
        zone, or to the next level (D16; Envoy's `previous_hosts` and `previous_priorities`).
        """
        if not self.pickable:
            return self.explain()
        if all(endpoint in context.tried for endpoint in self.pickable):
            self._turn += 1
            other = find_reserve(self._levels, context.tried, self.zone_aware is not None, self._turn)
            if other is not None:
                return other
        return self.balancer.pick(self, context, now)

    def explain(self) -> Refusal:
        """Why `pickable` is empty, in the reader's words."""
        name = self.name
        if not self.source:
            return Refusal(NEVER_DISCOVERED, f"{name}: the registry has not answered yet ({self.registry_detail})")
        total = len(self.endpoints)
        if not total and self.left_out:
            text = f"{name}: none of the {self.left_out} healthy instance(s) that {self.source} lists has {self.wanted}"
            return Refusal(SUBSET_MISS, f"{text}, as discovery asks")
        if not total:
            return Refusal(NO_MEMBERS, f"{name}: {self.source} lists no healthy instance of it")
        saturated = sum(e.saturated and e.connectivity == READY for e in self.endpoints)
        if saturated:
            text = f"{name}: all stream slots of the {saturated} connected of its {total} instance(s) are taken"
            return Refusal(ALL_SATURATED, text)
        awaited = sum(e.checkup == AWAITED and e.connectivity == READY for e in self.endpoints)
        if awaited:
            text = f"{name}: {awaited} of {total} instance(s) are connected, and none has passed its health check yet"
            return Refusal(ALL_CONNECTING, text)
        waiting = [e for e in self.endpoints if e.connectivity in (IDLE, CONNECTING)]
        if waiting:
            return Refusal(ALL_CONNECTING, f"{name}: still connecting to {len(waiting)} of {total} instance(s)")
        last = next((e for e in reversed(self.endpoints) if e.last_error), None)
        detail = f"; last error: {last.address}: {last.last_error}" if last else ""
        return Refusal(ALL_FAILING, f"{name}: none of its {total} instance(s) can be reached{detail}")

    def __repr__(self) -> str:
        return (
            f"<Cluster {self.name} {len(self.pickable)} of {len(self.endpoints)} pickable, from {self.source or '-'}>"
        )
