"""A scrape tells every slot, under the name and with the labels of the catalogue."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from sidecar.rpc.status import STATUS_NAMES
from sidecar.telemetry import catalogue
from sidecar.telemetry.catalogue import CATALOGUE, to_markdown
from sidecar.telemetry.collector import BUCKETS, Collector, UpstreamRow, condensed
from sidecar.telemetry.metrics import (
    STATUSES,
    Histogram,
    ListenerMetrics,
    ProcessMetrics,
    RegistryMetrics,
    UpstreamMetrics,
    bump,
    upper_edge,
)

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


def slots_of(holder: object) -> dict[str, object]:
    """The counters of an object by name, be its class interpreted or compiled."""
    return {
        name: value for name in dir(holder) if not name.startswith("_") and not callable(value := getattr(holder, name))
    }


class Slots:
    """A Source of plain rows."""

    def __init__(self) -> None:
        self.upstream = UpstreamMetrics("orders")
        self.listener = ListenerMetrics("orders")
        self.registry = RegistryMetrics()
        self.process = ProcessMetrics()
        self.discovery_age: float | None = 4.5

    def upstream_rows(self) -> Iterable[UpstreamRow]:
        row = UpstreamRow(
            metrics=self.upstream,
            endpoints={("healthy", "ready"): 2, ("ejected", "idle"): 1},
            pickable=2,
            failing_check=1,
            connections=3,
            streams=5,
            discovery_age=self.discovery_age,
        )
        return [row]

    def listener_metrics(self) -> Iterable[ListenerMetrics]:
        return [self.listener]

    def registry_metrics(self) -> RegistryMetrics:
        return self.registry

    def process_metrics(self) -> ProcessMetrics:
        return self.process

    def build_labels(self) -> dict[str, str]:
        return {
            "version": "1.2.3",
            "python": "3.11",
            "codec": "native",
            "loop": "uvloop",
            "compiled": "yes",
            "more": "x",
        }


def scraped(slots: Slots) -> dict[str, Family]:
    text = generate_latest(Collector(slots, STATUS_NAMES)).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(slots: Slots, name: str, **labels: str) -> float | None:
    """The value of one series, or None where there is none."""
    for family in scraped(slots).values():
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
    return None


# === the catalogue ===


def test_every_metric_has_a_name_of_our_shape_and_stands_once() -> None:
    names = [metric.name for metric in CATALOGUE]
    assert len(names) == len(set(names))
    for metric in CATALOGUE:
        assert re.fullmatch(r"sidecar_[a-z]+_[a-z][a-z_]*", metric.name), metric.name
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.meaning.endswith("."), metric.name


def test_every_constant_of_the_catalogue_is_in_a_section() -> None:
    stated = [item for item in vars(catalogue).values() if isinstance(item, catalogue.Metric)]
    assert sorted(metric.name for metric in stated) == sorted(metric.name for metric in CATALOGUE)


def test_a_scrape_has_exactly_the_families_of_the_catalogue_with_their_types_and_sentences() -> None:
    families = scraped(Slots())
    expected = {metric.name.removesuffix("_total"): (metric.kind, metric.meaning) for metric in CATALOGUE}
    assert {name: (family.type, family.documentation) for name, family in families.items()} == expected


def test_every_sample_has_exactly_the_labels_of_the_catalogue() -> None:
    slots = Slots()
    fill(slots)
    families = scraped(slots)
    for metric in CATALOGUE:
        samples = families[metric.name.removesuffix("_total")].samples
        assert samples, metric.name
        for sample in samples:
            assert set(sample.labels) - {"le"} == set(metric.labels), metric.name


def test_the_docs_are_what_the_catalogue_says() -> None:
    assert DOCS.read_text("utf-8") == to_markdown()


# === the slots ===


def fill(slots: Slots) -> set[float]:
    """Give every slot a number of its own; the numbers."""
    numbers = numbered()
    used: set[float] = set()
    for holder in (slots.upstream, slots.listener, slots.registry, slots.process):
        for name, slot in slots_of(holder).items():
            number = next(numbers)
            if isinstance(slot, str) or name.startswith("_"):  # what an underscore begins is no slot
                continue
            if isinstance(slot, Histogram):
                slot.observe(float(number))
            elif isinstance(slot, dict):
                slot["some_key"] = number
            elif isinstance(slot, list):
                setattr(holder, name, [*slot[:14], number, *slot[15:]])  # compiled, what is read is a copy
            elif isinstance(slot, bool):
                continue
            else:
                setattr(holder, name, number)
            used.add(float(number))
    return used


def numbered() -> Iterator[int]:
    yield from range(1001, 2000)


def test_no_slot_is_kept_without_being_shown() -> None:
    slots = Slots()
    used = fill(slots)
    shown = {sample.value for family in scraped(slots).values() for sample in family.samples}
    assert used <= shown


def test_flags_are_shown_as_one_and_zero() -> None:
    slots = Slots()
    assert value(slots, "sidecar_control_registry_up") == 0
    assert value(slots, "sidecar_config_last_reload_success") == 1
    assert value(slots, "sidecar_control_known_leader") == 1
    slots.registry.up = True
    slots.process.config_reload_success = False
    assert value(slots, "sidecar_control_registry_up") == 1
    assert value(slots, "sidecar_config_last_reload_success") == 0


def test_what_the_app_saw_and_what_the_endpoints_saw_are_counted_apart() -> None:
    slots = Slots()
    slots.upstream.exchange_status = [10] + [0] * 16
    slots.upstream.attempt_status = [10] + [0] * 13 + [3, 0, 0]
    assert value(slots, "sidecar_proxy_exchanges_total", upstream="orders", grpc_status="OK") == 10
    assert value(slots, "sidecar_proxy_exchanges_total", upstream="orders", grpc_status="UNAVAILABLE") is None
    assert value(slots, "sidecar_proxy_attempts_total", upstream="orders", grpc_status="UNAVAILABLE") == 3


def test_ok_has_a_series_before_the_first_rpc() -> None:
    assert value(Slots(), "sidecar_proxy_exchanges_total", upstream="orders", grpc_status="OK") == 0


def test_a_membership_that_is_not_known_has_no_age() -> None:
    slots = Slots()
    assert value(slots, "sidecar_control_discovery_age_seconds", upstream="orders") == 4.5
    assert value(slots, "sidecar_control_discovered", upstream="orders") == 1
    slots.discovery_age = None
    assert value(slots, "sidecar_control_discovery_age_seconds", upstream="orders") is None
    assert value(slots, "sidecar_control_discovered", upstream="orders") == 0


def test_endpoints_are_counted_by_state_and_connectivity() -> None:
    assert value(Slots(), "sidecar_policy_endpoints", upstream="orders", state="healthy", connectivity="ready") == 2
    assert value(Slots(), "sidecar_policy_endpoints", upstream="orders", state="ejected", connectivity="idle") == 1


def test_ejections_are_counted_by_reason_and_the_withheld_ones_by_why_too() -> None:
    slots = Slots()
    slots.upstream.ejections["success_rate"] = 3
    slots.upstream.withheld["success_rate", "cap"] = 2
    assert value(slots, "sidecar_policy_ejections_total", upstream="orders", reason="success_rate") == 3
    labels = {"upstream": "orders", "reason": "success_rate", "withheld": "cap"}
    assert value(slots, "sidecar_policy_ejections_withheld_total", **labels) == 2


def test_label_values_survive_quotes_and_line_breaks() -> None:
    slots = Slots()
    bump(slots.registry.updates, 'or"d\\ers\n2')
    assert value(slots, "sidecar_control_snapshots_total", service='or"d\\ers\n2') == 1


def test_there_is_a_word_for_every_status_slot() -> None:
    assert len(STATUS_NAMES) == STATUSES


def test_nothing_is_imported_for_metrics_before_the_first_scrape() -> None:
    code = "import sys, sidecar.telemetry.collector, sidecar.admin.server; print('prometheus_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"


# === histograms ===


@pytest.mark.parametrize("micros", [0, 1, 7, 8, 15, 16, 63, 64, 1000, 2**26 - 1, 2**26, 2**32 - 1, 2**40])
def test_a_duration_falls_into_the_slot_whose_edges_hold_it(micros: int) -> None:
    histogram = Histogram()
    histogram.observe((micros + 0.5) / 1e6)
    index = histogram.counts.index(1)
    assert micros / 1e6 < upper_edge(index) or index == len(histogram.counts) - 1
    assert index == 0 or upper_edge(index - 1) <= (micros + 0.5) / 1e6


def test_a_negative_duration_counts_as_none() -> None:
    histogram = Histogram()
    histogram.observe(-3.0)
    assert (histogram.counts[0], histogram.count, histogram.total) == (1, 1, 0.0)


@given(st.lists(st.floats(0, 4000), min_size=1, max_size=100), st.floats(0.01, 1))
def test_a_quantile_is_at_most_an_eighth_too_high(durations: list[float], fraction: float) -> None:
    histogram = Histogram()
    for duration in durations:
        histogram.observe(duration)
    rank = max(1, -int(-fraction * len(durations) // 1))
    exact = sorted(durations)[rank - 1]
    assert exact <= histogram.quantile(fraction) * (1 + 1e-9) <= exact * 1.125 + 2e-6


def test_the_quantile_of_nothing_is_zero() -> None:
    assert Histogram().quantile(0.99) == 0.0


def test_bucket_edges_are_the_upper_edges_of_slots_and_grow() -> None:
    edges = [float(edge) for edge, _ in BUCKETS]
    assert edges == sorted(edges)
    assert [upper_edge(slots - 1) for _, slots in BUCKETS] == edges
    assert edges[0] == 64e-6 and 60 < edges[-1] < 100


@given(st.lists(st.floats(0, 200), max_size=100))
def test_each_bucket_counts_exactly_the_durations_below_its_edge(durations: list[float]) -> None:
    histogram = Histogram()
    for duration in durations:
        histogram.observe(duration)
    buckets = condensed(histogram)
    assert buckets[-1] == ("+Inf", len(durations))
    for edge, count in buckets[:-1]:
        below = sum(int(duration * 1e6) < round(float(edge) * 1e6) for duration in durations)
        assert count == below
