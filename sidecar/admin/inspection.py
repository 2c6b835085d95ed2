"""The questions: GET handlers that read the view and change nothing."""

from __future__ import annotations

import asyncio
import html
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web

from sidecar.admin.clusters import ClustersPage, UpstreamPage, count_endpoints, describe, to_text
from sidecar.admin.events import EventsPage, recent_events
from sidecar.admin.guard import answer
from sidecar.admin.view import SidecarView
from sidecar.policy.endpoint import FAILED
from sidecar.rpc.status import STATUS_NAMES
from sidecar.telemetry.collector import Collector, UpstreamRow
from sidecar.telemetry.metrics import ListenerMetrics, ProcessMetrics, RegistryMetrics

if TYPE_CHECKING:
    from prometheus_client.core import Metric as Family

# What stands on the front page, and in docs/operations.md.
PAGES: Final[tuple[tuple[str, str, str], ...]] = (
    ("GET", "/ready", "200 when traffic may be sent, otherwise 503 with the reasons, one per line"),
    ("GET", "/live", "200 while the event loop keeps up; says nothing of upstreams or of the registry"),
    ("GET", "/metrics", "Prometheus metrics"),
    ("GET", "/clusters", "every upstream with its endpoints, as a table"),
    ("GET", "/clusters?format=json", "the same in full"),
    ("GET", "/events", "the newest events of each upstream's endpoints: ejected, back, unreachable, and why; as JSON"),
    ("GET", "/upstreams", "names and listen addresses of the upstreams that the app dials, as JSON"),
    ("GET", "/config_dump", "the configuration in force, without secrets, as JSON"),
    ("GET", "/server_info", "version, codec, event loop, as JSON"),
    ("POST", "/drain", "deregister now and return when callers have had time to notice; outbound calls go on"),
    ("POST", "/reload", "read the configuration file again; 422 with every mistake if it is refused"),
    ("POST", "/logging?level=debug", "change the log level of the running process"),
    ("POST", "/quitquitquit", "end in good order, as on SIGTERM"),
)


class Inspection:
    """The GET handlers over one view."""

    def __init__(self, view: SidecarView) -> None:
        self._view = view
        self._collector = Collector(_Slots(view), STATUS_NAMES)

    async def front(self, request: web.Request) -> web.Response:
        """A plain page that lists the others."""
        rows = "".join(_row(method, path, text) for method, path, text in PAGES)
        return web.Response(text=f"{_HEAD}<table>{rows}</table></html>", content_type="text/html")

    async def ready(self, request: web.Request) -> web.Response:
        """Whether traffic may be sent."""
        reasons = self._view.readiness()
        return answer("\n".join(reasons), 503) if reasons else answer("ready")

    async def live(self, request: web.Request) -> web.Response:
        """Whether the event loop keeps up. That this is answered at all says most of it."""
        return answer("live") if self._view.loop_alive() else answer("the event loop does not keep up", 503)

    async def metrics(self, request: web.Request) -> web.Response:
        """The Prometheus text, rendered in slices so that no scrape holds up the data path for long."""
        from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

        parts = []
        for family in self._collector.collect():
            for part in _slices(family):
                parts.append(part)
                await asyncio.sleep(0)
        parts += [part for family in _process_families() for part in _slices(family)]
        return web.Response(body=b"".join(parts), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    async def clusters(self, request: web.Request) -> web.Response:
        """Every upstream with its endpoints."""
        form = request.query.get("format", "text")
        if form not in ("text", "json"):
            return answer("format is text or json.", 400)
        pages: list[UpstreamPage] = []
        for upstream in self._view.upstreams():
            pages.append(describe(upstream, self._view.now()))
            await asyncio.sleep(0)
        return _json(ClustersPage(upstreams=tuple(pages))) if form == "json" else answer(to_text(pages))

    async def events(self, request: web.Request) -> web.Response:
        """What became of endpoints lately, and why (E15)."""
        now = self._view.now()
        return _json(EventsPage(upstreams=tuple(recent_events(upstream, now) for upstream in self._view.upstreams())))

    async def upstreams(self, request: web.Request) -> web.Response:
        """Names and listen addresses: what an app needs to find its upstreams (A2)."""
        dialled = [upstream for upstream in self._view.upstreams() if upstream.listen]
        rows = [{"name": upstream.cluster.name, "listen": upstream.listen} for upstream in dialled]
        return _json({"upstreams": rows})

    async def config_dump(self, request: web.Request) -> web.Response:
        """The configuration in force."""
        return _json(self._view.config_dump())

    async def server_info(self, request: web.Request) -> web.Response:
        """What runs."""
        return _json(self._view.server_info())


class _Slots:
    """The view as the collector's Source."""

    def __init__(self, view: SidecarView) -> None:
        self._view = view

    def upstream_rows(self) -> Iterator[UpstreamRow]:
        now = self._view.now()
        for upstream in self._view.upstreams():
            cluster = upstream.cluster
            yield UpstreamRow(
                metrics=upstream.metrics,
                endpoints=count_endpoints(cluster),
                pickable=len(cluster.pickable),
                failing_check=sum(endpoint.checkup == FAILED for endpoint in cluster.endpoints),
                connections=sum(endpoint.connections for endpoint in cluster.endpoints),
                streams=sum(endpoint.in_flight for endpoint in cluster.endpoints),
                discovery_age=cluster.age(now) if cluster.discovered else None,
            )

    def listener_metrics(self) -> Iterable[ListenerMetrics]:
        return self._view.listener_metrics()

    def registry_metrics(self) -> RegistryMetrics:
        return self._view.registry_metrics()

    def process_metrics(self) -> ProcessMetrics:
        return self._view.process_metrics()

    def build_labels(self) -> dict[str, str]:
        return {name: str(value) for name, value in self._view.server_info().items()}


class _One:
    """A family that is there already, in the shape that prometheus_client renders from."""

    def __init__(self, family: Family) -> None:
        self._family = family

    def collect(self) -> Iterable[Family]:
        return [self._family]


# Rendering one sample takes about 20 us, so that a slice takes about 5 ms.
_SLICE: Final = 250


def _slices(family: Family) -> Iterator[bytes]:
    """The text of a family, piece by piece; only the first has the HELP and TYPE lines."""
    from prometheus_client import generate_latest

    samples = family.samples
    family.samples = samples[:_SLICE]
    yield generate_latest(_One(family))
    for start in range(_SLICE, len(samples), _SLICE):
        family.samples = samples[start : start + _SLICE]
        lines = generate_latest(_One(family)).splitlines(keepends=True)
        yield b"".join(line for line in lines if not line.startswith(b"#"))


def _process_families() -> Iterable[Family]:
    """The standard process_* metrics, read from /proc."""
    from prometheus_client import ProcessCollector

    return ProcessCollector(registry=None).collect()


def _json(value: object) -> web.Response:
    body = msgspec.json.format(msgspec.json.encode(value), indent=2)
    return web.Response(body=body + b"\n", content_type="application/json")


_HEAD: Final = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>sidecar</title>"
    "<style>body{font:14px monospace}td{padding:2px 12px}</style>"
)


def _row(method: str, path: str, text: str) -> str:
    shown = html.escape(path)
    link = f'<a href="{shown}">{shown}</a>' if method == "GET" else shown
    return f"<tr><td>{method}<td>{link}<td>{html.escape(text)}"
