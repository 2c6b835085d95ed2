"""An upstream and its endpoints, told in full: as JSON values for programs and as a table for people.

The field names are a promise, kept in docs/operations.md and in a test. Durations are seconds, instants are ages.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from sidecar.admin.text import printable
from sidecar.admin.view import UpstreamView
from sidecar.policy.cluster import Cluster, Refusal
from sidecar.policy.endpoint import (
    AWAITED,
    CHECKUP_NAMES,
    CONNECTIVITY_NAMES,
    FAILED,
    HEALTHY,
    READY,
    STATE_NAMES,
    Endpoint,
)


class EndpointPage(Struct, frozen=True, kw_only=True):
    """One endpoint."""

    address: str
    id: str
    state: str
    state_reason: str
    state_age_seconds: float
    health_check: str
    health_check_finding: str
    pickable: bool
    avoided: bool
    why: str
    connectivity: str
    last_error: str
    connections: int
    in_flight: int
    successes: int
    failures: int
    latency_p50_seconds: float
    latency_p99_seconds: float
    weight: int
    registry_status: str
    zone: str
    priority: int
    tags: tuple[str, ...]
    source: str
    age_seconds: float


class RegistryPage(Struct, frozen=True, kw_only=True):
    """What the registry last said of this upstream."""

    up: bool
    detail: str


class RefusalPage(Struct, frozen=True, kw_only=True):
    """Why nothing can be picked."""

    reason: str
    text: str


class UpstreamPage(Struct, frozen=True, kw_only=True):
    """One upstream."""

    name: str
    listen: str
    balancer: str
    source: str
    index: int
    discovered: bool
    discovery_age_seconds: float
    registry: RegistryPage
    pickable: int
    refusal: RefusalPage | None
    queued: int
    in_flight: int
    connections: int
    notes: tuple[str, ...]
    endpoints: tuple[EndpointPage, ...]


class ClustersPage(Struct, frozen=True, kw_only=True):
    """All of them."""

    upstreams: tuple[UpstreamPage, ...]


def describe(upstream: UpstreamView, now: float) -> UpstreamPage:
    """One upstream at this moment."""
    cluster = upstream.cluster
    refusal: Refusal | None = None if cluster.pickable else cluster.explain()
    picked = set(map(id, cluster.pickable))
    return UpstreamPage(
        name=cluster.name,
        listen=upstream.listen,
        balancer=cluster.balancer.name,
        source=cluster.source,
        index=cluster.index,
        discovered=cluster.discovered,
        discovery_age_seconds=_rounded(cluster.age(now)),
        registry=RegistryPage(up=cluster.registry_up, detail=cluster.registry_detail),
        pickable=len(cluster.pickable),
        refusal=RefusalPage(reason=refusal.reason, text=refusal.text) if refusal else None,
        queued=upstream.metrics.queued,
        in_flight=sum(endpoint.in_flight for endpoint in cluster.endpoints),
        connections=sum(endpoint.connections for endpoint in cluster.endpoints),
        notes=upstream.notes,
        endpoints=tuple(_describe(endpoint, cluster, id(endpoint) in picked, now) for endpoint in cluster.endpoints),
    )


def _describe(endpoint: Endpoint, cluster: Cluster, picked: bool, now: float) -> EndpointPage:
    member = endpoint.member
    avoidance = cluster.balancer.why_avoided(endpoint, cluster, now) if picked else ""
    return EndpointPage(
        address=endpoint.address,
        id=member.id,
        state=STATE_NAMES[endpoint.state],
        state_reason=endpoint.reason,
        state_age_seconds=_rounded(now - endpoint.since_at),
        health_check=CHECKUP_NAMES[endpoint.checkup],
        health_check_finding=endpoint.finding,
        pickable=picked,
        avoided=bool(avoidance),
        why=_why(endpoint, cluster, picked, avoidance),
        connectivity=CONNECTIVITY_NAMES[endpoint.connectivity],
        last_error=endpoint.last_error,
        connections=endpoint.connections,
        in_flight=endpoint.in_flight,
        successes=endpoint.successes,
        failures=endpoint.failures,
        latency_p50_seconds=endpoint.latency.quantile(0.5),
        latency_p99_seconds=endpoint.latency.quantile(0.99),
        weight=endpoint.weight,
        registry_status=member.status,
        zone=member.zone,
        priority=member.priority,
        tags=member.tags,
        source=endpoint.source,
        age_seconds=_rounded(now - endpoint.added_at),
    )


def _why(endpoint: Endpoint, cluster: Cluster, picked: bool, avoidance: str) -> str:
    """Why it is, or is not, among those that RPCs are balanced over, in the order in which `Cluster` decides.

    `avoidance`: why the balancer gives it none of them all the same.
    """
    reasons = list(_doubts(endpoint))
    if picked:
        if not endpoint.healthy:
            reasons.append("picked because no healthy endpoint is ready")
        elif endpoint.suspect:
            reasons.append("picked because no better endpoint is ready")
        why = "; ".join(reasons) or "ready"
        return f"{why}, but avoided: {avoidance}" if avoidance else why
    if len(reasons) == 1 and endpoint.suspect:
        reasons.append("kept as a last resort")
    return "; ".join(reasons) or _why_spared(endpoint, cluster)


def _doubts(endpoint: Endpoint) -> Iterator[str]:
    """Everything that speaks against it: connection, ejection, health check, the registry's word (E14)."""
    if endpoint.connectivity != READY:
        detail = f": {endpoint.last_error}" if endpoint.last_error else ""
        yield f"not connected ({CONNECTIVITY_NAMES[endpoint.connectivity]}){detail}"
    elif endpoint.saturated:
        yield "all its stream slots are taken"
    elif endpoint.checkup == AWAITED:
        yield f"its first health check is awaited{f': {endpoint.finding}' if endpoint.finding else ''}"
    if endpoint.state != HEALTHY:
        yield f"{STATE_NAMES[endpoint.state]}: {endpoint.reason or 'no reason was given'}"
    if endpoint.checkup == FAILED:
        yield f"health check failed: {endpoint.finding}"
    if endpoint.suspect:
        yield f"the registry no longer lists it, or not as passing ({endpoint.member.status})"


