"""Maglev: a large table of which every endpoint owns its share; an RPC belongs to the owner of its place.

After Eisenbud et al., NSDI 2016: all keys in one step, and nearly all of them stay where they are when a member leaves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from sidecar.policy.affinity import Affinity
from sidecar.policy.balancer import Rng
from sidecar.policy.settings import BalancingSettings
from sidecar.policy.xxh64 import xxh64

if TYPE_CHECKING:
    from sidecar.policy.endpoint import Endpoint

MAGLEV_TABLE: Final = 65_537  # places, a prime: Envoy's, and the paper's small one
WANDERING: Final = 64  # places that are looked at before any endpoint will do


class Maglev(Affinity):
    """In proportion to the weights."""

    name = "maglev"

    def __init__(self, rng: Rng, settings: BalancingSettings, size: int = MAGLEV_TABLE) -> None:
        super().__init__(rng, settings)
        self._size = size  # a prime
        self._table: list[int] = []  # the owner of each place, as an index

    def build(self) -> None:
        if not self._members:
            self._table = []
            return
        heaviest = max(weight for _, weight in self._members)
        shares = [weight / heaviest for _, weight in self._members]
        # By address, so that every sidecar makes the same table whatever order its registry answers in.
        turns = sorted(range(len(self._members)), key=lambda owner: self._members[owner])
        self._table = fill(
            self._size,
            turns,
            [xxh64(address.encode(), 0) % self._size for address, _ in self._members],
            [xxh64(address.encode(), 1) % (self._size - 1) + 1 for address, _ in self._members],
            shares,
        )

    def order(self, key: int) -> Iterator[Endpoint]:
        table, size = self._table, self._size
        for step in range(WANDERING):
            # Elsewhere each time, so that a lost endpoint's RPCs do not all go to one neighbour.
            place = key if step == 0 else xxh64(key.to_bytes(8, "little"), step)
            yield self._endpoints[table[place % size]]


def fill(size: int, turns: list[int], offsets: list[int], skips: list[int], shares: list[float]) -> list[int]:
    """The owner of each of `size` places: in turns, everybody takes the next free place of its own permutation.

    `shares` (0 to 1): in what part of the rounds one has its turn.
    """
    table = [0] * size
    taken = bytearray(size)
    places = list(offsets)
    credits = [0.0] * len(offsets)
    free = size
    while True:
        for owner in turns:
            credit = credits[owner] + shares[owner]
            credits[owner] = credit - 1.0 if credit >= 1.0 else credit
            if credit < 1.0:
                continue
            place, skip = places[owner], skips[owner]
            while taken[place]:
                place = (place + skip) % size
            taken[place] = 1
            table[place] = owner
            places[owner] = (place + skip) % size
            free -= 1
            if not free:
                return table
