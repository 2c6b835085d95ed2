"""The seam of the balancers. A balancer chooses among `cluster.pickable`; it never blocks.

`pick` is called once per attempt, `done` once per attempt that was started. The caller keeps `in_flight`, of the
endpoint and of the cluster. A user's class (`module:Class`) subclasses `Balancer` and costs one Python call per RPC.
What comes with the sidecar is listed in `builtin`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from sidecar.http2.interface import HeaderBlock
    from sidecar.policy.cluster import Cluster
    from sidecar.policy.endpoint import Endpoint
    from sidecar.rpc.load_report import LoadReport
    from sidecar.rpc.metadata import RequestHead


COLDEST: Final = 0.1  # the share of its weight with which a slow start begins: Envoy's floor


class Rng(Protocol):
    """The part of random.Random that policies use."""

    def random(self) -> float: ...

    def randrange(self, stop: int, /) -> int: ...


class PickContext:
    """What a balancer may know of the RPC. Made only for balancers that ask for it, and for every retry."""

    __slots__ = ("block", "head", "tried")

    def __init__(self, head: RequestHead, tried: tuple[Endpoint, ...], block: HeaderBlock | None = None) -> None:
        self.head = head
        self.tried = tried  # endpoints of earlier attempts, avoided while another is pickable (RT-07)
        self.block = block  # every field of the request head


class Balancer:
    """Chooses an endpoint. Subclass it; `name` shows in `/clusters`."""

    name: str = "custom"
    wants_context: bool = True
    wants_load: bool = False  # whether `take_report` is to be called: reading trailers costs time
    report_interval: float = 0.0  # seconds between the reports that endpoints are asked for; 0: none

    def pick(self, cluster: Cluster, context: PickContext | None, now: float) -> Endpoint:
        """One of `cluster.pickable`, which is never empty here and never changes while this runs."""
        raise NotImplementedError

    def done(self, endpoint: Endpoint, outcome: int, latency: float, now: float) -> None:
        """An attempt on `endpoint` ended (`rpc.outcome`), after `latency` seconds."""

    def push_back(self, endpoint: Endpoint, seconds: float, now: float) -> None:
        """The endpoint asked to be spared: RESOURCE_EXHAUSTED, or for `seconds`; 0: it named no time. After `done`."""

    def take_report(self, endpoint: Endpoint, report: LoadReport, now: float) -> None:
        """The endpoint has said how loaded it is: in the trailer of an RPC, before its `done`, or when asked."""

    def on_change(self, cluster: Cluster) -> None:
        """`cluster.pickable` was replaced."""

    def why_avoided(self, endpoint: Endpoint, cluster: Cluster, now: float) -> str:
        """Why this one of `cluster.pickable` gets none of the RPCs at present, for an operator; empty: it may get some.

        Asked for each endpoint that somebody looks at, and never for an RPC.
        """
        return ""


def untried(candidates: list[Endpoint], context: PickContext | None) -> list[Endpoint]:
    """The candidates that no earlier attempt of this RPC went to; all of them when there are no others."""
    if context is None or not context.tried:
        return candidates
    return [endpoint for endpoint in candidates if endpoint not in context.tried] or candidates


def warmth(endpoint: Endpoint, window: float, now: float) -> float:
    """The part of its weight that an endpoint in slow start is worth, COLDEST to 1."""
    if window <= 0.0 or endpoint.warm_at <= now:
        return 1.0
    ramp = 1.0 - (endpoint.warm_at - now) / window
    return ramp if ramp > COLDEST else COLDEST
