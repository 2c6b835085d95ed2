"""`/clusters?format=json`: the promised fields, and the reason for everything that is not plain sailing."""

from __future__ import annotations

import asyncio
import json
import random
import re
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sidecar.admin.clusters import count_endpoints, describe, to_text
from sidecar.admin.view import UpstreamView
from sidecar.policy.cluster import Cluster
from sidecar.policy.endpoint import AWAITED, CONNECTING, EJECTED, FAILED, PROBATION, READY, TRANSIENT_FAILURE
from sidecar.policy.peak_ewma import PeakEwma
from sidecar.policy.rotation import RoundRobin
from sidecar.policy.settings import BalancingSettings, ZoneSettings
from sidecar.policy.snapshot import SUSPECT, Member, Snapshot
from sidecar.rpc.outcome import SUCCESS, TIMEOUT
from sidecar.telemetry.metrics import UpstreamMetrics
from tests.admin.desk import NOW, Desk, opened, orders, prices, stuck

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"

# Field names are a promise to whoever reads them by program: adding is fine, renaming is not.
UPSTREAM_FIELDS = {
    "name": str,
    "listen": str,
    "balancer": str,
    "source": str,
    "index": int,
    "discovered": bool,
    "discovery_age_seconds": float,
    "registry": dict,
    "pickable": int,
    "refusal": (dict, type(None)),
    "queued": int,
    "in_flight": int,
    "connections": int,
    "notes": list,
    "endpoints": list,
}
ENDPOINT_FIELDS = {
    "address": str,
    "id": str,
    "state": str,
    "state_reason": str,
    "state_age_seconds": float,
    "health_check": str,
    "health_check_finding": str,
    "pickable": bool,
    "avoided": bool,
    "why": str,
    "connectivity": str,
    "last_error": str,
    "connections": int,
    "in_flight": int,
    "successes": int,
    "failures": int,
    "latency_p50_seconds": float,
    "latency_p99_seconds": float,
    "weight": int,
    "registry_status": str,
    "zone": str,
    "priority": int,
    "tags": list,
    "source": str,
    "age_seconds": float,
}


def fetched(*upstreams: UpstreamView) -> list[dict[str, Any]]:
    async def run() -> str:
        async with opened(Desk(upstreams)) as caller:
            status, text, response = await caller.ask("GET", "/clusters?format=json")
            assert (status, response.content_type) == (200, "application/json")
            return text

    answer = json.loads(asyncio.run(run()))
    assert set(answer) == {"upstreams"}
    return list(answer["upstreams"])


def test_the_fields_are_the_promised_ones_with_the_promised_types() -> None:
    for upstream in fetched(orders(), prices(), stuck()):
        assert upstream.keys() == UPSTREAM_FIELDS.keys()
        assert all(isinstance(upstream[name], kind) for name, kind in UPSTREAM_FIELDS.items()), upstream
        assert upstream["registry"].keys() == {"up", "detail"}
        assert upstream["refusal"] is None or upstream["refusal"].keys() == {"reason", "text"}
        for endpoint in upstream["endpoints"]:
            assert endpoint.keys() == ENDPOINT_FIELDS.keys()
            assert all(isinstance(endpoint[name], kind) for name, kind in ENDPOINT_FIELDS.items()), endpoint


def test_every_promised_field_is_explained_in_the_docs() -> None:
    text = OPERATIONS.read_text("utf-8")
    for name in (*UPSTREAM_FIELDS, *ENDPOINT_FIELDS):
        assert f"`{name}`" in text, name


def test_an_endpoint_tells_its_load_its_origin_and_its_age() -> None:
    (upstream,) = fetched(orders())
    first = upstream["endpoints"][0]
    assert (first["address"], first["id"], first["weight"], first["zone"], first["tags"]) == (
        "10.0.0.1:80",
        "orders-1",
        3,
        "a",
        ["v1"],
    )
    assert (first["in_flight"], first["connections"], first["successes"], first["failures"]) == (2, 1, 9, 1)
    assert (first["source"], first["age_seconds"]) == ("consul", 60.0)
    assert 0.004 <= first["latency_p50_seconds"] <= 0.0045
    assert (upstream["discovery_age_seconds"], upstream["index"]) == (2.0, 77)


