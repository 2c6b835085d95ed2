"""Blocking queries against scripted agents: index, pace, parameters, tokens, and answers that make no sense."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from sidecar.control.consul import ConsulRegistry
from sidecar.control.consul_watch import (
    IDLE_BURST,
    IDLE_RATE,
    TokenBucket,
    follow_index,
    snapshot_of,
)
from sidecar.control.registry import Health, Instance, RegistryDenied, RegistryError
from sidecar.control.settings import ConsulSettings, DiscoverySettings, ServiceSettings
from sidecar.policy.snapshot import WARNING, Member, Snapshot
from sidecar.telemetry.metrics import RegistryMetrics
from tests.control.fake_agent import Answering, FakeAgent, entry, listed

SECRET = "b1gs-ecret-t0ken"


def asked(
    answer: Answering, body: Callable[[FakeAgent, ConsulRegistry], Awaitable[None]], **settings: Any
) -> FakeAgent:
    """Run `body` with a registry that talks to a scripted agent."""

    async def scene() -> FakeAgent:
        async with FakeAgent(answer) as agent:
            registry = ConsulRegistry(ConsulSettings(address=agent.address, **settings), {})
            try:
                await body(agent, registry)
            finally:
                await registry.close()
            return agent

    return asyncio.run(scene())


def first_failure(answer: Answering, **settings: Any) -> RegistryError:
    """The error that the first answer leads to."""
    found: list[RegistryError] = []

    async def body(_: FakeAgent, registry: ConsulRegistry) -> None:
        with pytest.raises(RegistryError) as caught:
            await anext(registry.watch("orders", DiscoverySettings()))
        found.append(caught.value)

    asked(answer, body, **settings)
    return found[0]


def series(*answers: web.Response) -> Answering:
    """These answers, one after the other."""
    waiting = list(answers)

    async def answer(_: web.Request) -> web.StreamResponse:
        return waiting.pop(0)

    return answer


# === the index ===


def test_the_index_of_an_answer_is_asked_for_next_and_falls_back_to_zero_when_it_goes_back() -> None:
    indexes = [7, 9, 3, 3]

    async def body(_: FakeAgent, registry: ConsulRegistry) -> None:
        watch = registry.watch("orders", DiscoverySettings())
        assert [(await anext(watch)).index for _ in indexes] == indexes

    agent = asked(series(*(listed(entry("a", 1), index=index) for index in indexes)), body)
    assert [request.query.get("index") for request in agent.requests] == [None, "7", "9", None]


@pytest.mark.parametrize(("last", "new", "expected"), [(0, 0, 1), (0, 5, 5), (5, 5, 5), (5, 4, 0), (1, 0, 0)])
def test_the_index_is_at_least_one_unless_it_went_back(last: int, new: int, expected: int) -> None:
    assert follow_index(last, new) == expected


def test_a_new_watch_begins_without_an_index() -> None:
    async def body(_: FakeAgent, registry: ConsulRegistry) -> None:
        await anext(registry.watch("orders", DiscoverySettings()))
        await anext(registry.watch("orders", DiscoverySettings()))

    agent = asked(series(listed(index=7), listed(index=7)), body)
    assert ["index" in request.query for request in agent.requests] == [False, False]


# === the pace ===


def test_the_bucket_lets_its_burst_pass_and_then_its_rate() -> None:
    bucket = TokenBucket(IDLE_BURST, IDLE_RATE)
    assert [bucket.take(100) for _ in range(4)] == [0, 0, pytest.approx(15), pytest.approx(30)]
    assert bucket.take(100 + 60) == pytest.approx(0, abs=15)


def test_the_bucket_fills_up_to_its_burst_and_not_beyond() -> None:
    bucket = TokenBucket(2, 1)
    bucket.take(0)
    assert [bucket.take(1000) for _ in range(3)] == [0, 0, pytest.approx(1)]


def test_an_agent_that_does_not_block_is_not_hammered() -> None:
    """The third return that brings nothing is followed by a pause that outlasts any test."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return listed(index=7)

    async def body(agent: FakeAgent, registry: ConsulRegistry) -> None:
        watch = registry.watch("orders", DiscoverySettings())
        for _ in range(4):
            await anext(watch)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(watch), 0.2)
        assert len(agent.requests) == 4

    asked(answer, body)


# === what is asked ===


def two_answers(first: web.Response, second: web.Response) -> tuple[Snapshot, FakeAgent]:
    """What the first two answers of an agent come to, for who asks for a tag in another datacenter."""
    found: list[Snapshot] = []

    async def body(_: FakeAgent, registry: ConsulRegistry) -> None:
        choice = DiscoverySettings(datacenter="dc2", tags=("canary", "eu"), passing_only=True)
        found.append(await anext(registry.watch("orders", choice)))

    agent = asked(series(first, second), body)
    return found[0], agent


