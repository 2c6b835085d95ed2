"""Latency and load at once: peak EWMA of the latency, times the RPCs in flight, times what failures cost.

`price` is kept on a scale that grows by e every DECAY seconds. Against that scale a price that is not renewed decays
by itself, and since all prices of a cluster share it, a pick compares them as they are: no exponential per candidate,
one per turn of the event loop in which an attempt ends.
"""

from __future__ import annotations

from math import exp
from typing import TYPE_CHECKING, Final

from sidecar.policy.balancer import PickContext, Rng, warmth
from sidecar.policy.least_request import CHOICES, FULL_SCAN, TurnTaking
from sidecar.rpc import outcome as outcomes

if TYPE_CHECKING:
    from sidecar.policy.cluster import Cluster
    from sidecar.policy.endpoint import Endpoint

DECAY: Final = 10.0  # seconds; linkerd 10 s, Envoy's contrib extension 10 s
SEED: Final = 0.030  # seconds, while nothing is known of any endpoint: linkerd 30 ms
SOFTENING: Final = 0.5  # a success halves what failures have doubled
WORST: Final = 1e6  # of the penalty: beyond 14 decays more would only make the way back longer
MAX_PUSH_BACK: Final = 300.0  # seconds; linkerd 300 s
OVERLOADED: Final = 2.0  # doublings for RESOURCE_EXHAUSTED: one to undo the success it looked like, one for itself
# How much of an RPC a turn just taken counts: enough to go round among equals and to keep to the weights while idle;
# more of it sends RPCs to slower endpoints for fairness' sake (simulated: 1.0 costs a sixth of the p99).
AHEAD: Final = 0.1
FAR: Final = 300.0  # decays after which the scale starts over, long before a double overflows at 709
NEAR: Final = 1e-3  # decays for which three terms are as good as exp: they are off by less than 2e-10

# Numbers of its own, so that the compiled form reckons without objects; there they are not seen from outside.
_SUCCESS: Final = outcomes.SUCCESS
_CANCELLED: Final = outcomes.CANCELLED
_DECAY: Final = DECAY
_SEED: Final = SEED
_SOFTENING: Final = SOFTENING
_WORST: Final = WORST
_MAX_PUSH_BACK: Final = MAX_PUSH_BACK
_OVERLOADED: Final = OVERLOADED
_FAR: Final = FAR
_NEAR: Final = NEAR
_AHEAD: Final = AHEAD


