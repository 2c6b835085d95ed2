"""How much of the new work is turned away while the event loop is late.

One late turn is no overload: a pause of the process is over when it is noticed. So it counts only when every heartbeat
for a while was late, as CoDel judges a queue by its least delay (RFC 8289). Then a share of the new RPCs is refused,
which grows until the loop keeps up and shrinks more slowly, so that load and refusals settle instead of swinging.
"""

from typing import Annotated, Final

from msgspec import Meta, Struct

from sidecar.units import Duration

STANDING: Final = 4  # heartbeats in a row that must be late: a second of them
STEP: Final = 0.1  # of the share, by which a late heartbeat raises it
EASING: Final = 0.05  # by which one in time lowers it: more slowly, so that it does not swing
MOST: Final = 0.9  # of the share: some RPC always tells whether it is over
IN_TIME: Final = 0.5  # of the limit: below it the share shrinks, between the two it stays (hysteresis)


class OverloadSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the sidecar does when it has more to do than it can."""

    max_lag: Annotated[
        Duration,
        Meta(
            description="When the event loop stays later than this, a growing share of new RPCs is refused with"
            " UNAVAILABLE and told to wait; 0: never."
        ),
    ] = 0.5  # linkerd sheds by its queue alone; Envoy by memory, and counts turns above 200 ms as a miss
    pushback: Annotated[
        Duration, Meta(description="How long they are told to wait, +-50 % (grpc-retry-pushback-ms).")
    ] = 1.0  # CoDel's idea of a while; gRPC's first backoff


class Shedder:
    """The share of new RPCs that is refused. `active` is all that an RPC asks while nothing is wrong."""

    def __init__(self, settings: OverloadSettings) -> None:
        self.settings = settings
        self.active = False
        self.share = 0.0
        self.lag = 0.0  # the least of the newest heartbeats, seconds
        self._newest: tuple[float, ...] = ()
        self._debt = 0.0

    def note(self, lag: float) -> None:
        """A heartbeat came `lag` seconds late."""
        self._newest = (*self._newest, lag)[-STANDING:]
        self.lag = min(self._newest)
        limit = self.settings.max_lag
        if limit and self.lag > limit and len(self._newest) == STANDING:
            self.share = min(MOST, self.share + STEP)
        elif not limit or lag <= limit * IN_TIME:
            self.share = max(0.0, self.share - EASING)
        if self.share < EASING / 2:
            self.share = self._debt = 0.0
        self.active = self.share > 0.0

    def refuses(self) -> bool:
        """Whether the RPC that has just come is one of the share. They are spread evenly, not drawn."""
        self._debt += self.share
        if self._debt < 1.0:
            return False
        self._debt -= 1.0
        return True
