"""The slots as Prometheus families, read when somebody scrapes. The shape of a scrape is in `catalogue`.

The collector never looks above telemetry: what it needs of clusters comes as plain rows from a `Source`, which the
composition root is. prometheus_client is imported when the first scrape asks for it, not before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from msgspec import Struct

from sidecar.telemetry import catalogue
from sidecar.telemetry.catalogue import Metric
from sidecar.telemetry.metrics import (
    STEPS,
    Histogram,
    ListenerMetrics,
    ProcessMetrics,
    RegistryMetrics,
    UpstreamMetrics,
    upper_edge,
)

if TYPE_CHECKING:
    from prometheus_client.core import Metric as Family


class UpstreamRow(Struct, frozen=True, kw_only=True):
    """One upstream at this moment. `endpoints` counts them by (state, connectivity), every pair present."""

    metrics: UpstreamMetrics
    endpoints: dict[tuple[str, str], int]
    pickable: int
    failing_check: int
    connections: int
    streams: int
    discovery_age: float | None  # seconds; None while no membership is known


class Source(Protocol):
    """Where the slots are."""

    def upstream_rows(self) -> Iterable[UpstreamRow]: ...

    def listener_metrics(self) -> Iterable[ListenerMetrics]: ...

    def registry_metrics(self) -> RegistryMetrics: ...

    def process_metrics(self) -> ProcessMetrics: ...

    def build_labels(self) -> dict[str, str]:
        """A value for each label of `catalogue.BUILD`."""
        ...


class Collector:
    """A prometheus_client custom collector over a Source. `status_names` are the words for grpc-status 0..16."""

    def __init__(self, source: Source, status_names: Sequence[str]) -> None:
        self._source = source
        self._status_names = status_names

    def collect(self) -> Iterator[Family]:
        """Every family of the catalogue, in its order."""
        upstreams = list(self._source.upstream_rows())
        yield from self._exchanges(upstreams)
        yield from self._attempts(upstreams)
        yield from _upstream_connections(upstreams)
        yield from _listeners(list(self._source.listener_metrics()))
        yield from _endpoints(upstreams)
        yield from _registry(upstreams, self._source.registry_metrics())
        yield from _process(self._source.process_metrics())
        build = self._source.build_labels()
        yield _family(catalogue.BUILD, [(tuple(build[label] for label in catalogue.BUILD.labels), 1)])

    def _exchanges(self, upstreams: list[UpstreamRow]) -> Iterator[Family]:
        slots = [row.metrics for row in upstreams]
        yield _per_upstream(catalogue.EXCHANGES_STARTED, ((m, m.exchange_started) for m in slots))
        yield self._by_status(catalogue.EXCHANGES, ((m, m.exchange_status) for m in slots))
        yield _histograms(catalogue.EXCHANGE_DURATION, [((m.name,), m.exchange_latency) for m in slots])
        yield _by_key(catalogue.RETRIES, ((m.name, m.retries) for m in slots))
        yield _by_key(catalogue.RETRIES_SUPPRESSED, ((m.name, m.retries_suppressed) for m in slots))
        yield _per_upstream(catalogue.HEDGE_WINS, ((m, m.hedge_wins) for m in slots))
        yield _by_key(catalogue.HEDGES_SUPPRESSED, ((m.name, m.hedges_suppressed) for m in slots))
        yield _by_key(catalogue.OVERSTAYS, ((m.name, m.overstays) for m in slots))
        yield _by_key(catalogue.REFUSALS, ((m.name, m.refusals) for m in slots))
        yield _by_key(catalogue.ROUTED, ((m.name, m.routed) for m in slots))
        yield _by_key(catalogue.FAULTS, ((m.name, m.faults) for m in slots))
        yield _by_key(catalogue.MIRRORED, ((m.name, m.mirrored) for m in slots))
        yield _per_upstream(catalogue.QUEUED, ((m, m.queued) for m in slots))
        payload = [((m.name, "up"), m.bytes_up) for m in slots] + [((m.name, "down"), m.bytes_down) for m in slots]
        yield _family(catalogue.PAYLOAD, payload)

    def _attempts(self, upstreams: list[UpstreamRow]) -> Iterator[Family]:
        slots = [row.metrics for row in upstreams]
        yield _per_upstream(catalogue.ATTEMPTS_STARTED, ((m, m.attempt_started) for m in slots))
        yield self._by_status(catalogue.ATTEMPTS, ((m, m.attempt_status) for m in slots))
        yield _histograms(catalogue.ATTEMPT_DURATION, [((m.name,), m.attempt_latency) for m in slots])
        yield _by_key(catalogue.OUTCOMES, ((m.name, m.outcomes) for m in slots))
        yield _by_key(catalogue.LOAD_REPORTS, ((m.name, m.load_reports) for m in slots))
        yield _per_upstream(catalogue.CROSS_ZONE_ATTEMPTS, ((m, m.foreign_attempts) for m in slots))
        payload = [((m.name, "up"), m.foreign_up) for m in slots] + [((m.name, "down"), m.foreign_down) for m in slots]
        yield _family(catalogue.CROSS_ZONE_PAYLOAD, payload)

    def _by_status(self, metric: Metric, rows: Iterable[tuple[UpstreamMetrics, list[int]]]) -> Family:
        """One series per status that was seen, and always one for OK (status 0)."""
        samples = [
            ((slots.name, self._status_names[status]), count)
            for slots, counts in rows
            for status, count in enumerate(counts)
            if count or not status
        ]
        return _family(metric, samples)


# === one subject each ===


def _upstream_connections(upstreams: list[UpstreamRow]) -> Iterator[Family]:
    slots = [row.metrics for row in upstreams]
    yield _per_upstream(catalogue.UPSTREAM_CONNECTIONS, ((row.metrics, row.connections) for row in upstreams))
    yield _per_upstream(catalogue.UPSTREAM_STREAMS, ((row.metrics, row.streams) for row in upstreams))
    yield _per_upstream(catalogue.CONNECTS, ((m, m.connects) for m in slots))
    yield _by_key(catalogue.CONNECT_FAILURES, ((m.name, m.connect_failures) for m in slots))
    yield _by_key(catalogue.DISCONNECTS, ((m.name, m.disconnects) for m in slots))
    yield _by_key(catalogue.PING_TIMEOUTS, ((m.name, m.ping_timeouts) for m in slots))


def _listeners(listeners: list[ListenerMetrics]) -> Iterator[Family]:
    yield _family(catalogue.LISTENER_CONNECTIONS, [((m.name,), m.open) for m in listeners])
    yield _family(catalogue.LISTENER_ACCEPTED, [((m.name,), m.accepted) for m in listeners])
    yield _by_key(catalogue.LISTENER_REFUSED, ((m.name, m.refused) for m in listeners))
    yield _by_key(catalogue.LISTENER_PROTOCOL_ERRORS, ((m.name, m.protocol_errors) for m in listeners))


def _endpoints(upstreams: list[UpstreamRow]) -> Iterator[Family]:
    counts = [((row.metrics.name, *pair), count) for row in upstreams for pair, count in row.endpoints.items()]
    yield _family(catalogue.ENDPOINTS, counts)
    yield _per_upstream(catalogue.PICKABLE, ((row.metrics, row.pickable) for row in upstreams))
    slots = [row.metrics for row in upstreams]
    yield _by_key(catalogue.EJECTIONS, ((m.name, m.ejections) for m in slots))
    withheld = [((m.name, *pair), count) for m in slots for pair, count in m.withheld.items()]
    yield _family(catalogue.EJECTIONS_WITHHELD, withheld)
    yield _by_key(catalogue.HEALTH_CHECKS, ((row.metrics.name, row.metrics.health_checks) for row in upstreams))
    yield _per_upstream(catalogue.FAILING_CHECK, ((row.metrics, row.failing_check) for row in upstreams))
    adaptive = [row.metrics for row in upstreams if row.metrics.concurrency_limit]
    yield _per_upstream(catalogue.CONCURRENCY_LIMIT, ((slots, slots.concurrency_limit) for slots in adaptive))


def _registry(upstreams: list[UpstreamRow], registry: RegistryMetrics) -> Iterator[Family]:
    known = [(row.metrics, row.discovery_age) for row in upstreams]
    yield _per_upstream(catalogue.DISCOVERED, ((slots, int(age is not None)) for slots, age in known))
    yield _per_upstream(catalogue.DISCOVERY_AGE, ((slots, age) for slots, age in known if age is not None))
    yield _family(catalogue.REGISTRY_UP, [((), int(registry.up))])
    yield _family(catalogue.REGISTRY_ERRORS, [((), registry.errors)])
    yield _family(catalogue.REGISTRATIONS, [((), registry.registrations)])
    yield _family(catalogue.REGISTRATIONS_LOST, [((), registry.lost)])
    yield _family(catalogue.ANSWERS_HELD, [((reason,), count) for reason, count in registry.held.items()])
    yield _family(catalogue.KNOWN_LEADER, [((), int(registry.known_leader))])
    yield _family(catalogue.LAST_CONTACT, [((), registry.last_contact)])
    yield _family(catalogue.SNAPSHOTS, [((service,), count) for service, count in registry.updates.items()])


def _process(process: ProcessMetrics) -> Iterator[Family]:
    yield _histograms(catalogue.LOOP_LAG, [((), process.loop_lag)])
    yield _family(catalogue.SHED_SHARE, [((), process.shed_share)])
    yield _family(catalogue.BUFFERED, [((), process.buffered)])
    yield _family(catalogue.RELOADS, [((result,), count) for result, count in process.config_reloads.items()])
    yield _family(catalogue.RELOAD_SUCCESS, [((), int(process.config_reload_success))])


# === families ===

Labels = tuple[str, ...]


def _family(metric: Metric, samples: Iterable[tuple[Labels, float]]) -> Family:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.meaning, labels=metric.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def _per_upstream(metric: Metric, rows: Iterable[tuple[UpstreamMetrics, float]]) -> Family:
    return _family(metric, (((slots.name,), value) for slots, value in rows))


def _by_key(metric: Metric, rows: Iterable[tuple[str, dict[str, int]]]) -> Family:
    return _family(metric, [((name, key), count) for name, counts in rows for key, count in counts.items()])


def _histograms(metric: Metric, rows: list[tuple[Labels, Histogram]]) -> Family:
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    for labels, histogram in rows:
        family.add_metric(labels, condensed(histogram), histogram.total)
    return family


# === histograms: many log-linear slots into few buckets ===

# Powers of two of a microsecond from 2^6 (64 us) to 2^26 (67 s): both fall on slot edges, so that no count is split.
# A66's buckets end at 100 s and start below what a loopback hop costs.
_FIRST_OCTAVE: Final = 6
_LAST_OCTAVE: Final = 26

# For each bucket: its upper edge as Prometheus writes it, and the number of slots below that edge.
BUCKETS: Final[tuple[tuple[str, int], ...]] = tuple(
    (repr(upper_edge(slots - 1)), slots)
    for slots in (STEPS * (octave - (STEPS.bit_length() - 1) + 1) for octave in range(_FIRST_OCTAVE, _LAST_OCTAVE + 1))
)


def condensed(histogram: Histogram) -> list[tuple[str, float]]:
    """Cumulative counts per bucket edge, ending with +Inf."""
    counts = histogram.counts
    buckets: list[tuple[str, float]] = []
    seen = 0
    start = 0
    for edge, end in BUCKETS:
        seen += sum(counts[start:end])
        start = end
        buckets.append((edge, seen))
    buckets.append(("+Inf", seen + sum(counts[start:])))
    return buckets
