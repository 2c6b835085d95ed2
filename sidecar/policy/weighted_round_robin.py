"""Round robin by what the endpoints themselves say they can do: requests per second over utilization (gRFC A58).

An endpoint that did 100 requests per second with half of itself can do 200. Reports come in trailers or out of band;
one that is young, old or missing counts as the mean of the others, and while fewer than two endpoints have told
anything, the registry's weights hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sidecar.policy.balancer import PickContext, Rng
from sidecar.policy.endpoint import READY
from sidecar.policy.rotation import RoundRobin

if TYPE_CHECKING:
    from sidecar.policy.cluster import Cluster
    from sidecar.policy.endpoint import Endpoint
    from sidecar.policy.settings import LoadReportSettings
    from sidecar.rpc.load_report import LoadReport

# A weight is at most so many times the mean, and at least one such part of it: a report that is nearly nothing, as
# right after a pause, must not draw everything to one endpoint, nor keep it from ever telling more.
FARTHEST: Final = 10.0
NONSENSE: Final = 1e15  # requests per second; also what keeps infinity and NaN out of the reckoning


class Reported:
    """What one endpoint has told since it was connected."""

    __slots__ = ("first_at", "latest_at", "weight")

    def __init__(self, now: float) -> None:
        self.first_at = now  # the beginning of the present series without a gap of `expiry`
        self.latest_at = now
        self.weight = 0.0


class WeightedRoundRobin(RoundRobin):
    """In turn, in proportion to the weights that the reports give."""

    name = "weighted_round_robin"

    def __init__(self, rng: Rng, settings: LoadReportSettings) -> None:
        super().__init__(rng)
        self._settings = settings
        self._reported: dict[Endpoint, Reported] = {}
        self._now: float = 0.0  # of the newest pick or report: `on_change` is told none
        self._due_at: float = 0.0
        self.report_interval = settings.out_of_band
        self.wants_load = not settings.out_of_band  # in trailers, that is: one source is enough (gRFC A58)

    def pick(self, cluster: Cluster, context: PickContext | None, now: float) -> Endpoint:
        if now >= self._due_at:
            self._now = now
            self._weigh(cluster)
        return RoundRobin.pick(self, cluster, context, now)

    def take_report(self, endpoint: Endpoint, report: LoadReport, now: float) -> None:
        used = self._utilization(report)
        if not (report.rps > 0.0 and used > 0.0):
            return
        weight = report.rps / (used + max(0.0, report.eps) / report.rps * self._settings.error_penalty)
        if not 0.0 < weight < NONSENSE:
            return
        reported = self._reported.get(endpoint)
        if reported is None or now - reported.latest_at >= self._settings.expiry:
            reported = self._reported[endpoint] = Reported(now)
        reported.latest_at = now
        reported.weight = weight

    def on_change(self, cluster: Cluster) -> None:
        """An endpoint that lost its connection may come back as another process: what it told is forgotten."""
        kept = {endpoint for endpoint in cluster.endpoints if endpoint.connectivity == READY}
        self._reported = {endpoint: told for endpoint, told in self._reported.items() if endpoint in kept}
        self._weigh(cluster)

    def weight_of(self, endpoint: Endpoint, now: float) -> float:
        """By its reports; 0 while they are too young, too old or missing."""
        reported = self._reported.get(endpoint)
        if reported is None or now - reported.latest_at >= self._settings.expiry:
            return 0.0
        return reported.weight if now - reported.first_at >= self._settings.blackout else 0.0

    def _weigh(self, cluster: Cluster) -> None:
        """Reckon the weights anew; what divides the load between levels and zones divides it here, too."""
        self._due_at = self._now + self._settings.update_interval
        weights = [self.weight_of(endpoint, self._now) for endpoint in cluster.pickable]
        known = [weight for weight in weights if weight > 0.0]
        if len(known) < 2:
            RoundRobin.on_change(self, cluster)
            return
        mean = sum(known) / len(known)
        lowest, highest = mean / FARTHEST, mean * FARTHEST
        parts = [endpoint.worth / endpoint.weight for endpoint in cluster.pickable]
        self._stride_by(
            [part * min(max(weight or mean, lowest), highest) for part, weight in zip(parts, weights, strict=True)]
        )

    def _utilization(self, report: LoadReport) -> float:
        """gRFC A114. Values that are no numbers compare as not above 0 wherever it matters."""
        if report.application > 0.0:
            return report.application
        named = [value for name in self._settings.utilization if (value := report.metric(name)) > 0.0]
        return max(named, default=report.cpu)
