"""Which levels of members carry the load: the first as long as it can, then as much on the next as it falls short of.

Envoy's rule: a level counts as whole until fewer than 72 % of it are available (times 1.4 that is all of it); below,
the rest of the load goes to the next level in proportion. A member that is still connecting speaks for its level: the
ten seconds that gRPC gives one to come up (A56) are here the time that its first connect takes to fail. A lost
connection speaks against it at once. What carries nothing is a reserve: a retry may go there all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sidecar.policy.endpoint import AWAITED, CONNECTING, IDLE, READY, Endpoint

OVERPROVISIONING: Final = 1.4  # Envoy 140 %


def split_levels(endpoints: list[Endpoint]) -> list[list[Endpoint]]:
    """The members by their priority, the lowest number first. There is always one level, maybe empty."""
    priorities = sorted({endpoint.member.priority for endpoint in endpoints})
    if len(priorities) <= 1:
        return [endpoints]
    return [[endpoint for endpoint in endpoints if endpoint.member.priority == each] for each in priorities]


def availability(level: list[Endpoint]) -> float:
    """The share of a level that takes RPCs, or may as far as is known."""
    return sum(map(_available, level)) / len(level) if level else 0.0


def _available(endpoint: Endpoint) -> bool:
    if not endpoint.healthy or endpoint.suspect or endpoint.saturated:
        return False
    undecided = endpoint.connectivity in (IDLE, CONNECTING) and not endpoint.last_error
    return endpoint.connectivity == READY or undecided


def share_load(available: Sequence[float]) -> list[float]:
    """What part of the load each level carries, given how much of each is available. Something must be."""
    health = [min(1.0, OVERPROVISIONING * share) for share in available]
    total = min(1.0, sum(health))
    left = 1.0
    loads: list[float] = []
    for each in health:
        load = min(left, each / total)
        left -= load
        loads.append(load)
    return loads


def suffices(available: Sequence[float]) -> bool:
    """Whether all levels together carry the load, so that nobody unhealthy has to."""
    return OVERPROVISIONING * sum(available) >= 1.0


def last_resort(tiers: Sequence[list[Endpoint]]) -> list[float]:
    """The loads where nothing is available: all on the first level that can be reached at all."""
    first = next((place for place, tier in enumerate(tiers) if tier), -1)
    return [float(place == first) for place in range(len(tiers))]


def find_reserve(levels: Sequence[list[Endpoint]], tried: Sequence[Endpoint], near: bool, turn: int) -> Endpoint | None:
    """A sound endpoint that is not among `tried`, on the first level that has one, or None.

    With `near` it is in another zone than ours only where none else is left. The least loaded for its weight is taken;
    of equals the one whose `turn` it is.
    """
    for level in levels:
        sound = [endpoint for endpoint in level if _is_sound(endpoint) and endpoint not in tried]
        if near:
            sound = [endpoint for endpoint in sound if not endpoint.foreign] or sound
        if sound:
            first = turn % len(sound)
            return min(sound[first:] + sound[:first], key=_load)
    return None


def _is_sound(endpoint: Endpoint) -> bool:
    return _available(endpoint) and endpoint.connectivity == READY and endpoint.checkup != AWAITED


def _load(endpoint: Endpoint) -> float:
    return endpoint.in_flight / endpoint.weight
