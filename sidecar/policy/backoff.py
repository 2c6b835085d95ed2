"""How long to wait before trying again: connects of the pool, watches and registrations of the control room.

No clock and no dice here: `rng` is an argument, and the caller does the waiting.
"""

from __future__ import annotations

from sidecar.policy.balancer import Rng

# As `jitter`: anything between nothing and the full delay, so that a crowd spreads over the whole of it.
FULL = 1.0


class Backoff:
    """Delays that grow by `factor` from `base` to `maximum` seconds, each blurred by `jitter`, until a success.

    The defaults are gRPC's connection backoff but for its pace, which is for one data centre: 100 ms instead of
    1 s to begin with, 10 s instead of 120 s at most (doc/connection-backoff.md of gRPC; Envoy 500 ms and 5 s).
    """

    def __init__(self, base: float = 0.1, factor: float = 1.6, maximum: float = 10.0, jitter: float = 0.2) -> None:
        if not (0 < base <= maximum and factor >= 1 and 0 <= jitter <= FULL):
            raise ValueError("a backoff needs 0 < base <= maximum, factor >= 1 and jitter from 0 to 1")
        self.base = base
        self.factor = factor
        self.maximum = maximum
        self.jitter = jitter
        self.failures: int = 0  # since the last success
        self._step = base

    def fail(self, rng: Rng) -> float:
        """Count one failure; the seconds to wait before the next try.

        A jitter below FULL spreads to both sides, so a delay may exceed `maximum` by that share, as in gRPC.
        """
        self.failures += 1
        step = self._step
        self._step = min(step * self.factor, self.maximum)
        if self.jitter == FULL:
            return step * rng.random()
        return step * (1 - self.jitter + 2 * self.jitter * rng.random())

    def succeed(self) -> None:
        """Start from `base` again."""
        self.failures = 0
        self._step = self.base

    def __repr__(self) -> str:
        return f"<Backoff failures={self.failures} next={self._step:.3g}s of {self.maximum:g}s>"
