"""A limit of RPCs per second, with a burst: the generic cell rate algorithm, which is one number per limit.

It refuses what comes too soon and says how soon is not; nothing is queued, and time is an argument.
"""

from typing import Annotated

from msgspec import Meta, Struct

from sidecar.units import Count


class RateSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How many RPCs per second are forwarded; more are refused with RESOURCE_EXHAUSTED and told when to come again."""

    per_second: Annotated[
        float, Meta(ge=0.001, le=1_000_000, description="RPCs per second, over any longer time.", examples=[100])
    ]
    burst: Annotated[Count, Meta(le=1_000_000, description="RPCs that may come at once after a pause.")] = (
        10  # linkerd: the rate of one second; Envoy: the bucket's size, which must be given
    )


class Rate:
    """One limit (GCRA: ITU-T I.371). Each RPC moves on the instant at which the limit would be unused again."""

    __slots__ = ("_interval", "_tolerance", "_unused_at", "key", "settings")

    def __init__(self, settings: RateSettings, key: str) -> None:
        self.settings = settings
        self.key = key  # where it is set, for who reads of a refusal
        self._interval = 1.0 / settings.per_second
        self._tolerance = self._interval * (settings.burst - 1)
        self._unused_at = 0.0

    def wait(self, now: float) -> float:
        """0.0: an RPC that comes now is within the limit. Else the seconds after which one would be."""
        wait = self._unused_at - self._tolerance - now
        return wait if wait > _ROUNDING else 0.0

    def count(self, now: float) -> None:
        """The RPC is forwarded."""
        self._unused_at = max(self._unused_at, now) + self._interval

    def __str__(self) -> str:
        return f"{self.settings.per_second:g} RPCs/s (burst {self.settings.burst})"


_ROUNDING = 1e-9  # seconds: an RPC that comes exactly when it was told to must not be refused for a last bit
