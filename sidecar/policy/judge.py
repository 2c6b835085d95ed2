"""How the end of one attempt speaks for or against its endpoint. Whether that is enough to eject it, `ejection` says.

Answers are judged by their grpc-status, wherever it stood; timeouts by how the other endpoints fare (E3); what nobody
at the endpoint did is not judged at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sidecar.policy.ejection_settings import EjectionSettings
from sidecar.policy.endpoint import Endpoint
from sidecar.policy.standing import Standing
from sidecar.rpc import outcome as outcomes
from sidecar.rpc import status as codes

if TYPE_CHECKING:
    from sidecar.policy.cluster import Cluster

# Verdicts.
MUTE: Final = 0  # it says nothing
GOOD: Final = 1
BAD: Final = 2
LATE: Final = 3  # bad: it ran out of time

# So many times the share of its peers is worse than they: less is what chance does to endpoints that are alike.
WORSE: Final = 2
SAME_LOSS: Final = 0.1  # seconds: a lost connection is one failure, however many RPCs and sockets went with it

Classifier = Callable[[int, float, bytes], bool | None]


class Judge:
    """Judges the attempts on one cluster's endpoints."""

    def __init__(self, cluster: Cluster, settings: EjectionSettings, classifier: Classifier | None) -> None:
        self.cluster = cluster
        self.classifier = classifier
        self.failures: int = failure_mask(settings)
        self.timeouts: str = settings.timeouts

    def judge(
        self,
        endpoint: Endpoint,
        blame: int,
        outcome: int,
        status: int,
        seconds: float,
        now: float,
        path: bytes,
    ) -> int:
        """The verdict on one attempt that took `seconds`."""
        standing = endpoint.standing
        assert standing is not None
        if blame in (outcomes.NOBODY, outcomes.OURS):
            return MUTE
        if blame == outcomes.LOCAL:
            if now - standing.lost_at < SAME_LOSS:
                return MUTE
            standing.lost_at = now
            return BAD
        if status == codes.DEADLINE_EXCEEDED:
            return self._judge_timeout(endpoint, standing, now)
        if outcome == outcomes.RESET and status != codes.RESOURCE_EXHAUSTED:
            return BAD
        if self.classifier is not None:
            told = self.classifier(status, seconds, path)
            return MUTE if told is None else BAD if told else GOOD
        return BAD if self.failures >> status & 1 else GOOD

    def _judge_timeout(self, endpoint: Endpoint, standing: Standing, now: float) -> int:
        """The endpoint's fault, or the caller's haste, or a slow day of them all? Without peers nobody can tell."""
        window = standing.window
        window.turn(now)
        against = self.timeouts == "always"
        if self.timeouts == "against_peers":
            peers, _, late = self.sum_peers(endpoint, now)
            against = peers > 0 and is_worse(window.late + 1, window.attempts + 1, late, peers)
        if against:
            return LATE
        window.add(False, True, now)
        return MUTE

    def fares_worse(self, endpoint: Endpoint, now: float) -> bool:
        """Whether more of its attempts failed than of those on other endpoints. Idle peers do not speak for it."""
        standing = endpoint.standing
        assert standing is not None
        peers, bad, _ = self.sum_peers(endpoint, now)
        return is_worse(standing.window.bad, standing.window.attempts, bad, peers)

    def sum_peers(self, endpoint: Endpoint, now: float) -> tuple[int, int, int]:
        """What the windows of all other endpoints hold: attempts, bad ones, late ones."""
        attempts = bad = late = 0
        for peer in self.cluster.endpoints:
            standing = peer.standing
            if standing is not None and peer is not endpoint:
                standing.window.turn(now)
                attempts += standing.window.attempts
                bad += standing.window.bad
                late += standing.window.late
        return attempts, bad, late


def is_worse(count: int, total: int, peers_count: int, peers_total: int) -> bool:
    """Whether `count` of `total` is a share more than WORSE times that of the peers; true where they have none."""
    return peers_total == 0 or count * peers_total > WORSE * peers_count * total


def failure_mask(settings: EjectionSettings) -> int:
    """Bit n stands for grpc-status n."""
    return sum(1 << codes.STATUS_NAMES.index(name) for name in set(settings.failures))
