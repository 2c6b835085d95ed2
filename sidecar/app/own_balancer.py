"""A user's balancer, kept at arm's length: what it raises must not reach the pool, the watch, or another RPC.

`pick` is checked, since an endpoint without a connection would be picked again and again. What `pick` raises fails the
one RPC (13); what `done` and its siblings raise is logged and changes nothing.
"""

from __future__ import annotations

import logging

from sidecar.policy.balancer import Balancer, PickContext
from sidecar.policy.cluster import Cluster
from sidecar.policy.endpoint import READY, Endpoint
from sidecar.rpc.load_report import LoadReport

log = logging.getLogger("sidecar.app")

_READY = READY  # a number of its own, so that the compiled form compares without objects
_DEAF: type[Balancer] = Balancer  # whose `done` does nothing


class BalancerFault(Exception):
    """A user's balancer answered something that is no answer."""


class OwnBalancer(Balancer):
    """`inner` as the configuration names it."""

    def __init__(self, inner: Balancer, label: str) -> None:
        self.inner = inner
        self.label = label
        self.name = inner.name
        self.wants_context = inner.wants_context
        self.wants_load = inner.wants_load
        self.report_interval = inner.report_interval
        self._counts = type(inner).done is not _DEAF.done  # else nothing would come of calling it for every attempt

    def pick(self, cluster: Cluster, context: PickContext | None, now: float) -> Endpoint:
        picked: object = self.inner.pick(cluster, context, now)
        if isinstance(picked, Endpoint):
            endpoint: Endpoint = picked
            if endpoint.connectivity == _READY and not endpoint.removed and not endpoint.saturated:
                return endpoint
        raise BalancerFault(f"{self.label} picked {picked!r}, which is not in cluster.pickable")

    def done(self, endpoint: Endpoint, outcome: int, latency: float, now: float) -> None:
        if not self._counts:
            return
        try:
            self.inner.done(endpoint, outcome, latency, now)
        except Exception:
            log.exception("the balancer %s failed in `done`; the RPC is not affected", self.label)

    def push_back(self, endpoint: Endpoint, seconds: float, now: float) -> None:
        try:
            self.inner.push_back(endpoint, seconds, now)
        except Exception:
            log.exception("the balancer %s failed in `push_back`; the RPC is not affected", self.label)

    def take_report(self, endpoint: Endpoint, report: LoadReport, now: float) -> None:
        try:
            self.inner.take_report(endpoint, report, now)
        except Exception:
            log.exception("the balancer %s failed in `take_report`; the RPC is not affected", self.label)

    def on_change(self, cluster: Cluster) -> None:
        try:
            self.inner.on_change(cluster)
        except Exception:
            log.exception("the balancer %s failed in `on_change`; the endpoints are in force all the same", self.label)

    def why_avoided(self, endpoint: Endpoint, cluster: Cluster, now: float) -> str:
        try:
            return str(self.inner.why_avoided(endpoint, cluster, now) or "")
        except Exception:
            log.exception("the balancer %s failed in `why_avoided`; no RPC is affected", self.label)
            return ""
