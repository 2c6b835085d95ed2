"""The admin API over real sockets: what each path answers, and who is turned away."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from sidecar.admin.guard import is_local_name
from sidecar.admin.inspection import PAGES
from sidecar.admin.server import AdminServer
from sidecar.admin.settings import AdminSettings
from sidecar.policy.event import EJECTED, WITHHELD, Event
from sidecar.telemetry.catalogue import CATALOGUE
from sidecar.telemetry.collector import BUCKETS
from tests.admin.desk import NOW, Desk, opened, orders, prices, stuck

COMMANDS = ("/drain", "/reload", "/logging?level=debug", "/quitquitquit")


def asked(
    desk: Desk, method: str, path: str, *, headers: Mapping[str, str] | None = None, probe: bool = False
) -> tuple[int, str, aiohttp.ClientResponse]:
    async def run() -> tuple[int, str, aiohttp.ClientResponse]:
        async with opened(desk) as caller:
            return await caller.ask(method, path, headers=headers, probe=probe)

    return asyncio.run(run())


# === questions ===


def test_ready_answers_200_when_nothing_stands_against_it() -> None:
    assert asked(Desk(), "GET", "/ready")[:2] == (200, "ready\n")


def test_not_ready_answers_503_with_one_reason_per_line() -> None:
    desk = Desk()
    desk.reasons = ["the app does not answer on 127.0.0.1:50051", "orders: the registry has not answered yet"]
    assert asked(desk, "GET", "/ready")[:2] == (503, "\n".join(desk.reasons) + "\n")


def test_live_asks_only_whether_the_loop_keeps_up() -> None:
    desk = Desk()
    desk.reasons = ["not ready"]
    assert asked(desk, "GET", "/live")[0] == 200
    desk.alive = False
    assert asked(desk, "GET", "/live")[0] == 503


def test_metrics_are_prometheus_text_with_every_family_of_the_catalogue() -> None:
    status, text, response = asked(Desk([orders(), prices()]), "GET", "/metrics")
    assert status == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    families = {family.name for family in text_string_to_metric_families(text)}
    assert {metric.name.removesuffix("_total") for metric in CATALOGUE} <= families
    assert "process_cpu_seconds" in families


def test_a_large_scrape_made_in_slices_reads_as_one_made_at_once() -> None:
    views = [orders() for _ in range(12)]
    for number, view in enumerate(views):
        view.metrics.name = f"orders-{number}"
    _, text, _ = asked(Desk(views), "GET", "/metrics")
    assert text.count("# TYPE sidecar_proxy_exchange_duration_seconds histogram") == 1
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert len(families) == text.count("# TYPE ")
    assert len(families["sidecar_proxy_exchange_duration_seconds"].samples) == 12 * (len(BUCKETS) + 3)


def test_upstreams_are_listed_with_the_addresses_the_app_dials() -> None:
    status, text, _ = asked(Desk([orders(), prices()]), "GET", "/upstreams")
    assert status == 200
    assert json.loads(text) == {
        "upstreams": [
            {"name": "orders", "listen": "127.0.0.1:15001"},
            {"name": "prices", "listen": "127.0.0.1:15002"},
        ]
    }


def test_the_configuration_is_shown_as_the_view_gives_it() -> None:
    desk = Desk()
    status, text, response = asked(desk, "GET", "/config_dump")
    assert (status, response.content_type) == (200, "application/json")
    assert json.loads(text) == desk.config_dump()


def test_server_info_says_what_runs() -> None:
    status, text, _ = asked(Desk(), "GET", "/server_info")
    assert status == 200
    assert {"version", "python", "codec", "loop", "compiled"} <= json.loads(text).keys()


def test_the_front_page_lists_every_path_that_there_is() -> None:
    status, text, response = asked(Desk(), "GET", "/")
    assert (status, response.content_type) == (200, "text/html")
    for method, path, _ in PAGES:
        assert f"{method}<td>" in text and path in text


def test_every_path_of_the_front_page_answers() -> None:
    desk = Desk([orders()])

    async def run() -> None:
        async with opened(desk) as caller:
            for method, path, _ in PAGES:
                status, _, _ = await caller.ask(method, path)
                assert status == 200, path

    asyncio.run(run())
    assert desk.commands == ["drain", "reload", "level debug", "quit"]


def test_clusters_as_text_say_why_nothing_can_be_picked() -> None:
    status, text, response = asked(Desk([orders(), prices(), stuck()]), "GET", "/clusters")
    assert (status, response.content_type) == (200, "text/plain")
    assert "orders on 127.0.0.1:15001: 1 of 4 endpoints pickable (round_robin), 2 in flight, 1 queued" in text
    assert "members from consul, confirmed 2.0s ago; registry up: answers" in text
    assert "members not known yet; registry down: not asked yet" in text
    assert "members from the configuration file" in text
    assert "ejected: 5 failures in a row" in text
    assert "refused now (never_discovered): prices: the registry has not answered yet (not asked yet)" in text
    assert "refused now (all_connecting): stuck: still connecting to 1 of 1 instance(s)" in text


def test_events_are_told_with_their_age_and_their_sentence_the_newest_first() -> None:
    view = orders()
    for at, kind, withheld in ((NOW - 9, EJECTED, ""), (NOW - 2.5, WITHHELD, "cap")):
        event = Event(
            at=at, endpoint="10.0.0.2:80", kind=kind, reason="success_rate", text=f"is {kind}", withheld=withheld
        )
        view.cluster.events.append(event)
    status, text, _ = asked(Desk([view, prices()]), "GET", "/events")
    told, none = json.loads(text)["upstreams"]
    assert (status, told["name"], none) == (200, "orders", {"name": "prices", "events": []})
    assert told["events"][0] == {
        "age_seconds": 2.5,
        "endpoint": "10.0.0.2:80",
        "event": "withheld",
        "reason": "success_rate",
        "withheld": "cap",
        "text": "is withheld",
    }
    assert [event["age_seconds"] for event in told["events"]] == [2.5, 9.0]


def test_only_the_newest_64_events_are_kept() -> None:
    view = orders()
    for number in range(100):
        view.cluster.events.append(Event(at=NOW, endpoint="a:1", kind=EJECTED, reason="", text=str(number)))
    events = json.loads(asked(Desk([view]), "GET", "/events")[1])["upstreams"][0]["events"]
    assert [event["text"] for event in events] == [str(number) for number in range(99, 35, -1)]


def test_an_unknown_format_is_refused_with_the_known_ones() -> None:
    assert asked(Desk(), "GET", "/clusters?format=xml")[:2] == (400, "format is text or json.\n")


# === commands ===


@pytest.mark.parametrize("path", COMMANDS)
def test_a_command_by_get_is_refused_with_a_sentence_and_does_nothing(path: str) -> None:
    desk = Desk()
    status, text, response = asked(desk, "GET", path)
    plain = path.partition("?")[0]
    assert (status, text) == (405, f"{plain} takes POST because it changes something, not GET.\n")
    assert response.headers["Allow"] == "POST"
    assert desk.commands == []


def test_a_drain_that_went_wrong_says_what_went_wrong() -> None:
    desk = Desk()
    desk.problems = ["Consul did not answer: connection refused"]
    assert asked(desk, "POST", "/drain")[:2] == (503, "Consul did not answer: connection refused\n")


def test_a_drain_goes_on_when_its_asker_hangs_up() -> None:
    class Slow(Desk):
        def __init__(self) -> None:
            super().__init__()
            self.begun = asyncio.Event()
            self.release = asyncio.Event()
            self.done = asyncio.Event()

        async def drain(self) -> list[str]:
            self.begun.set()
            await self.release.wait()
            self.done.set()
            return []

    async def run() -> None:
        desk = Slow()
        async with opened(desk) as caller:
            asking = asyncio.ensure_future(caller.ask("POST", "/drain"))
            await asyncio.wait_for(desk.begun.wait(), 10)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            assert (await caller.ask("GET", "/live"))[0] == 200
            desk.release.set()
            await asyncio.wait_for(desk.done.wait(), 10)

    asyncio.run(run())


def test_a_refused_reload_lists_every_mistake_and_says_what_stays() -> None:
    desk = Desk()
    desk.mistakes = ["sidecar.yaml:3:5: unknown field 'balancr'", "sidecar.yaml:9:1: not a port"]
    status, text, _ = asked(desk, "POST", "/reload")
    assert status == 422
    assert text.splitlines() == [*desk.mistakes, "The former configuration stays in force."]


def test_an_unknown_log_level_is_refused_with_the_known_ones() -> None:
    status, text, _ = asked(Desk(), "POST", "/logging?level=loud")
    assert (status, text) == (400, "'loud' is no log level; there are debug.\n")


# === who may ask ===


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:19900", "localhost", "LOCALHOST:1", "sidecar.localhost", "[::1]:19900", "10.1.2.3", "box.example:1"],
)
def test_addresses_localhost_and_the_bound_name_are_this_machine(host: str) -> None:
    assert is_local_name(host, "box.example")


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example:19900", "127.0.0.1.evil.example", "", "[x]", ":"]
)
def test_any_other_name_is_not(host: str) -> None:
    assert not is_local_name(host, "box.example")


def test_a_rebound_name_reaches_neither_questions_nor_commands() -> None:
    desk = Desk()
    for method, path in (("GET", "/config_dump"), ("POST", "/quitquitquit")):
        status, text, _ = asked(desk, method, path, headers={"Host": "evil.example"})
        assert status == 403
        assert "config" not in text and "evil.example" in text
    assert desk.commands == []


def test_a_web_page_cannot_post_a_command() -> None:
    desk = Desk()
    for path in COMMANDS:
        assert asked(desk, "POST", path, headers={"Origin": "https://evil.example"})[0] == 403
    assert desk.commands == []


def test_no_answer_opens_itself_to_other_sites_or_to_sniffing() -> None:
    for path in ("/", "/config_dump", "/nowhere"):
        _, _, response = asked(Desk(), "GET", path, headers={"Origin": "https://evil.example"})
        assert "Access-Control-Allow-Origin" not in response.headers
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "no-store"


def test_an_unknown_path_gets_a_sentence_without_raw_control_characters() -> None:
    status, text, response = asked(Desk(), "GET", "/now%0Ahere%1B%5B31m")
    assert status == 404
    assert text == "There is nothing at /now\\nhere\\x1b[31m; GET / lists what there is.\n"
    assert response.content_type == "text/plain"


def test_a_bug_in_a_page_answers_500_and_leaves_the_others_alone(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Desk):
        def config_dump(self) -> Mapping[str, object]:
            raise RuntimeError("secret detail")

    async def run() -> None:
        async with opened(Broken()) as caller:
            status, text, _ = await caller.ask("GET", "/config_dump")
            assert status == 500 and "secret detail" not in text
            assert (await caller.ask("GET", "/ready"))[0] == 200

    asyncio.run(run())
    assert "failed to answer GET /config_dump" in caplog.text


# === the second address ===


@pytest.mark.parametrize("path", ["/ready", "/live", "/metrics"])
def test_the_probe_address_answers_probes_by_any_name(path: str) -> None:
    assert asked(Desk(), "GET", path, headers={"Host": "pod-7.orders.svc"}, probe=True)[0] == 200


@pytest.mark.parametrize("path", ["/", "/clusters", "/config_dump", "/server_info", "/upstreams", *COMMANDS])
def test_the_probe_address_knows_nothing_else(path: str) -> None:
    desk = Desk()
    assert asked(desk, "GET", path, probe=True)[0] == 404
    assert asked(desk, "POST", path, probe=True)[0] == 404
    assert desk.commands == []


def test_both_addresses_are_free_again_after_close() -> None:
    async def run() -> None:
        server = AdminServer(AdminSettings(listen="127.0.0.1:0", probe_listen="[::1]:0"), Desk())
        await server.bind()
        assert server.address is not None and server.probe_address is not None
        assert server.probe_address.startswith("[::1]:")
        port = int(server.address.rpartition(":")[2])
        await server.close()
        again = AdminServer(AdminSettings(listen=f"127.0.0.1:{port}"), Desk())
        await again.bind()
        await again.close()

    asyncio.run(run())


def test_a_taken_address_is_an_error_that_names_it_and_leaves_nothing_bound() -> None:
    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            server = AdminServer(AdminSettings(listen="127.0.0.1:0", probe_listen=f"127.0.0.1:{port}"), Desk())
            with pytest.raises(OSError, match=str(port)):
                await server.bind()
            assert server.address is None

    asyncio.run(run())


def test_no_address_at_all_is_legal() -> None:
    async def run() -> None:
        server = AdminServer(AdminSettings(listen=None), Desk())
        await server.bind()
        assert server.address is None and server.probe_address is None
        await server.close()

    asyncio.run(run())


# === the docs ===


def test_every_path_is_in_the_docs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text("utf-8")
    for method, path, _ in PAGES:
        assert f"| {method} | `{path}` |" in text, path
