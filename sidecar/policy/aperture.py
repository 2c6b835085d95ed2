"""A few endpoints at a time: which of many a balancer looks at while it has little in flight.

A caller with one RPC after the other stays among SMALLEST endpoints for a moment, and looks at all of them. It knows
them well then, since it has just heard of them, and their connections are in the caches: elsewhere an RPC costs up to a
quarter more (docs/decisions/0019). Each place there goes to another endpoint every STAY, one place after the other,
drawn by a hash: all endpoints stand there equally often, and no two sidecars stand together. Every RPC in flight opens
the aperture by OPENING more, so that where load could gather it is wide open. Finagle's random aperture opens with the
load, too, and stays where it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sidecar.policy.balancer import Rng

SMALLEST: Final = 8  # endpoints; Finagle's deterministic aperture 12
OPENING: Final = 32  # endpoints per RPC in flight
STAY: Final = 0.5  # seconds: short beside what watches an instance's load, long beside most RPCs

_STAGGER: Final = 0.6180339887498949  # the golden ratio: however many places there are, they change at different times
_MASK: Final = 0xFFFFFFFFFFFFFFFF
_STEP: Final = 0x9E3779B97F4A7C15  # of SplitMix64 (Steele, Lea, Flood 2014), as is the next
_SPREAD: Final = 0xBF58476D1CE4E5B9

# Numbers of its own, so that the compiled form reckons without objects; there they are not seen from outside.
_SMALLEST: Final = SMALLEST
_OPENING: Final = OPENING
_PER_SECOND: Final = 1.0 / STAY


class Aperture:
    """One per balancer: `width` places, and who stands at each of them."""

    def __init__(self, rng: Rng) -> None:
        self._salt: int = rng.randrange(1 << 62)

    def width(self, in_flight: int) -> int:
        """How many endpoints to look among; as many as there are, if there are no more."""
        return _SMALLEST + _OPENING * in_flight

    def look(self, place: int, count: int, now: float) -> int:
        """Which of `count` endpoints stands at `place` now. It may stand at another place, too."""
        turn = int(now * _PER_SECOND + place * _STAGGER)
        mixed = (self._salt + ((turn << 20) + place) * _STEP) & _MASK
        mixed = ((mixed ^ (mixed >> 30)) * _SPREAD) & _MASK
        return ((mixed >> 32) * count) >> 32