class PeakEwma(TurnTaking):
    """The endpoint with the lowest expected latency under its load.

    A latency above the estimate replaces it at once, lower ones pull it down with DECAY. Each failure doubles the
    price and each success halves it again, at least as fast as it decays: failing fast makes no endpoint cheap, and
    an error here and there no endpoint dear. What is not known yet costs as much as the mean of what is, so that it is
    tried next among equals: at SEED it would wait, where RPCs are quicker, until that has decayed.
    """

    name = "peak_ewma"

    def __init__(self, rng: Rng, full_scan: int = FULL_SCAN, choices: int = CHOICES) -> None:
        super().__init__(rng, full_scan, choices, idle=1.0, part=_AHEAD)
        self._began_at: float = 0.0  # where the scale is 1
        self._read_at: float = 0.0
        self._scale: float = 1.0  # at `_read_at`
        self._known: int = 0  # endpoints of which something is known
        self._due: int = 1  # with so many the others are priced anew

    def pick(self, cluster: Cluster, context: PickContext | None, now: float) -> Endpoint:
        if now - self._began_at > _FAR * _DECAY:
            self._start_over(cluster, now)
        if self._known >= self._due:
            self._price_unknown(cluster)
        return TurnTaking.pick(self, cluster, context, now)

    def done(self, endpoint: Endpoint, outcome: int, latency: float, now: float) -> None:
        scale = self._scale if now == self._read_at else self._read(now)
        sample = latency * scale
        estimate = endpoint.price / endpoint.penalty
        if endpoint.sampled_at == 0.0 and outcome != _CANCELLED:
            self._known += 1
        if outcome == _CANCELLED:
            # It would have taken longer, or was never meant to end: some evidence, not proof.
            if sample > estimate:
                endpoint.price = min(sample, 2.0 * estimate) * endpoint.penalty
            return
        penalty = endpoint.penalty
        if endpoint.sampled_at > 0.0:
            penalty *= endpoint.sampled_at / scale
        if outcome == _SUCCESS:
            if endpoint.sampled_at > 0.0:
                estimate += latency * (scale - endpoint.sampled_at)
                penalty *= _SOFTENING
            else:
                estimate = sample
        else:
            if endpoint.sampled_at > 0.0:
                estimate *= scale / endpoint.sampled_at  # nothing new about its latency
            penalty = 2.0 * max(penalty, 1.0)
        endpoint.penalty = min(max(penalty, 1.0), _WORST)
        endpoint.price = max(sample, estimate) * endpoint.penalty
        endpoint.sampled_at = scale

    def push_back(self, endpoint: Endpoint, seconds: float, now: float) -> None:
        factor = exp(min(seconds, _MAX_PUSH_BACK) / _DECAY) if seconds > 0.0 else 2.0**_OVERLOADED
        endpoint.penalty *= factor
        endpoint.price *= factor

    def on_change(self, cluster: Cluster) -> None:
        TurnTaking.on_change(self, cluster)
        self._price_unknown(cluster)

    def _price_unknown(self, cluster: Cluster) -> None:
        """Failures of others say nothing of it: their latencies without penalties. Done again with twice as many known,
        not with each: to look at a thousand endpoints costs as much as an RPC.
        """
        total, known = 0.0, 0
        for endpoint in cluster.pickable:
            if endpoint.sampled_at > 0.0:
                total += endpoint.price / endpoint.penalty
                known += 1
        self._known = known
        self._due = max(1, 2 * known)
        if known == len(cluster.pickable):
            return
        seed = total / known if known else _SEED * self._scale
        for endpoint in cluster.pickable:
            if endpoint.sampled_at == 0.0:
                endpoint.price = seed

    def why_avoided(self, endpoint: Endpoint, cluster: Cluster, now: float) -> str:
        """It is charged for failures, and even with nothing in flight dearer than peers that are not, as they are.

        Where all endpoints are looked at, one such peer takes the next RPC; where some are drawn, it takes all of them.
        """
        if endpoint.penalty <= 1.0:
            return ""
        if self._known >= self._due:
            self._price_unknown(cluster)
        peers = [self._cost(other, cluster, now) for other in cluster.pickable if other.penalty <= 1.0]
        if not peers:
            return ""
        own = endpoint.price * self._idle
        if own <= (min(peers) if len(cluster.pickable) <= self._full_scan else max(peers)):
            return ""
        scale = exp(min((now - self._began_at) / _DECAY, 2.0 * _FAR))
        least, most = _duration(own / scale), _duration(max(peers) / scale)
        return f"after a failure or pushback an RPC there counts as {least}, at its peers as {most} at most"

    def _cost(self, endpoint: Endpoint, cluster: Cluster, now: float) -> float:
        """What `pick` would compare now, on the scale."""
        share = endpoint.share / warmth(endpoint, cluster.slow_start, now)
        ahead = max(0.0, endpoint.turn - self._clock)
        return endpoint.price * (self._idle + endpoint.in_flight * share + self._part * ahead)

    def _read(self, now: float) -> float:
        """The scale at `now`. Between two RPCs it hardly moves, and exp would cost more than all the rest of `done`."""
        step = (now - self._read_at) / _DECAY
        self._read_at = now
        if 0.0 <= step < _NEAR:
            self._scale *= 1.0 + step * (1.0 + 0.5 * step)
        else:
            self._scale = exp(min((now - self._began_at) / _DECAY, 2.0 * _FAR))
        return self._scale

    def _start_over(self, cluster: Cluster, now: float) -> None:
        """Let the scale be 1 here; every price stays what it is worth."""
        shrink = 1.0 / self._read(now)
        for endpoint in cluster.endpoints:
            endpoint.price *= shrink
            endpoint.sampled_at *= shrink
        self._began_at = now
        self._scale = 1.0


def _duration(seconds: float) -> str:
    return f"{seconds:.1f}s" if seconds >= 1.0 else f"{seconds * 1e3:.3g}ms"