def test_where_no_instance_has_the_tags_it_asks_once_how_many_there_are() -> None:
    warning = entry("c", 3, Checks=[{"CheckID": "c", "Status": "warning"}])
    found, agent = two_answers(listed(index=7), listed(entry("a", 1), entry("b", 2), warning, index=7))
    assert (found.members, found.left_out, found.wanted) == ((), 2, "the tags canary, eu")
    first, second = agent.requests
    assert "tag" in first.query
    assert dict(second.query) == {"dc": "dc2", "stale": ""}


def test_a_failure_to_learn_how_many_there_are_leaves_the_answer_as_good_as_it_was() -> None:
    found, agent = two_answers(listed(index=7), web.Response(status=500))
    assert (found.members, found.left_out, len(agent.requests)) == ((), 0, 2)


def test_it_asks_for_nobody_else_while_somebody_fits() -> None:
    found, agent = two_answers(listed(entry("a", 1, Tags=["eu", "canary"]), index=7), web.Response(status=500))
    assert (len(found.members), found.left_out, len(agent.requests)) == (1, 0, 1)


def test_it_asks_for_nobody_else_again_before_the_index_moves() -> None:
    async def body(_: FakeAgent, registry: ConsulRegistry) -> None:
        watch = registry.watch("orders", DiscoverySettings(tags=("canary",)))
        assert [(await anext(watch)).left_out for _ in range(3)] == [1, 1, 0]

    agent = asked(series(listed(index=7), listed(entry("a", 1)), listed(index=7), listed(index=8), listed()), body)
    assert ["tag" in request.query for request in agent.requests] == [True, False, True, True, False]


def test_a_query_states_all_that_was_configured() -> None:
    async def body(_: FakeAgent, registry: ConsulRegistry) -> None:
        discovery = DiscoverySettings(datacenter="dc2", tags=("v2", "eu"), filter='Service.Meta.v == "2"')
        await anext(registry.watch("orders", discovery))

    agent = asked(series(listed()), body, wait=30.0, namespace="team", partition="east")
    query = agent.requests[0].query
    assert agent.requests[0].path == "/v1/health/service/orders"
    assert (query["dc"], query.getall("tag"), query["filter"]) == ("dc2", ["v2", "eu"], 'Service.Meta.v == "2"')
    assert (query["ns"], query["partition"], query["wait"]) == ("team", "east", "30000ms")
    assert "stale" in query and "passing" not in query


def test_default_consistency_asks_the_leader() -> None:
    async def body(_: FakeAgent, registry: ConsulRegistry) -> None:
        await anext(registry.watch("orders", DiscoverySettings()))

    assert "stale" not in asked(series(listed()), body, consistency="default").requests[0].query


def test_contact_and_leader_are_noted() -> None:
    metrics = RegistryMetrics()

    async def scene() -> None:
        headers = {"X-Consul-LastContact": "1500", "X-Consul-KnownLeader": "false"}
        async with FakeAgent(series(listed(entry("a", 1), **headers))) as agent:
            registry = ConsulRegistry(ConsulSettings(address=agent.address), {}, metrics)
            await anext(registry.watch("orders", DiscoverySettings()))
            await registry.close()

    asyncio.run(scene())
    assert (metrics.last_contact, metrics.known_leader) == (1.5, False)


def test_a_unix_socket_is_an_address(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"

    async def scene() -> Snapshot:
        agent = FakeAgent(series(listed(entry("a", 1))))
        await agent.start(str(path))
        registry = ConsulRegistry(ConsulSettings(address=f"unix://{path}"), {})
        try:
            return await anext(registry.watch("orders", DiscoverySettings()))
        finally:
            await registry.close()
            await agent.stop()

    assert [member.id for member in asyncio.run(scene()).members] == ["a"]


# === answers that make no sense: a clear sentence each ===


def test_html_is_named_as_what_it_is() -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>\n<body>Welcome to nginx</body></html>", content_type="text/html")

    text = str(first_failure(answer))
    assert "without an index, so it may not be Consul" in text and "<html> <body>Welcome to nginx" in text


def test_html_behind_an_index_is_no_list() -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(text="<html></html>", headers={"X-Consul-Index": "7"})

    assert "not a list of instances of orders" in str(first_failure(answer))


@pytest.mark.parametrize(
    "body", ["", "{", "null", "{}", "[1]", '[{"Node": {}}]', '[{"Node":{},"Service":{"Port":"x"}}]']
)
def test_garbage_json_is_no_list(body: str) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(text=body, headers={"X-Consul-Index": "7"})

    assert "not a list of instances of orders" in str(first_failure(answer))


def test_a_server_error_is_quoted() -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=500, text="No cluster leader")

    assert "it answered 500 No cluster leader" in str(first_failure(answer))