def _why_spared(endpoint: Endpoint, cluster: Cluster) -> str:
    """Why one that is as good as any gets no RPCs: others before it carry the load."""
    level = endpoint.member.priority
    if any(other.member.priority == level for other in cluster.pickable):
        return f"in zone {endpoint.member.zone or '(none)'}; zone {cluster.zone} and those with room carry the load"
    return f"in reserve on level {level}: the levels before it come first"


def _rounded(seconds: float) -> float:
    return round(max(0.0, seconds), 3)


# === for people ===

# fmt: off
_COLUMNS = (
    "ENDPOINT", "STATE", "CONNECTION", "CONNS", "IN FLIGHT", "OK", "FAILED", "P50", "P99", "WEIGHT", "AGE", "WHY",
)
# fmt: on
_GAP = "  "
_WIDEST = 160


def to_text(pages: list[UpstreamPage]) -> str:
    """A paragraph and a table per upstream."""
    return "\n".join(_paragraph(page) for page in pages) or "No upstreams are configured.\n"


def _paragraph(page: UpstreamPage) -> str:
    load = f"{page.in_flight} in flight, {page.queued} queued, {page.connections} connections"
    where = f"on {printable(page.listen)}" if page.listen else "for routes"
    lines = [
        f"{printable(page.name)} {where}: {page.pickable} of {len(page.endpoints)} endpoints"
        f" pickable ({page.balancer}), {load}",
        f"  {_membership(page)}",
    ]
    lines += [f"  {printable(note, _WIDEST)}" for note in page.notes]
    if page.refusal:
        lines.append(f"  refused now ({page.refusal.reason}): {printable(page.refusal.text)}")
    rows = [_COLUMNS, *(_row(endpoint) for endpoint in page.endpoints)]
    if page.endpoints:
        widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
        lines += ["  " + _GAP.join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join(lines) + "\n"


def _membership(page: UpstreamPage) -> str:
    if page.source == "static":
        return "members from the configuration file"
    known = "members not known yet"
    if page.discovered:
        known = f"members from {printable(page.source)}, confirmed {page.discovery_age_seconds:.1f}s ago"
    state = "up" if page.registry.up else "down"
    return f"{known}; registry {state}: {printable(page.registry.detail)}"


def _row(endpoint: EndpointPage) -> tuple[str, ...]:
    return (
        printable(endpoint.address),
        endpoint.state,
        endpoint.connectivity,
        str(endpoint.connections),
        str(endpoint.in_flight),
        str(endpoint.successes),
        str(endpoint.failures),
        _milliseconds(endpoint.latency_p50_seconds),
        _milliseconds(endpoint.latency_p99_seconds),
        str(endpoint.weight),
        f"{endpoint.age_seconds:.0f}s",
        printable(endpoint.why, _WIDEST),
    )


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g}ms" if seconds else "-"


# === for the collector ===


def count_endpoints(cluster: Cluster) -> dict[tuple[str, str], int]:
    """Endpoints by (state, connectivity), every pair present."""
    counts = {(state, connectivity): 0 for state in STATE_NAMES for connectivity in CONNECTIVITY_NAMES}
    for endpoint in cluster.endpoints:
        counts[STATE_NAMES[endpoint.state], CONNECTIVITY_NAMES[endpoint.connectivity]] += 1
    return counts
