"""The balancers that come with the sidecar, by the name that the configuration calls them."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.policy.balancer import Balancer, Rng
from sidecar.policy.least_request import LeastRequest
from sidecar.policy.maglev import Maglev
from sidecar.policy.peak_ewma import PeakEwma
from sidecar.policy.ring_hash import RingHash
from sidecar.policy.rotation import PickFirst, Random, RoundRobin
from sidecar.policy.settings import BalancingSettings
from sidecar.policy.weighted_round_robin import WeightedRoundRobin

BALANCERS: dict[str, Callable[[Rng, BalancingSettings], Balancer]] = {
    RoundRobin.name: lambda rng, _: RoundRobin(rng),
    LeastRequest.name: lambda rng, _: LeastRequest(rng),
    PeakEwma.name: lambda rng, _: PeakEwma(rng),
    WeightedRoundRobin.name: lambda rng, settings: WeightedRoundRobin(rng, settings.load_reports),
    Random.name: lambda rng, _: Random(rng),
    RingHash.name: RingHash,
    Maglev.name: Maglev,
    PickFirst.name: lambda rng, _: PickFirst(rng),
}
