"""A user's balancer: how it is found, and that its mistakes cost at most one RPC each."""

from __future__ import annotations

import random

import pytest

from sidecar.app.upstream import load_balancer
from sidecar.http2.interface import Codec
from tests.proxy.stage import on_loop, started

HERE = "tests.app.balancers"


@pytest.mark.parametrize("name", ["round_robin", "least_request"])
def test_built_in_balancers_are_found_by_name(name: str) -> None:
    assert load_balancer(name, random.Random(1)).name == name


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no.such.module:Balancer", "cannot be loaded: ModuleNotFoundError"),
        (f"{HERE}:Missing", "cannot be loaded: AttributeError"),
        (f"{HERE}:NOT_A_CLASS", "is not a class that derives from"),
        (f"{HERE}:NeedsArguments", "cannot be made without arguments"),
        ("least_requests", "cannot be loaded"),
    ],
)
def test_balancer_that_cannot_be_had_is_a_sentence(name: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        load_balancer(name, random.Random(1))


@pytest.mark.parametrize("name", ["First", "Failing"])
@on_loop
async def test_mistakes_outside_the_pick_cost_nothing(codec: type[Codec], name: str) -> None:
    stage = await started(codec, servers=2, balancer=load_balancer(f"{HERE}:{name}", random.Random(1)))
    app = stage.app()
    await stage.run()
    calls = [app.call(end=True) for _ in range(3)]
    await stage.run()
    for request in stage.server.requests:
        stage.server.connection.answer(request)
    await stage.run()
    assert [call.status for call in calls] == [0, 0, 0]
    assert stage.leaks() == []


@pytest.mark.parametrize(
    ("name", "said"), [("First", ["", ""]), ("Choosy", ["", "it is not the first"]), ("Failing", ["", ""])]
)
@on_loop
async def test_its_word_on_whom_it_avoids_is_passed_on(codec: type[Codec], name: str, said: list[str]) -> None:
    stage = await started(codec, servers=2, balancer=load_balancer(f"{HERE}:{name}", random.Random(1)))
    await stage.run()
    cluster = stage.dispatch.cluster
    assert [cluster.balancer.why_avoided(endpoint, cluster, 0.0) for endpoint in cluster.pickable] == said


@on_loop
async def test_pick_of_nothing_fails_that_rpc(codec: type[Codec]) -> None:
    stage = await started(codec, balancer=load_balancer(f"{HERE}:Lost", random.Random(1)))
    app = stage.app()
    await stage.run()
    call = app.call(end=True)
    await stage.run()
    assert call.status == 13
    assert "BalancerFault" in call.message
    assert app.goaways == []
    assert stage.leaks() == []


@on_loop
async def test_pick_of_an_endpoint_that_is_gone_fails_that_rpc_and_does_not_hang(codec: type[Codec]) -> None:
    stage = await started(codec, servers=2, balancer=load_balancer(f"{HERE}:Forgetful", random.Random(1)))
    app = stage.app()
    await stage.run()
    first = app.call(end=True)
    await stage.run()
    (server,) = [server for server in stage.servers if server.requests]
    server.connection.answer(server.requests[0])
    await stage.run()
    stage.discover(*(other.address for other in stage.servers if other is not server))
    await stage.run()
    second = app.call(end=True)
    await stage.run()
    assert (first.status, second.status) == (0, 13)
    assert stage.leaks() == []
