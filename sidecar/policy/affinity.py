"""Balancers that keep RPCs together: the same header value goes to the same endpoint, as long as that can bear it.

A table is made of all members, whoever is connected, and made anew only when members or weights change. An RPC whose
endpoint cannot be picked, was tried already or is loaded beyond its limit goes to the next in the table's own order,
which is the same in every sidecar: so a lost endpoint's RPCs are spread, and everybody else's stay where they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import TYPE_CHECKING, Final

from sidecar.policy.balancer import Balancer, PickContext, Rng, untried
from sidecar.policy.settings import BalancingSettings
from sidecar.policy.xxh64 import xxh64

if TYPE_CHECKING:
    from sidecar.policy.cluster import Cluster
    from sidecar.policy.endpoint import Endpoint

LIGHT: Final = 8  # RPCs in flight that are no load to speak of: below it nobody is sent elsewhere
KEYS: Final = 10_007  # kinds of keys; prime, and no size of a table: the kind of a key must say nothing of its owner
DIGITS: Final = 9  # shares that differ in none of them are the same


class Affinity(Balancer):
    """What ring_hash and maglev have in common: the key, the limit, and who comes next. They supply the order."""

    wants_context = True

    def __init__(self, rng: Rng, settings: BalancingSettings) -> None:
        self._rng = rng
        self._header = settings.hash_on.encode("ascii")
        self._limit = settings.hash_load_limit
        self._members: list[tuple[str, int]] = []
        self._endpoints: list[Endpoint] = []
        self._pickable: frozenset[Endpoint] = frozenset()
        self._parts: dict[Endpoint, tuple[float, float]] = {}  # of KEYS kinds, which each takes; empty: all

    def pick(self, cluster: Cluster, context: PickContext | None, now: float) -> Endpoint:
        allowed = self._pickable
        if context is not None and context.tried:
            allowed = frozenset(untried(cluster.pickable, context))
        key = self.hash_of(context)
        full = 0.0  # in flight that is too much per weight; found out when somebody may be above it
        crowded: Endpoint | None = None
        for endpoint in self.order(key):
            if endpoint not in allowed or (self._parts and not self._takes(endpoint, key)):
                continue
            if not self._limit or endpoint.in_flight < LIGHT:
                return endpoint
            full = full or self._full(allowed)
            if endpoint.in_flight < ceil(full * endpoint.worth):
                return endpoint
            crowded = crowded or endpoint
        return crowded or min(allowed, key=_load)

    def _takes(self, endpoint: Endpoint, key: int) -> bool:
        begin, end = self._parts[endpoint]
        return begin <= key % KEYS < end

    def _full(self, allowed: frozenset[Endpoint]) -> float:
        in_flight = sum(endpoint.in_flight for endpoint in allowed) + 1
        return self._limit * in_flight / sum(endpoint.worth for endpoint in allowed)

    def hash_of(self, context: PickContext | None) -> int:
        """Of the header's values; any number for an RPC that does not have it (gRFC A76)."""
        if context is not None and context.block is not None:
            values = [value for name, value in context.block.fields if name == self._header]
            if values:
                return xxh64(b",".join(values), 0)
        return int(self._rng.random() * 2**64)

    def order(self, key: int) -> Iterator[Endpoint]:
        """The endpoints in the order in which they are asked for `key`; some may come again, some never."""
        raise NotImplementedError

    def build(self) -> None:
        """Make the table anew from `_endpoints`."""
        raise NotImplementedError

    def on_change(self, cluster: Cluster) -> None:
        members = [(endpoint.address, endpoint.weight) for endpoint in cluster.endpoints]
        self._endpoints = cluster.endpoints
        self._pickable = frozenset(cluster.pickable)
        self._parts = _parts_of(cluster.pickable)
        if members != self._members:
            self._members = members
            self.build()


def _load(endpoint: Endpoint) -> float:
    return (endpoint.in_flight + 1) / endpoint.worth


def _parts_of(pickable: list[Endpoint]) -> dict[Endpoint, tuple[float, float]]:
    """Where levels or zones divide the load, the keys are divided before they are looked up: who takes which."""
    if len({round(endpoint.worth / endpoint.weight, DIGITS) for endpoint in pickable}) <= 1:
        return {}
    groups: dict[tuple[int, float], list[Endpoint]] = {}
    for endpoint in pickable:
        share = round(endpoint.worth / endpoint.weight, DIGITS)
        groups.setdefault((endpoint.member.priority, -share), []).append(endpoint)
    parts: dict[Endpoint, tuple[float, float]] = {}
    whole = sum(endpoint.worth for endpoint in pickable)
    begin = 0.0
    for group in sorted(groups):
        end = begin + KEYS * sum(endpoint.worth for endpoint in groups[group]) / whole
        parts.update(dict.fromkeys(groups[group], (begin, end)))
        begin = end
    return parts