def test_a_redirect_is_not_followed_for_it_would_carry_the_token_away() -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"})

    assert "it answered 302" in str(first_failure(answer, token=SECRET))


def test_nobody_at_the_address_is_said_with_the_address() -> None:
    async def scene() -> str:
        async with FakeAgent(series()) as agent:
            address = agent.address
        registry = ConsulRegistry(ConsulSettings(address=address), {})
        with pytest.raises(RegistryError) as caught:
            await anext(registry.watch("orders", DiscoverySettings()))
        await registry.close()
        assert address in str(caught.value)
        return str(caught.value)

    assert "cannot be reached to list the instances of orders" in asyncio.run(scene())


def test_an_agent_that_hangs_runs_into_the_time_limit() -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        return web.Response()

    assert "gave no answer in time" in str(first_failure(answer, wait=1.0, timeout=0.05))


def test_a_connection_that_breaks_within_the_answer_is_an_error() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"X-Consul-Index": "7", "Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"[")
        assert request.transport is not None
        request.transport.abort()
        return response

    assert "cannot be reached" in str(first_failure(answer))


def test_an_empty_list_without_a_leader_proves_nothing() -> None:
    assert "knows no leader" in str(first_failure(series(listed(**{"X-Consul-KnownLeader": "false"}))))


def test_https_to_a_plain_server_is_an_error_with_a_sentence() -> None:
    async def scene() -> str:
        async with FakeAgent(series(listed())) as agent:
            registry = ConsulRegistry(ConsulSettings(address=f"https://{agent.address}"), {})
            with pytest.raises(RegistryError) as caught:
                await anext(registry.watch("orders", DiscoverySettings()))
            await registry.close()
        return str(caught.value)

    assert "cannot be reached" in asyncio.run(scene())


def test_tls_files_that_cannot_be_used_are_named() -> None:
    async def scene() -> str:
        registry = ConsulRegistry(ConsulSettings(address="https://127.0.0.1:1", ca_file="/does/not/exist"), {})
        with pytest.raises(RegistryError) as caught:
            await anext(registry.watch("orders", DiscoverySettings()))
        return str(caught.value)

    assert "TLS files" in asyncio.run(scene())


# === tokens ===


def test_the_token_travels_in_its_header_and_nowhere_else() -> None:
    async def body(_: FakeAgent, registry: ConsulRegistry) -> None:
        await anext(registry.watch("orders", DiscoverySettings()))
        assert SECRET not in repr(registry) + repr(registry.client) + repr(registry.client.target)

    request = asked(series(listed()), body, token=SECRET).requests[0]
    assert request.headers["X-Consul-Token"] == SECRET
    assert SECRET not in str(request.url)


def test_the_environment_of_the_process_cannot_replace_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """py-consul would take it from there."""
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "from-the-environment")

    async def body(_: FakeAgent, registry: ConsulRegistry) -> None:
        await anext(registry.watch("orders", DiscoverySettings()))

    assert "X-Consul-Token" not in asked(series(listed()), body).requests[0].headers


def test_a_token_that_an_answer_repeats_does_not_reach_the_message() -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=403, text=f"token {SECRET} lacks service:read")

    error = first_failure(answer, token=SECRET)
    assert isinstance(error, RegistryDenied)
    assert "<token>" in str(error) and SECRET not in str(error)
    assert "service:read" in str(error)


def test_a_changed_token_file_is_in_use_with_the_next_request(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")

    async def body(_: FakeAgent, registry: ConsulRegistry) -> None:
        await anext(registry.watch("orders", DiscoverySettings()))
        file.write_text("second-one\n")
        await anext(registry.watch("orders", DiscoverySettings()))
        file.unlink()
        await anext(registry.watch("orders", DiscoverySettings()))

    agent = asked(series(listed(), listed(), listed()), body, token_file=str(file))
    used = [request.headers["X-Consul-Token"] for request in agent.requests]
    assert used == ["first", "second-one", "second-one"]


def test_a_token_file_that_never_was_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nothing"
    error = first_failure(series(), token_file=str(path))
    assert f"the Consul token file {path} cannot be read" in str(error)


def test_a_list_that_acl_has_emptied_is_a_refusal() -> None:
    error = first_failure(series(listed(**{"X-Consul-Results-Filtered-By-ACLs": "true"})))
    assert isinstance(error, RegistryDenied)
    assert "needs service:read and node:read" in str(error)


def test_a_refused_registration_says_what_the_token_lacks() -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=403, text="Permission denied")

    async def body(_: FakeAgent, registry: ConsulRegistry) -> None:
        instance = Instance(id="a", address="10.0.0.1", settings=ServiceSettings(name="orders", port=1))
        with pytest.raises(RegistryDenied, match="service:write for the own service"):
            await registry.register(instance, Health(status="passing", output=""))

    asked(answer, body)


