"""The newest events of each upstream's endpoints, as JSON values: who was ejected, who came back, and why (E15)."""

from __future__ import annotations

from msgspec import Struct

from sidecar.admin.view import UpstreamView
from sidecar.policy.event import Event


class EventPage(Struct, frozen=True, kw_only=True):
    """One event. Field names are a promise, as those of `/clusters`."""

    age_seconds: float
    endpoint: str
    event: str
    reason: str
    withheld: str
    text: str


class UpstreamEvents(Struct, frozen=True, kw_only=True):
    """Those of one upstream, the newest first."""

    name: str
    events: tuple[EventPage, ...]


class EventsPage(Struct, frozen=True, kw_only=True):
    """All of them."""

    upstreams: tuple[UpstreamEvents, ...]


def recent_events(upstream: UpstreamView, now: float) -> UpstreamEvents:
    """What is kept of one upstream."""
    cluster = upstream.cluster
    return UpstreamEvents(name=cluster.name, events=tuple(_page(event, now) for event in reversed(cluster.events)))


def _page(event: Event, now: float) -> EventPage:
    return EventPage(
        age_seconds=round(max(0.0, now - event.at), 3),
        endpoint=event.endpoint,
        event=event.kind,
        reason=event.reason,
        withheld=event.withheld,
        text=event.text,
    )
