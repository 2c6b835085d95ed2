"""Faults on purpose, for the user's own tests: which RPCs get one, and how many may have one at a time.

The dice and the caps are here; what a fault does to an RPC is in `proxy.fault`.
"""

from collections.abc import Sequence
from typing import Annotated, Final

from msgspec import Meta, Struct

from sidecar.http2.interface import Field
from sidecar.policy.balancer import Rng
from sidecar.policy.match import Match, MatchSettings
from sidecar.policy.method_settings import StatusName
from sidecar.rpc.status import STATUS_NAMES
from sidecar.units import Count, Duration, Size

# Kinds, and what befalls an RPC that would have been one too many; each is a metric label.
DELAY: Final = "delay"
ABORT: Final = "abort"
RESET: Final = "reset"
BANDWIDTH: Final = "bandwidth"
SPARED: Final = "spared"


class FaultSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A fault that RPCs get on purpose, to see what the caller makes of it. A delay comes before anything else."""

    match: Annotated[MatchSettings, Meta(description="Which RPCs are meant.")] = MatchSettings()
    percent: Annotated[float, Meta(ge=0, le=100, description="How many of them get it, by chance.")] = 100.0
    delay: Annotated[Duration, Meta(description="How long the RPC is held back before anything else.")] = 0.0
    abort: Annotated[
        StatusName | None,
        Meta(description="The grpc-status that it is answered with; no endpoint sees it.", examples=["UNAVAILABLE"]),
    ] = None
    reset: Annotated[bool, Meta(description="Reset its stream (INTERNAL_ERROR); no endpoint sees it.")] = False
    bandwidth: Annotated[Size, Meta(description="Octets per second of its response; 0: as fast as it comes.")] = 0
    max_active: Annotated[
        Count, Meta(description="RPCs that are held back or slowed down at a time; more are spared.")
    ] = 100  # Envoy's max_active_faults: no limit
    lasts: Annotated[
        Duration, Meta(description="The fault ends by itself this long after it was put in force; 0: never.")
    ] = 0.0  # Envoy none; Chaos Mesh's duration


class Fault:
    """One fault in force. `active` is kept by whoever injects it."""

    def __init__(self, number: int, settings: FaultSettings, now: float) -> None:
        self.name = f"faults[{number}]"
        self.settings = settings
        self.status = STATUS_NAMES.index(settings.abort) if settings.abort else 0  # of the abort; OK: none
        self.active = 0
        self._match = Match(settings.match)
        self._share = settings.percent / 100.0
        self._ends_at = now + settings.lasts if settings.lasts else float("inf")

    def meant(self, path: bytes, fields: Sequence[Field], now: float) -> bool:
        """Whether it is for this RPC, and still in force."""
        return now < self._ends_at and self._match.fits(path, fields)

    def drawn(self, rng: Rng) -> bool:
        """Whether chance gives it to this one."""
        return rng.random() < self._share

    @property
    def lingers(self) -> bool:
        """Whether an RPC has it for a time, and so counts against `max_active`."""
        return self.settings.delay > 0 or self.settings.bandwidth > 0

    @property
    def full(self) -> bool:
        """Whether as many RPCs have it as may."""
        return self.lingers and self.active >= self.settings.max_active

    def ended(self, now: float) -> bool:
        """Whether its time is over."""
        return now >= self._ends_at

    def __str__(self) -> str:
        settings = self.settings
        what = [f"delay {settings.delay:g}s"] if settings.delay else []
        what += [f"abort {settings.abort}"] if settings.abort else []
        what += ["reset"] if settings.reset else []
        what += [f"{settings.bandwidth} octets/s"] if settings.bandwidth else []
        return f"{self.name}: {settings.percent:g} % of {settings.match.method or 'all RPCs'}: {', '.join(what)}"


class Faults:
    """Those of one upstream. The first that is for an RPC decides, and chance then says whether it is given."""

    def __init__(self, settings: Sequence[FaultSettings], now: float) -> None:
        self.all = [Fault(number, each, now) for number, each in enumerate(settings)]

    def choose(self, path: bytes, fields: Sequence[Field], rng: Rng, now: float) -> Fault | None:
        """The fault that an RPC gets, if any."""
        for fault in self.all:
            if fault.meant(path, fields, now):
                return fault if fault.drawn(rng) else None
        return None
