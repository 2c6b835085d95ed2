"""One member of a cluster: what the registry says of it, how it is connected, whether it is ejected, its load.

Each part has one writer: control through `Cluster.apply`, the proxy's pool through `Cluster.set_connectivity` and
`set_saturated`, ejection through `Cluster.set_state`, active checks through `Cluster.set_checkup`. Nothing here
decides.
"""

from __future__ import annotations

from sidecar.policy.snapshot import PASSING, Member
from sidecar.policy.standing import Standing
from sidecar.telemetry.metrics import Histogram

# Connectivity, as gRPC names it, written by the pool. Numbers, because the hot path compares them.
IDLE = 0
CONNECTING = 1
READY = 2
TRANSIENT_FAILURE = 3
CONNECTIVITY_NAMES = ("idle", "connecting", "ready", "transient_failure")

# Health as the data path sees it, written by ejection.
HEALTHY = 0
EJECTED = 1
PROBATION = 2
STATE_NAMES = ("healthy", "ejected", "probation")

# What active health checks say of it, where there are any.
UNCHECKED = 0
AWAITED = 1  # no check has told anything yet: it is not used
PASSED = 2
FAILED = 3
CHECKUP_NAMES = ("unchecked", "awaited", "passed", "failed")


class Endpoint:
    """One member. `address` is its identity; it lives until a snapshot leaves it out and its RPCs have ended."""

    def __init__(self, member: Member, source: str, now: float) -> None:
        self.address: str = member.address
        self.member: Member = member
        self.source: str = source
        self.weight: int = member.weight
        self.worth: float = member.weight  # the weight, times the part of the load that its level and zone carry
        self.foreign: bool = False  # in another zone than the sidecar
        self.added_at: float = now

        # Load, kept by the balancer's callers: one up at pick, one down at the attempt's end.
        self.in_flight: int = 0
        self.successes: int = 0
        self.failures: int = 0
        self.latency: Histogram = Histogram()

        self.connectivity: int = IDLE
        self.saturated: bool = False  # every connection is at the peer's stream limit and no more may be opened
        self.connections: int = 0
        self.last_error: str = ""

        self.state: int = HEALTHY
        self.reason: str = ""  # why `state` is what it is, in words
        self.since_at: float = now
        self.standing: Standing | None = None  # what ejection remembers of it; None: no attempt has ended yet
        self.on_trial: bool = False  # in probation, and the one RPC of its trial is under way

        self.checkup: int = UNCHECKED
        self.finding: str = ""  # why `checkup` is what it is, in words

        # The balancer's notes, written by nobody else; `forget` clears them for another balancer.
        self.share: float = 1.0  # what one RPC weighs here: the mean weight over its own
        self.turn: float = 0.0  # the virtual time from which it is due again; 0: not seen yet
        self.price: float = 0.0  # expected latency times penalty, on the balancer's own growing scale; 0: not known
        self.penalty: float = 1.0  # the factor in `price` that failures put there
        self.sampled_at: float = 0.0  # the scale when `price` was last changed by an attempt; 0: never
        self.warm_at: float = 0.0  # until then it takes less than its weight says (slow start), written by `Cluster`

        self.removed: bool = False  # left out of the newest snapshot; no new picks
        self.pool: object = None  # the proxy's connections to it; policy never looks inside

    def forget(self) -> None:
        """Another balancer takes over: its notes are in its own scale."""
        self.share = 1.0
        self.turn = self.price = self.sampled_at = 0.0
        self.penalty = 1.0

    @property
    def healthy(self) -> bool:
        """Whether neither ejection nor a health check speaks against it."""
        return self.state == HEALTHY and self.checkup != FAILED

    @property
    def suspect(self) -> bool:
        """Whether it is kept only as a last resort."""
        return self.member.status not in (PASSING, "warning")

    def __repr__(self) -> str:
        return (
            f"<Endpoint {self.address} {STATE_NAMES[self.state]} {CONNECTIVITY_NAMES[self.connectivity]}"
            f" in_flight={self.in_flight} ok={self.successes} failed={self.failures}>"
        )
