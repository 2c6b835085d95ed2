"""A chain of services, each behind the sidecar of the one before: retries are made at one hop and not multiplied (N10).

Each hop is a stage of its own. The service between two hops passes on what it is told, as an app does that hands the
trailers of a failed call to its own caller.
"""

from __future__ import annotations

from sidecar.http2.interface import Codec
from sidecar.policy.method import MethodTable
from sidecar.policy.method_settings import BudgetSettings, MethodSettings, RetrySettings, ThrottleSettings
from tests.proxy.pipe import Ear, Peer
from tests.proxy.stage import Stage, on_loop, started

HOPS = 4
RETRY = RetrySettings(idempotent=True, max_attempts=3, backoff_base=0.01, backoff_max=0.01)
GENEROUS = BudgetSettings(ratio=1.0, floor=1000)  # so that ownership alone is what holds the load down
UNTHROTTLED = ThrottleSettings(max_tokens=0)  # likewise


class Tree:
    """The stages, first the one that the caller dials; the last one's servers are the leaf."""

    def __init__(self, stages: list[Stage], forwarding: bool) -> None:
        self.stages = stages
        self.forwarding = forwarding
        self.apps: list[Peer] = []
        self.leaf = 0
        self._passed: dict[Ear, tuple[Peer, Ear]] = {}  # a call further down -> the request it is made for
        self._seen: set[Ear] = set()

    async def settle(self, seconds: float) -> None:
        """Let this much time pass, in small steps, with every service doing its part."""
        for _ in range(int(seconds / 0.005)):
            for depth, stage in enumerate(self.stages):
                await stage.advance(0.005)
                self._serve(stage, depth)
            self._pass_back()

    def _serve(self, stage: Stage, depth: int) -> None:
        for server in stage.servers:
            for peer in server.connections:
                for ear in peer.streams:
                    if ear not in self._seen and ear.ended:
                        self._seen.add(ear)
                        if depth + 1 == len(self.stages):
                            self.leaf += 1
                            peer.respond(ear, (b"grpc-status", b"14"), end=True)
                        else:
                            self._passed[self.apps[depth + 1].call(end=True)] = (peer, ear)

    def _pass_back(self) -> None:
        for call, (peer, ear) in list(self._passed.items()):
            if call.ended:
                del self._passed[call]
                told = call.field(b"grpc-retry-pushback-ms")
                fields = [(b"grpc-status", b"%d" % (call.status or 0))]
                if told is not None and self.forwarding:
                    fields.append((b"grpc-retry-pushback-ms", told))
                peer.respond(ear, *fields, end=True)


async def planted(
    codec: type[Codec],
    budget: BudgetSettings | None = None,
    throttle: ThrottleSettings | None = UNTHROTTLED,
    forwarding: bool = True,
) -> Tree:
    stages = [
        await started(codec, servers=2, methods=MethodTable(MethodSettings(retry=RETRY), {}, budget, throttle))
        for _ in range(HOPS)
    ]
    tree = Tree(stages, forwarding)
    tree.apps = [stage.app() for stage in stages]
    for stage in stages:
        await stage.run()
    return tree


@on_loop
async def test_a_failing_leaf_is_tried_three_times_by_its_own_caller_and_by_nobody_else(codec: type[Codec]) -> None:
    tree = await planted(codec, GENEROUS)
    call = tree.apps[0].call(end=True)
    await tree.settle(1.0)
    assert (call.status, call.field(b"grpc-retry-pushback-ms")) == (14, b"-1")
    assert tree.leaf == 3  # and not 81
    assert [stage.metrics.retries for stage in tree.stages] == [{}, {}, {}, {"unavailable": 2}]
    assert [stage.metrics.retries_suppressed for stage in tree.stages[:3]] == [{"pushback": 1}] * 3
    for stage in tree.stages:
        assert stage.leaks() == []


@on_loop
async def test_the_budget_holds_the_leaf_below_a_fifth_more_than_was_offered(codec: type[Codec]) -> None:
    tree = await planted(codec, BudgetSettings(floor=0))
    calls = [tree.apps[0].call(end=True) for _ in range(60)]
    await tree.settle(1.0)
    assert {call.status for call in calls} == {14}
    assert len(calls) < tree.leaf <= 1.2 * len(calls)


@on_loop
async def test_with_shipped_settings_the_leaf_sees_a_fifth_more_at_most_though_the_apps_pass_nothing_on(
    codec: type[Codec],
) -> None:
    tree = await planted(codec, throttle=None, forwarding=False)
    calls = [tree.apps[0].call(end=True) for _ in range(200)]
    await tree.settle(2.0)
    assert {call.status for call in calls} == {14}
    assert len(calls) < tree.leaf <= len(calls) + 9 * HOPS <= 1.2 * len(calls)


@on_loop
async def test_hops_whose_apps_pass_nothing_on_are_held_by_their_own_budgets(codec: type[Codec]) -> None:
    tree = await planted(codec, BudgetSettings(floor=0), forwarding=False)
    calls = [tree.apps[0].call(end=True) for _ in range(60)]
    await tree.settle(2.0)
    assert {call.status for call in calls} == {14}
    assert tree.leaf <= 3 * len(calls)  # and not 81 times


@on_loop
async def test_a_caller_that_retries_itself_owns_the_retries(codec: type[Codec]) -> None:
    """One owner per call tree (F7)."""
    stage = await started(codec, methods=MethodTable(MethodSettings(retry=RETRY), {}))
    app = stage.app()
    await stage.run()
    call = app.call((b"grpc-previous-rpc-attempts", b"1"), end=True)
    await stage.run()
    (request,) = stage.server.requests
    request.peer.respond(request, (b"grpc-status", b"14"), end=True)
    await stage.run()
    assert call.status == 14
    assert stage.metrics.retries_suppressed == {"caller": 1}
    assert stage.leaks() == []