def test_each_endpoint_says_why_it_is_picked_or_not() -> None:
    (upstream,) = fetched(orders())
    assert [(endpoint["pickable"], endpoint["why"]) for endpoint in upstream["endpoints"]] == [
        (True, "ready"),
        (False, "ejected: 5 failures in a row"),
        (False, "not connected (transient_failure): connection refused"),
        (False, "the registry no longer lists it, or not as passing (suspect); kept as a last resort"),
    ]
    assert upstream["endpoints"][1]["state_age_seconds"] == 10.0


def whys(*changes: tuple[int, int, bool, str]) -> list[str]:
    """The reasons of endpoints with these connectivities, states, saturations and registry statuses."""
    cluster = Cluster("orders", RoundRobin(random.Random(1)))
    members = tuple(Member(address=f"e{n}:1", status=change[3]) for n, change in enumerate(changes))
    cluster.apply(Snapshot(service="orders", members=members, source="consul"), NOW)
    for endpoint, (connectivity, state, saturated, _) in zip(cluster.endpoints, changes, strict=True):
        cluster.set_connectivity(endpoint, connectivity)
        cluster.set_saturated(endpoint, saturated)
        cluster.set_state(endpoint, state, "told" if state else "", NOW)
    view = UpstreamView(cluster=cluster, metrics=UpstreamMetrics("orders"), listen="127.0.0.1:1")
    return [endpoint.why for endpoint in describe(view, NOW).endpoints]


def test_one_that_is_spared_says_who_carries_the_load() -> None:
    settings = BalancingSettings(zone_aware=ZoneSettings(min_endpoints=2))
    cluster = Cluster("orders", RoundRobin(random.Random(1)), settings, "a")
    members = (
        Member(address="e0:1", zone="a"),
        Member(address="e1:1", zone="b"),
        Member(address="e2:1", zone="a", priority=1),
    )
    cluster.apply(Snapshot(service="orders", members=members, source="consul"), NOW)
    for endpoint in cluster.endpoints:
        cluster.set_connectivity(endpoint, READY)
    view = UpstreamView(cluster=cluster, metrics=UpstreamMetrics("orders"), listen="127.0.0.1:1")
    assert [endpoint.why for endpoint in describe(view, NOW).endpoints] == [
        "ready",
        "in zone b; zone a and those with room carry the load",
        "in reserve on level 1: the levels before it come first",
    ]


def test_a_last_resort_that_is_picked_says_that_nothing_better_is_ready() -> None:
    assert whys((READY, 0, False, SUSPECT)) == [
        "the registry no longer lists it, or not as passing (suspect); picked because no better endpoint is ready"
    ]
    assert whys((READY, EJECTED, False, "passing"), (READY, PROBATION, False, "passing")) == [
        "ejected: told; picked because no healthy endpoint is ready",
        "probation: told; picked because no healthy endpoint is ready",
    ]


def test_an_endpoint_that_is_out_for_several_reasons_says_all_of_them() -> None:
    """What the registry says, what we found, and how it is connected: none of them hides another (E14)."""
    doubtful = "the registry no longer lists it, or not as passing (suspect)"
    assert whys(
        (READY, EJECTED, False, SUSPECT), (TRANSIENT_FAILURE, EJECTED, False, SUSPECT), (READY, 0, False, "passing")
    ) == [
        f"ejected: told; {doubtful}",
        f"not connected (transient_failure); ejected: told; {doubtful}",
        "ready",
    ]


