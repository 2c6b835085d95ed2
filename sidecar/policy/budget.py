"""How much of an upstream's traffic may be retries and hedges: what keeps a failure from becoming a storm.

Three accounts, each of one upstream: retries against RPCs (Envoy's and linkerd's forms), gRFC A6's tokens, and the
tokens that hedges cost. They count and answer; who asks acts on it.
"""

from __future__ import annotations

from sidecar.policy.method_settings import BudgetSettings, ThrottleSettings


class RetryBudget:
    """How many retries may be under way, and how many may be made. Both accounts must allow one.

    Under way: at most `ratio` for each RPC that is and is no retry, and always `floor` (RT-12). A retry counts from the
    moment it is decided on until its attempt is over or is the answer: its backoff included.
    Made, in this second of the clock and the one before: at most `ratio` for each RPC that began in them, and always
    `per_second`. Where answers are fast the first account alone allows any number: three at a time, a hundred a second.
    """

    __slots__ = (
        "_begun",
        "_begun_before",
        "_made",
        "_made_before",
        "_second",
        "active",
        "floor",
        "per_second",
        "ratio",
    )

    def __init__(self, settings: BudgetSettings) -> None:
        self.ratio = settings.ratio
        self.floor = settings.floor
        self.per_second = settings.per_second
        self.active: int = 0
        self._second: int = 0
        self._begun = self._begun_before = 0
        self._made = self._made_before = 0

    def begin(self, now: float) -> None:
        """An RPC began that may be retried."""
        self._turn(now)
        self._begun += 1

    def take(self, in_flight: int, now: float) -> bool:
        """Begin a retry, if one more is allowed while `in_flight` RPCs are under way, those that retry included."""
        self._turn(now)
        if self.active >= max(self.floor, self.ratio * (in_flight - self.active)):
            return False
        if self._made + self._made_before >= self.ratio * (self._begun + self._begun_before) + 2 * self.per_second:
            return False
        self.active += 1
        self._made += 1
        return True

    def give_back(self) -> None:
        """It is over."""
        self.active -= 1

    def _turn(self, now: float) -> None:
        second = int(now)
        if second != self._second:
            follows = second == self._second + 1
            self._begun_before, self._made_before = (self._begun, self._made) if follows else (0, 0)
            self._begun = self._made = 0
            self._second = second

    def __repr__(self) -> str:
        return (
            f"<RetryBudget active={self.active} made={self._made} ratio={self.ratio:g} floor={self.floor}"
            f" per_second={self.per_second}>"
        )


class RetryThrottle:
    """The tokens of gRFC A6: retries and hedges pause while half of them or more are gone (RT-03).

    With the default ratio of 1 they go down while more attempts fail than succeed. One rule is our own: RPCs that are
    lost with one connection are one failure, since losing one instance of many proves nothing against a retry.
    """

    __slots__ = ("lost_at", "most", "ratio", "tokens")

    def __init__(self, settings: ThrottleSettings) -> None:
        self.most = settings.max_tokens
        self.ratio = round(settings.token_ratio, 3)  # A6 keeps three decimals
        self.tokens = float(settings.max_tokens)
        self.lost_at = -1.0  # the instant of the newest loss

    @property
    def open(self) -> bool:
        """Whether retries are allowed."""
        return self.tokens > self.most / 2

    def fail(self, lost_at: float | None = None) -> None:
        """An attempt failed in a way that can be retried, or the endpoint asked not to retry.

        `lost_at`: it went with its connection, which takes all of its attempts with it in that one instant.
        """
        if lost_at is not None:
            if lost_at == self.lost_at:
                return
            self.lost_at = lost_at
        self.tokens = max(0.0, self.tokens - 1)

    def succeed(self) -> None:
        """An RPC succeeded."""
        self.tokens = min(float(self.most), self.tokens + self.ratio)

    @property
    def note(self) -> str:
        """Why there are no retries at present, for an operator; empty while there may be."""
        if self.open:
            return ""
        left = f"{self.tokens:g} of {self.most} tokens are left, and a retry needs more than half"
        return f"retries and hedges pause, since attempts fail: {left}"

    def __repr__(self) -> str:
        return f"<RetryThrottle tokens={self.tokens:g} of {self.most}>"


class HedgeBudget:
    """At most `ratio` hedges for each RPC that could be hedged: an RPC earns that part of a token, a hedge costs one.

    It starts empty, and saves up to `MOST`, so that a moment in which everything is slow does not double the load.
    """

    MOST = 10.0  # tokens, as gRFC A6's maxTokens in gRPC's own examples

    __slots__ = ("ratio", "tokens")

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio
        self.tokens = 0.0

    def earn(self) -> None:
        """An RPC began."""
        self.tokens = min(self.MOST, self.tokens + self.ratio)

    def spend(self) -> bool:
        """A hedge begins, if there is a token for it."""
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    def __repr__(self) -> str:
        return f"<HedgeBudget tokens={self.tokens:.2f} ratio={self.ratio:g}>"
