"""What a registry says of one service at one moment. Written by `control`, read by `Cluster`."""

from __future__ import annotations

from msgspec import Struct

# The registry's word on a member. SUSPECT: gone from the registry in a removal too large to believe at once;
# picked only when nothing better is left (RL-23).
PASSING = "passing"
WARNING = "warning"
SUSPECT = "suspect"


class Member(Struct, frozen=True, kw_only=True):
    """One instance. `address` is `host:port` (IPv6 in brackets) and is the identity within a cluster."""

    address: str
    id: str = ""
    status: str = PASSING
    weight: int = 1
    zone: str = ""
    priority: int = 0  # of its level: 0 is used first
    tags: tuple[str, ...] = ()
    meta: dict[str, str] = {}


class Snapshot(Struct, frozen=True, kw_only=True):
    """The full membership of `service` at one index. `source` says who told us: consul, file, static or cache.

    `withdrawn` are addresses that the registry knows but says are out on purpose (maintenance, drain): that is believed
    at once. `left_out` counts healthy instances that are not among those the upstream takes; `wanted` says in words
    what they lack.
    """

    service: str
    members: tuple[Member, ...]
    source: str
    index: int = 0
    withdrawn: tuple[str, ...] = ()
    left_out: int = 0
    wanted: str = ""