def test_one_that_the_balancer_avoids_says_why_it_gets_nothing_though_it_is_ready() -> None:
    balancer = PeakEwma(random.Random(1))
    cluster = Cluster("orders", balancer)
    members = (Member(address="e0:1"), Member(address="e1:1"))
    cluster.apply(Snapshot(service="orders", members=members, source="consul"), NOW)
    failing, sound = cluster.endpoints
    for endpoint in (failing, sound):
        cluster.set_connectivity(endpoint, READY)
        balancer.done(endpoint, SUCCESS, 0.004, NOW)
    view = UpstreamView(cluster=cluster, metrics=UpstreamMetrics("orders"), listen="127.0.0.1:1")
    balancer.done(failing, TIMEOUT, 1.0, NOW)
    page, other = describe(view, NOW).endpoints
    assert (page.pickable, page.avoided) == (True, True)
    sentence = r"ready, but avoided: after a failure or pushback an RPC there counts as 2\.0s, at its peers as 4\.\d+ms"
    assert re.fullmatch(f"{sentence} at most", page.why)
    assert (other.avoided, other.why) == (False, "ready")
    cluster.set_state(failing, EJECTED, "told", NOW)
    page, _ = describe(view, NOW).endpoints
    assert (page.pickable, page.avoided, page.why) == (False, False, "ejected: told")


def test_a_full_or_unconnected_endpoint_says_so() -> None:
    assert whys((READY, 0, True, "passing"), (CONNECTING, 0, False, "passing")) == [
        "all its stream slots are taken",
        "not connected (connecting)",
    ]


def test_an_upstream_with_nothing_to_pick_carries_the_refusal_that_rpcs_get() -> None:
    unknown, unconnected = fetched(prices(), stuck())
    assert unknown["refusal"]["reason"] == "never_discovered"
    assert unknown["registry"] == {"up": False, "detail": "not asked yet"}
    assert unconnected["refusal"]["text"] == "stuck: still connecting to 1 of 1 instance(s)"
    assert unconnected["source"] == "static"


def test_no_upstreams_are_an_empty_list_and_a_sentence() -> None:
    assert fetched() == []
    assert to_text([]) == "No upstreams are configured.\n"


@given(st.text(), st.text(), st.text())
def test_names_from_a_registry_cannot_break_the_table(address: str, source: str, detail: str) -> None:
    cluster = Cluster("orders", RoundRobin(random.Random(1)))
    cluster.apply(Snapshot(service="orders", members=(Member(address=address),), source=source or "x"), NOW)
    cluster.note_registry(False, detail, NOW)
    cluster.set_connectivity(cluster.endpoints[0], CONNECTING, detail)
    view = UpstreamView(cluster=cluster, metrics=UpstreamMetrics("orders"), listen="127.0.0.1:1")
    text = to_text([describe(view, NOW)])
    assert len(text.split("\n")) == 6
    assert text.replace("\n", "").isprintable()


def test_endpoints_are_counted_for_the_collector_with_every_pair_present() -> None:
    counts = count_endpoints(orders().cluster)
    assert sum(counts.values()) == 4 and len(counts) == 12
    assert counts["healthy", "ready"] == 2
    assert counts["ejected", "ready"] == 1
    assert counts["healthy", "transient_failure"] == 1


def test_an_endpoint_that_is_out_for_two_reasons_tells_both() -> None:
    """E14: ejection's verdict and the health check's stand side by side, and the registry's word beside them."""
    cluster = Cluster("orders", RoundRobin(random.Random(1)))
    cluster.apply(Snapshot(service="orders", members=(Member(address="a:1"), Member(address="b:1")), source="x"), NOW)
    for endpoint in cluster.endpoints:
        cluster.set_connectivity(endpoint, READY)
    first, second = cluster.endpoints
    cluster.set_state(first, EJECTED, "5 failures in a row", NOW)
    cluster.set_checkup(first, FAILED, "gRPC health: NOT_SERVING", NOW)
    cluster.set_checkup(second, AWAITED, "", NOW)
    view = UpstreamView(cluster=cluster, metrics=UpstreamMetrics("orders"), listen="127.0.0.1:1")
    pages = describe(view, NOW).endpoints
    ailments = "ejected: 5 failures in a row; health check failed: gRPC health: NOT_SERVING"
    assert [page.why for page in pages] == [
        f"{ailments}; picked because no healthy endpoint is ready",
        "its first health check is awaited",
    ]
    assert (pages[0].health_check, pages[0].health_check_finding) == ("failed", "gRPC health: NOT_SERVING")
    assert pages[0].registry_status == "passing"