# === what an answer means ===


def members(*entries: dict[str, Any], **settings: Any) -> tuple[Member, ...]:
    """The members that these entries come to."""
    found: list[Snapshot] = []

    async def body(_: FakeAgent, registry: ConsulRegistry) -> None:
        found.append(await anext(registry.watch("orders", DiscoverySettings(**settings))))

    asked(series(listed(*entries)), body)
    return found[0].members


def test_an_instance_without_an_address_is_at_its_node() -> None:
    assert members(entry("a", 1, Address=""))[0].address == "10.0.0.9:1"


def test_ipv6_gets_brackets() -> None:
    assert members(entry("a", 1, Address="fd00::1"))[0].address == "[fd00::1]:1"


def test_null_tags_and_meta_are_empty() -> None:
    member = members(entry("a", 1, Tags=None, Meta=None, Weights=None))[0]
    assert (member.tags, member.meta, member.weight) == ((), {}, 1)


def test_one_warning_check_gives_the_warning_weight() -> None:
    checks = [{"CheckID": "a", "Status": "passing"}, {"CheckID": "b", "Status": "warning"}]
    weighted = entry("a", 1, Weights={"Passing": 10, "Warning": 3}, Checks=checks)
    assert [(m.status, m.weight) for m in members(weighted)] == [(WARNING, 3)]
    assert members(weighted, passing_only=True) == ()


def test_a_warning_weight_of_zero_takes_no_traffic() -> None:
    checks = [{"CheckID": "b", "Status": "warning"}]
    assert members(entry("a", 1, Weights={"Passing": 10, "Warning": 0}, Checks=checks)) == ()


def test_a_critical_check_on_instance_or_node_leaves_it_out() -> None:
    assert members(entry("a", 1, Checks=[{"CheckID": "serfHealth", "Status": "critical"}]), entry("b", 2))[0].id == "b"


def test_two_ids_at_one_address_are_one_member_and_the_passing_one_speaks() -> None:
    warning = entry("old", 1, Checks=[{"CheckID": "c", "Status": "warning"}])
    assert [m.id for m in members(warning, entry("new", 1))] == ["new"]
    assert [m.id for m in members(entry("new", 1), warning)] == ["new"]


def test_an_instance_without_a_port_cannot_be_dialled_and_is_left_out() -> None:
    assert members(entry("a", 0)) == ()


IN_Z2 = {"Locality": {"Region": "r", "Zone": "z2"}}
ON_Z4 = {
    "Node": {"Node": "n", "Address": "10.0.0.9", "Locality": {"Region": "r", "Zone": "z3"}, "Meta": {"zone": "z4"}}
}


@pytest.mark.parametrize(
    ("more", "zone"),
    [
        ({"Meta": {"zone": "z1"}, **IN_Z2, **ON_Z4}, "z1"),
        ({"Meta": {"zone": ""}, **IN_Z2, **ON_Z4}, "z2"),
        (ON_Z4, "z3"),
        ({"Node": {"Node": "n", "Address": "10.0.0.9", "Meta": {"zone": "z4"}}}, "z4"),
        ({"Locality": None, "Meta": None}, ""),
        ({}, ""),
    ],
)
def test_the_zone_is_in_the_metadata_of_the_instance_else_its_locality_else_that_of_its_node(
    more: dict[str, Any], zone: str
) -> None:
    assert members(entry("a", 1, **more))[0].zone == zone


def test_maintenance_and_a_drain_are_told_apart_from_absence() -> None:
    async def body(_: FakeAgent, registry: ConsulRegistry) -> None:
        snapshot = await anext(registry.watch("orders", DiscoverySettings()))
        assert [member.id for member in snapshot.members] == ["c"]
        assert snapshot.withdrawn == ("10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:4")

    drained = {"Status": "critical", "Output": "drained by its sidecar"}
    entries = [
        entry("a", 1, Checks=[{"CheckID": "_service_maintenance:a", "Status": "critical"}]),
        entry("b", 2, Checks=[{"CheckID": "_node_maintenance", "Status": "critical"}]),
        entry("c", 3),
        entry("d", 4, Checks=[{"CheckID": "service:d", **drained}]),
        entry("e", 5, Checks=[{"CheckID": "service:d", **drained}]),
        entry("f", 6, Checks=[{"CheckID": "service:f", "Status": "critical", "Output": "connection refused"}]),
    ]
    asked(series(listed(*entries)), body)


def test_members_come_in_the_order_of_their_addresses() -> None:
    assert snapshot_of("orders", [], 1, DiscoverySettings()).members == ()
    assert [m.id for m in members(entry("b", 2), entry("a", 1))] == ["a", "b"]
