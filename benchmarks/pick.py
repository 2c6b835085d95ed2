"""`python -m benchmarks.pick`: what one pick costs per balancer and number of endpoints, the call from Python included.

The best of several rounds, since whatever else runs on the machine can only add to it.
"""

from __future__ import annotations

import random
import sys
import timeit

from sidecar.policy.balancer import Balancer
from sidecar.policy.builtin import BALANCERS
from sidecar.policy.cluster import Cluster
from sidecar.policy.endpoint import READY
from sidecar.policy.settings import BalancingSettings
from sidecar.policy.snapshot import Member, Snapshot

SIZES = (3, 16, 1000)
PICKS = 5_000
ROUNDS = 60
KEEPERS = ("ring_hash", "maglev", "pick_first")  # they look at no load, and at the RPC if they look at anything


def cluster_of(balancer: Balancer, size: int) -> Cluster:
    """Connected endpoints, some of them busy."""
    cluster = Cluster("measured", balancer)
    members = tuple(Member(address=f"10.0.{n // 250}.{n % 250}:80") for n in range(size))
    cluster.apply(Snapshot(service="measured", members=members, source="static"), 0.0)
    for number, endpoint in enumerate(cluster.endpoints):
        endpoint.connectivity = READY
        endpoint.in_flight = number % 3
    cluster.refresh()
    return cluster


def nanoseconds(cluster: Cluster) -> float:
    """Per pick."""
    best = min(timeit.repeat("pick(None, 1.0)", globals={"pick": cluster.pick}, number=PICKS, repeat=ROUNDS))
    return 1e9 * best / PICKS


def main() -> int:
    makers = {name: maker for name, maker in BALANCERS.items() if name not in KEEPERS}
    print("| ns per pick |" + "".join(f" {size} endpoints |" for size in SIZES))
    print("| --- |" + " ---: |" * len(SIZES))
    for name, maker in makers.items():
        costs = [nanoseconds(cluster_of(maker(random.Random(1), BalancingSettings()), size)) for size in SIZES]
        print(f"| {name} |" + "".join(f" {cost:.0f} |" for cost in costs), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
