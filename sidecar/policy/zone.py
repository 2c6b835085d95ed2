"""How much of the load stays in the sidecar's own zone, and which zones take the rest.

Envoy's proportional rule, on capacities (sums of weights): an RPC stays in its zone as long as the zone's capacity is
no less than the zone's part of the callers. What exceeds it goes to zones that have more than their own callers need,
in proportion to what they have more. The callers are taken to be spread evenly over the zones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sidecar.policy.endpoint import Endpoint


def capacities(endpoints: Iterable[Endpoint]) -> dict[str, float]:
    """The weights in each zone. Members that state none are a zone of their own."""
    found: dict[str, float] = {}
    for endpoint in endpoints:
        zone = endpoint.member.zone
        found[zone] = found.get(zone, 0.0) + endpoint.weight
    return found


def share_zones(own: str, capacity: Mapping[str, float], zones: int) -> dict[str, float]:
    """What part of the load each zone carries for callers in `own`, when they live in so many `zones`; 1 in sum."""
    fair = sum(capacity.values()) / zones
    home = capacity.get(own, 0.0)
    if home >= fair:
        return {own: 1.0}
    spare = {zone: held - fair for zone, held in capacity.items() if held > fair}
    spilled = (1.0 - home / fair) / sum(spare.values())
    shares = {zone: spilled * more for zone, more in spare.items()}
    if home:
        shares[own] = home / fair
    return shares
