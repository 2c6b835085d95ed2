"""What holds for an RPC by its method: found once, by `/pkg.Service/Method`, then `/pkg.Service/*`, then the rest.

The table is built from an upstream's settings and never changes: a reload puts another in its place. An upstream that
sets nothing of the kind has no table, and its RPCs pay for none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import structs

from sidecar.policy.budget import RetryBudget, RetryThrottle
from sidecar.policy.hedge import HedgePace, HedgePolicy
from sidecar.policy.method_settings import (
    BudgetSettings,
    MethodSettings,
    RetrySettings,
    ThrottleSettings,
    TimeoutSettings,
)
from sidecar.policy.rate import Rate
from sidecar.policy.retry import RetryPolicy
from sidecar.rpc.metadata import RequestHead

REST: Final = "*"  # the name of the policy of methods that have no entry


class MethodPolicy:
    """The ready-made parameters of the RPCs of one entry, shared by all of them; `rate` alone keeps a count."""

    __slots__ = ("hedge", "idle", "max_duration", "name", "rate", "retry", "timeout")

    def __init__(self, name: str, settings: MethodSettings, rate: Rate | None) -> None:
        timeouts = settings.timeouts or TimeoutSettings()
        retry = RetryPolicy(settings.retry or RetrySettings())
        self.name = name  # the entry's key, or REST
        self.timeout: float = timeouts.total  # seconds; 0: none
        self.rate = rate  # that its RPCs count against, with those of other entries where it has none of its own
        self.idle: float = timeouts.idle  # seconds; 0: without end
        self.max_duration: float = timeouts.max_duration  # likewise
        self.retry: RetryPolicy | None = retry if retry.useful else None
        self.hedge: HedgePace | None = None  # with its account: one for all RPCs of the entry
        if settings.hedge is not None and settings.hedge.max_attempts > 1:
            self.hedge = HedgePace(HedgePolicy(settings.hedge))

    def bound(self, timeout: float | None) -> float | None:
        """The time that an RPC has whose caller gives it `timeout` seconds; None: without end."""
        if self.timeout and (timeout is None or timeout > self.timeout):
            return self.timeout
        return timeout

    def __repr__(self) -> str:
        return f"<MethodPolicy {self.name} timeout={self.timeout:g}s {self.retry or self.hedge!r}>"


class MethodTable:
    """The policies of one upstream, and the accounts that its RPCs share."""

    __slots__ = ("_by_path", "_rest", "budget", "throttle")

    def __init__(
        self,
        own: MethodSettings,
        methods: Mapping[str, MethodSettings],
        budget: BudgetSettings | None = None,
        throttle: ThrottleSettings | None = None,
    ) -> None:
        rate = Rate(own.rate, "rate") if own.rate is not None else None
        self._rest = MethodPolicy(REST, own, rate)
        self._by_path: dict[bytes, MethodPolicy] = {}
        for name, settings in methods.items():
            own_rate = Rate(settings.rate, f"methods.{name}.rate") if settings.rate is not None else rate
            self._by_path[name.encode()] = MethodPolicy(name, merged(own, settings), own_rate)
        self.budget = RetryBudget(budget or BudgetSettings())
        tokens = throttle or ThrottleSettings()
        self.throttle = RetryThrottle(tokens) if tokens.max_tokens else None

    def find(self, path: bytes) -> MethodPolicy:
        """The policy of the method with this `:path`."""
        policy = self._by_path.get(path)
        if policy is None:
            policy = self._by_path.get(path[: path.rfind(b"/") + 1] + b"*", self._rest)
        return policy

    def policy_of(self, head: RequestHead) -> MethodPolicy:
        """The same, remembered by the head, which a codec may hand out many times."""
        if head.methods is not self:
            head.methods = self
            head.policy = self.find(head.path)
        policy: MethodPolicy = head.policy
        return policy


def build_table(
    own: MethodSettings,
    methods: Mapping[str, MethodSettings],
    budget: BudgetSettings | None = None,
    throttle: ThrottleSettings | None = None,
) -> MethodTable | None:
    """The table of an upstream; None when there is nothing to look up."""
    if not methods and own == MethodSettings():
        return None
    return MethodTable(own, methods, budget, throttle)


def merged(own: MethodSettings, method: MethodSettings) -> MethodSettings:
    """The sections of `method`, and the upstream's own where it gives none."""
    if method.retry is not None or method.hedge is not None:  # one or the other governs an RPC
        own = structs.replace(own, retry=None, hedge=None)
    sections = {name: getattr(method, name) or getattr(own, name) for name in MethodSettings.__struct_fields__}
    return MethodSettings(**sections)
