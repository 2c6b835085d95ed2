"""How many RPCs an upstream gets at a time, found out from how long it takes: a gradient, as Envoy's filter has it.

The baseline is the median latency while the upstream is not pressed. Each window compares its own median with that:
as long as the two are alike the limit grows, when RPCs begin to wait for one another it shrinks in proportion. The
baseline is measured anew from time to time, in a window with half the limit; a lightly used upstream gives such windows
by itself, and only a busy one is held back for it (Envoy holds everybody back, to three).
"""

from math import sqrt
from typing import Annotated, Final

from msgspec import Meta, Struct

from sidecar.policy.balancer import Rng
from sidecar.units import Count, Duration

WINDOW: Final = 0.1  # seconds at least (Envoy's concurrency_update_interval)
SAMPLES: Final = 25  # at least, per window; Envoy 50 for its baseline
FIRST_LIMIT: Final = 20  # Netflix 20, Envoy 3
SMALLEST_STEP: Final = 0.5  # of the limit, per window (Envoy)
LARGEST_STEP: Final = 2.0  # likewise
JITTER: Final = 0.15  # of the interval, so that sidecars do not probe together (Envoy 15 %)


class ConcurrencySettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A limit of RPCs in flight that follows the upstream's latency. For unary RPCs: a long stream holds a place."""

    min_limit: Annotated[Count, Meta(description="It never falls below this.")] = 5  # Envoy 3
    max_limit: Annotated[Count, Meta(description="It never grows above this.")] = 1000  # Envoy 1000
    tolerance: Annotated[
        float, Meta(ge=0, le=10, description="How much above the baseline is still as good as it; 0.25 is 25 %.")
    ] = 0.25  # Envoy 25 %
    probe_interval: Annotated[
        Duration, Meta(ge=1, description="How old the baseline may get before it is measured again, +-15 %.")
    ] = 60.0  # Envoy's examples 60 s


class Concurrency:
    """The limit of one upstream. It is told of each RPC that was answered, and of each that ran out of time."""

    def __init__(self, settings: ConcurrencySettings, rng: Rng) -> None:
        self.settings = settings
        self.baseline = 0.0  # seconds; 0: not measured yet
        self.limit = max(settings.min_limit, min(FIRST_LIMIT, settings.max_limit))
        self.probing = False
        self._rng = rng
        self._due_at = 0.0  # when the baseline is too old
        self._former = 0  # the limit outside the probe
        self._since = 0.0  # samples of RPCs that began earlier do not count
        self._until = 0.0  # the window's earliest end
        self._samples: list[float] = []
        self._busiest = 0  # in flight, within the window

    def note(self, seconds: float, in_flight: int, now: float) -> None:
        """An RPC took `seconds` and ends now; `in_flight` counts it and those that still run."""
        self._busiest = max(self._busiest, in_flight)
        if self.probing and not self._since and in_flight <= self.limit:
            self._since = now  # the excess of before the probe has gone
            self._begin_window(now)
        if (self.probing and not self._since) or now - seconds < self._since:
            return
        if not self._until:
            self._begin_window(now)
        self._samples.append(seconds)
        if now >= self._until and len(self._samples) >= SAMPLES:
            self._end_window(sorted(self._samples)[len(self._samples) // 2], now)
            self._begin_window(now)

    def _begin_window(self, now: float) -> None:
        self._samples.clear()
        self._until = now + WINDOW
        self._busiest = 0

    def _end_window(self, latency: float, now: float) -> None:
        if self.probing:
            self.probing = False
            self.limit = self._former
            self._since = 0.0
            self._set_baseline(latency, now)
        elif not self.baseline or latency < self.baseline:
            self._set_baseline(latency, now)
        elif now >= self._due_at:
            if self._busiest <= self.limit // 2:
                self._set_baseline(latency, now)
            else:
                self.probing = True
                self._since = 0.0
                self._former, self.limit = self.limit, max(self.settings.min_limit, self.limit // 2)
                return
        self._step(latency)

    def _set_baseline(self, latency: float, now: float) -> None:
        self.baseline = latency
        self._due_at = now + self.settings.probe_interval * (1.0 + JITTER * (2.0 * self._rng.random() - 1.0))

    def _step(self, latency: float) -> None:
        """Shrink with the gradient; grow only where the limit is in use: an idle hour says nothing of a busy one."""
        gradient = self.baseline * (1.0 + self.settings.tolerance) / max(latency, 1e-9)
        limit = int(self.limit * min(LARGEST_STEP, max(SMALLEST_STEP, gradient)) + sqrt(self.limit))
        if limit > self.limit and self._busiest <= self.limit // 2:
            return
        self.limit = max(self.settings.min_limit, min(limit, self.settings.max_limit))

    def __repr__(self) -> str:
        return f"<Concurrency {self.limit} baseline={self.baseline * 1e3:.3g}ms{' probing' if self.probing else ''}>"
