"""A few members of many, others in each sidecar: deterministic subsetting by rendezvous hashing (gRFC A68).

Each member is ranked by a hash of its address, seeded once per process. So all sidecars together use all members about
equally, and one member that joins or leaves changes at most one of the chosen.
"""

from __future__ import annotations

from sidecar.policy.snapshot import Member
from sidecar.policy.xxh64 import xxh64


def choose_subset(members: tuple[Member, ...], size: int, seed: int) -> tuple[Member, ...]:
    """`size` of the members, in the order in which they came; all of them when there are no more."""
    if len(members) <= size:
        return members
    ranked = sorted(members, key=lambda member: xxh64(member.address.encode(), seed))
    chosen = {member.address for member in ranked[:size]}
    return tuple(member for member in members if member.address in chosen)
