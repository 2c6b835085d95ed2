"""The look around and the turns that load-aware balancers take, and the one that looks at RPCs in flight alone.

A pick moves the endpoint's next turn ahead by what an RPC weighs there, on a virtual clock that stands at the turn
of the newest pick (start-time fair queueing). How far an endpoint is ahead counts as a part of an RPC in flight.
So idle endpoints share the load in proportion to their weights instead of all of it going to the heaviest, equals
go round, and an endpoint that was left alone for long is owed nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sidecar.policy.aperture import Aperture
from sidecar.policy.balancer import Balancer, PickContext, Rng, untried, warmth

if TYPE_CHECKING:
    from sidecar.policy.cluster import Cluster
    from sidecar.policy.endpoint import Endpoint

FULL_SCAN: Final = 16  # up to so many endpoints all are looked at; Envoy looks at two, or at all when told to
CHOICES: Final = 4  # else so many are drawn: in simulation they take nearly all of the gain of a full scan
# A turn just taken counts as nearly one RPC in flight, and never as a whole one: that would outweigh a real one.
TURN: Final = 0.999


class TurnTaking(Balancer):
    """The one look around that the load-aware balancers share: the lowest price for the load that is there. Where there
    are many endpoints it goes through an aperture.

        price x (idle + in flight x share + part x turns ahead)

    `idle` is what an RPC costs where nothing else runs, `part` how much of an RPC a turn just taken counts. The price
    of an endpoint is the subclass' affair; where all are equal, load alone decides.
    """

    wants_context = False

    def __init__(self, rng: Rng, full_scan: int, choices: int, idle: float, part: float) -> None:
        self._draw = rng.random
        self._aperture = Aperture(rng)
        self._clock: float = 1.0  # virtual: the turn of the newest pick
        self._full_scan = full_scan
        self._choices = choices
        self._idle = idle
        self._part = part

    def pick(self, cluster: Cluster, context: PickContext | None, now: float) -> Endpoint:
        candidates = untried(cluster.pickable, context)
        count = len(candidates)
        span = count  # how many of them may be looked at
        if count > self._full_scan:
            span = min(count, self._aperture.width(cluster.in_flight))
        everyone = span <= self._full_scan
        draw = 0.0 if everyone else self._draw()
        clock, idle, part = self._clock, self._idle, self._part
        best = candidates[0]
        best_price = -1.0
        best_share = 1.0
        for look in range(span if everyone else self._choices):
            index = look
            if not everyone:
                # one random number is good for four places: 53 bits
                draw *= span
                index = int(draw)
                draw -= index
            if span < count:
                index = self._aperture.look(index, count, now)
            other = candidates[index]
            share = other.share
            if other.warm_at > now:
                share /= warmth(other, cluster.slow_start, now)
            ahead = other.turn - clock
            load = idle + other.in_flight * share
            if ahead > 0.0:
                load += part * ahead
            price = other.price * load
            if price < best_price or best_price < 0.0:
                best, best_price, best_share = other, price, share
        self.take_turn(best, best_share)
        return best

    def take_turn(self, endpoint: Endpoint, share: float) -> None:
        """`endpoint` was picked; an RPC weighs `share` there."""
        self._clock = max(self._clock, endpoint.turn)
        endpoint.turn = self._clock + share

    def on_change(self, cluster: Cluster) -> None:
        pickable = cluster.pickable
        if not pickable:
            return
        mean = sum([endpoint.worth for endpoint in pickable]) / len(pickable)
        for endpoint in pickable:
            endpoint.share = mean / endpoint.worth
            ahead = endpoint.turn - self._clock
            if endpoint.turn == 0.0:
                ahead = self._draw() * endpoint.share  # anywhere: sidecars must not march in step (LB-01)
            endpoint.turn = self._clock + min(max(ahead, 0.0), endpoint.share)


class LeastRequest(TurnTaking):
    """The endpoint with the fewest RPCs in flight for its weight; the next in turn among equals."""

    name = "least_request"

    def __init__(self, rng: Rng, full_scan: int = FULL_SCAN, choices: int = CHOICES) -> None:
        super().__init__(rng, full_scan, choices, idle=0.0, part=TURN)

    def on_change(self, cluster: Cluster) -> None:
        TurnTaking.on_change(self, cluster)
        for endpoint in cluster.pickable:
            endpoint.price = 1.0  # nobody is dearer than another
