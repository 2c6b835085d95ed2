"""Ejection on the wire: what servers do to streams and connections, and where RPCs go then (E2, E3, E7, E10, P4b)."""

from __future__ import annotations

import logging
import random

import pytest

from sidecar.http2 import constants as h2
from sidecar.http2.interface import Codec
from sidecar.policy.ejection_settings import EjectionSettings
from sidecar.policy.endpoint import EJECTED, HEALTHY, PROBATION, Endpoint
from sidecar.policy.method import MethodTable
from sidecar.policy.method_settings import MethodSettings, RetrySettings
from sidecar.policy.peak_ewma import PeakEwma
from sidecar.policy.settings import BalancingSettings
from sidecar.proxy.settings import ConnectionSettings
from tests.proxy.pipe import Ear, Peer
from tests.proxy.stage import Server, Stage, on_loop, started

EXACT = EjectionSettings(jitter=0.0)


class Town:
    """Two servers or more, an app, and RPCs that are answered by what each server is told to do."""

    def __init__(self, stage: Stage, app: Peer) -> None:
        self.stage = stage
        self.app = app
        self.answered: set[Ear] = set()

    @classmethod
    async def of(
        cls,
        codec: type[Codec],
        servers: int = 2,
        ejection: EjectionSettings | None = EXACT,
        connection: ConnectionSettings | None = None,
        methods: MethodTable | None = None,
    ) -> Town:
        stage = await started(codec, servers=servers, ejection=ejection, connection=connection, methods=methods)
        app = stage.app()
        await stage.run()
        return cls(stage, app)

    async def call(self, *extra: tuple[bytes, bytes]) -> tuple[Ear, Server, Ear]:
        """An RPC, the server it came to, and the request there."""
        call = self.app.call(*extra)
        call.end()
        await self.stage.run()
        for server in self.stage.servers:
            for request in server.requests:
                if request not in self.answered:
                    self.answered.add(request)
                    return call, server, request
        raise AssertionError("no server got it")

    async def answer(self, bad: Server | None, status: int = 14, trailers_only: bool = False) -> Server:
        """One RPC; `bad` answers it with `status`, any other server with OK. Who got it."""
        _, server, request = await self.call()
        code = status if server is bad else 0
        if trailers_only:
            server.connection.respond(request, (b"grpc-status", b"%d" % code), end=True)
        else:
            server.connection.answer(request, b"data", code)
        await self.stage.run()
        return server

    async def answer_many(self, times: int, bad: Server | None, status: int = 14) -> list[Server]:
        return [await self.answer(bad, status) for _ in range(times)]

    def endpoint(self, server: Server) -> Endpoint:
        return self.stage.endpoint(server.address)

    @property
    def costs(self) -> list[tuple[float, float]]:
        """What the balancer holds against each."""
        return [(endpoint.price, endpoint.penalty) for endpoint in self.stage.cluster.endpoints]

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.stage.cluster.events]


@on_loop
async def test_unavailable_in_trailers_ejects_after_the_fifth_in_a_row(codec: type[Codec]) -> None:
    town = await Town.of(codec)
    bad, good = town.stage.servers
    await town.answer_many(9, bad)  # in turn
    assert town.endpoint(bad).state in (HEALTHY, EJECTED)
    await town.answer_many(1, bad)
    assert town.endpoint(bad).state == EJECTED
    assert set(await town.answer_many(6, bad)) == {good}
    assert town.stage.metrics.ejections == {"consecutive_failures": 1}
    assert town.stage.leaks() == []


@on_loop
async def test_a_reply_of_trailers_only_is_judged_alike(codec: type[Codec]) -> None:
    town = await Town.of(codec)
    bad = town.stage.server
    for _ in range(10):
        await town.answer(bad, trailers_only=True)
    assert town.endpoint(bad).state == EJECTED


@on_loop
async def test_the_apps_own_mistakes_eject_nobody(codec: type[Codec]) -> None:
    town = await Town.of(codec)
    await town.answer_many(40, town.stage.server, status=5)
    assert town.endpoint(town.stage.server).state == HEALTHY
    assert town.kinds == []


@on_loop
async def test_after_its_time_one_rpc_tries_it_and_the_others_go_on_elsewhere(codec: type[Codec]) -> None:
    town = await Town.of(codec)
    bad, good = town.stage.servers
    await town.answer_many(10, bad)
    await town.stage.advance(1.01)
    assert town.endpoint(bad).state == PROBATION
    call, server, request = await town.call()
    assert server is bad
    assert set(await town.answer_many(6, None)) == {good}  # while the trial is under way
    server.connection.answer(request, b"fine")
    await town.stage.run()
    assert call.status == 0
    assert town.endpoint(bad).state == HEALTHY
    assert set(await town.answer_many(4, None)) == {bad, good}
    assert town.kinds == ["ejected", "probation", "returned"]
    assert town.stage.leaks() == []


@on_loop
async def test_a_failed_trial_costs_one_rpc_and_twice_the_time(codec: type[Codec]) -> None:
    town = await Town.of(codec)
    bad, good = town.stage.servers
    await town.answer_many(10, bad)
    await town.stage.advance(1.01)
    assert await town.answer(bad) is bad
    assert town.endpoint(bad).state == EJECTED
    await town.stage.advance(1.9)
    assert set(await town.answer_many(4, bad)) == {good}
    await town.stage.advance(0.11)
    assert await town.answer(None) is bad
    assert town.stage.metrics.ejections == {"consecutive_failures": 1, "failed_trial": 1}


@on_loop
async def test_a_trial_that_the_app_cancels_is_followed_by_another(codec: type[Codec]) -> None:
    town = await Town.of(codec)
    bad = town.stage.server
    await town.answer_many(10, bad)
    await town.stage.advance(1.01)
    call, server, _ = await town.call()
    assert server is bad
    call.cancel(h2.CANCEL)
    await town.stage.run()
    assert town.endpoint(bad).state == PROBATION
    assert await town.answer(None) is bad
    assert town.endpoint(bad).state == HEALTHY
    assert town.stage.leaks() == []


@on_loop
async def test_a_long_stream_passes_the_trial_once_it_is_being_answered(codec: type[Codec]) -> None:
    town = await Town.of(codec)
    bad, good = town.stage.servers
    await town.answer_many(10, bad)
    await town.stage.advance(1.01)
    _, server, request = await town.call()
    assert server is bad
    await town.stage.advance(10.01)  # hangs: another RPC may try
    _, server, request = await town.call()
    assert server is bad
    bad.connection.respond(request)
    await town.stage.run()
    assert await town.answer(None) is good
    await town.stage.advance(10.01)
    assert town.endpoint(bad).state == HEALTHY


@on_loop
async def test_refused_streams_are_not_counted(codec: type[Codec]) -> None:
    town = await Town.of(codec)
    bad = town.stage.server
    for _ in range(20):
        _, server, request = await town.call()
        if server is bad:
            request.cancel(h2.REFUSED_STREAM)
            await town.stage.run()
            _, server, request = next(
                (None, other, ear) for other in town.stage.servers for ear in other.requests if ear not in town.answered
            )
            town.answered.add(request)
        server.connection.answer(request)
        await town.stage.run()
    standing = town.endpoint(bad).standing
    assert town.endpoint(bad).state == HEALTHY
    assert standing is None or standing.window.attempts == 0


@on_loop
async def test_streams_that_the_server_resets_are_counted(codec: type[Codec]) -> None:
    town = await Town.of(codec)
    bad = town.stage.server
    for _ in range(10):
        _, server, request = await town.call()
        if server is bad:
            request.cancel(h2.INTERNAL_ERROR)
        else:
            server.connection.answer(request)
        await town.stage.run()
    assert town.endpoint(bad).state == EJECTED
    assert town.stage.metrics.ejections == {"consecutive_failures": 1}


@on_loop
async def test_lost_connections_are_counted_apart_and_once_for_all_their_rpcs(codec: type[Codec]) -> None:
    town = await Town.of(codec)
    bad = town.stage.server
    for lost in range(5):
        assert town.endpoint(bad).state == HEALTHY
        for _ in range(6):
            _, server, request = await town.call()
            if server is not bad:
                server.connection.answer(request)
        bad.connection.hang_up()
        await town.stage.run()
        standing = town.endpoint(bad).standing
        assert standing is not None
        if lost < 4:
            assert (standing.remote, standing.local) == (0, lost + 1)
        await town.stage.advance(2)
    assert town.stage.metrics.ejections == {"consecutive_local_failures": 1}
    assert town.stage.leaks() == []


@on_loop
async def test_a_server_that_hangs_is_ejected_by_its_timeouts(codec: type[Codec]) -> None:
    town = await Town.of(codec)
    bad, good = town.stage.servers
    for _ in range(12):
        _, server, request = await town.call((b"grpc-timeout", b"50m"))
        if server is good:
            good.connection.answer(request)
            await town.stage.run()
        await town.stage.advance(0.06)
    assert town.endpoint(bad).state == EJECTED
    assert "DEADLINE_EXCEEDED" in town.endpoint(bad).reason


@on_loop
async def test_when_all_servers_are_too_slow_nobody_is_ejected(codec: type[Codec]) -> None:
    town = await Town.of(codec)
    for _ in range(30):
        await town.call((b"grpc-timeout", b"50m"))
        await town.stage.advance(0.06)
    assert {endpoint.state for endpoint in town.stage.cluster.endpoints} == {HEALTHY}


@on_loop
async def test_deadlines_that_the_process_slept_through_speak_against_nobody(codec: type[Codec]) -> None:
    """SIGSTOP, or a suspended machine: the answers may be there, unread (RL-45)."""
    town = await Town.of(codec, ejection=EjectionSettings(timeouts="always"))
    town.stage.cluster.reconfigure(PeakEwma(random.Random(1)), BalancingSettings())
    costs = town.costs
    for _ in range(20):
        await town.call((b"grpc-timeout", b"50m"))
    town.stage.loop.now += 3600
    await town.stage.advance(0)
    assert town.stage.metrics.outcomes == {"timeout": 20}
    assert town.costs == costs
    assert town.kinds == []
    assert {endpoint.state for endpoint in town.stage.cluster.endpoints} == {HEALTHY}
    for endpoint in town.stage.cluster.endpoints:
        assert endpoint.standing is not None
        assert (endpoint.standing.remote, endpoint.standing.window.attempts) == (0, 0)


@pytest.mark.parametrize(("late", "charged"), [(0.002, True), (0.05, True), (3600, False)])
@on_loop
async def test_an_attempts_own_timeout_that_the_process_slept_through_speaks_against_nobody(
    codec: type[Codec], late: float, charged: bool
) -> None:
    retry = RetrySettings(codes=("UNAVAILABLE",), per_try_timeout=1.0, backoff_base=0.1)
    methods = MethodTable(MethodSettings(retry=retry), {}, None, None)
    town = await Town.of(codec, ejection=EjectionSettings(timeouts="always"), methods=methods)
    town.stage.cluster.reconfigure(PeakEwma(random.Random(1)), BalancingSettings())
    await town.answer_many(2, None)
    costs = town.costs
    call, first, _ = await town.call()
    town.stage.loop.now += 1.0 + late
    await town.stage.advance(0)
    endpoint = town.endpoint(first)
    assert town.stage.metrics.outcomes == {"timeout": 1}
    assert endpoint.standing is not None
    assert (endpoint.standing.remote, endpoint.standing.window.bad) == (charged, charged)
    assert (town.costs == costs) is not charged
    await town.stage.advance(0.13)
    (second,) = [ear for server in town.stage.servers for ear in server.requests if ear not in town.answered]
    second.peer.answer(second)
    await town.stage.run()
    assert call.status == 0
    assert town.stage.metrics.retries == {"try_timeout": 1}
    assert town.stage.leaks() == []


@on_loop
async def test_a_refused_connection_puts_an_endpoint_out_at_once_and_the_events_say_so(codec: type[Codec]) -> None:
    """By its connectivity alone: there is no second state that could disagree with it (P4b)."""
    town = await Town.of(codec)
    gone, good = town.stage.servers
    await town.stage.advance(1)
    gone.refusing = ConnectionRefusedError()
    gone.connection.hang_up()
    await town.stage.run()
    assert set(await town.answer_many(6, None)) == {good}
    assert town.endpoint(gone).state == HEALTHY
    (event,) = town.stage.cluster.events
    assert event.kind == "unreachable"
    assert "cannot connect to 10.0.0.1:50051: connection refused; trying again in" in event.text
    assert town.stage.metrics.connect_failures == {"refused": 1}
    gone.refusing = None
    await town.stage.advance(1)
    assert town.kinds == ["unreachable", "reachable"]
    assert set(await town.answer_many(4, None)) == {gone, good}


@on_loop
async def test_with_enforce_at_zero_it_is_said_and_counted_and_not_done(
    codec: type[Codec], caplog: pytest.LogCaptureFixture
) -> None:
    town = await Town.of(codec, ejection=EjectionSettings(enforce=0))
    bad = town.stage.server
    with caplog.at_level(logging.INFO, logger="sidecar.proxy"):
        await town.answer_many(10, bad)
    assert town.endpoint(bad).state == HEALTHY
    assert town.stage.metrics.ejections == {}
    assert town.stage.metrics.withheld == {("consecutive_failures", "enforce"): 1}
    (record,) = [record for record in caplog.records if getattr(record, "event", "") == "endpoint_withheld"]
    assert record.getMessage() == (
        "greeter: 10.0.0.1:50051 would be ejected (5 failures in a row, the newest UNAVAILABLE),"
        " but ejection.enforce is 0 %"
    )
    assert (record.upstream, record.endpoint, record.reason) == (  # type: ignore[attr-defined]
        "greeter",
        "10.0.0.1:50051",
        "consecutive_failures",
    )


@on_loop
async def test_switched_off_nobody_is_judged_and_switched_off_later_all_come_back(codec: type[Codec]) -> None:
    off = EjectionSettings(enabled=False)
    town = await Town.of(codec, ejection=off)
    bad = town.stage.server
    await town.answer_many(20, bad)
    assert (town.endpoint(bad).state, town.endpoint(bad).standing) == (HEALTHY, None)
    town.stage.dispatch.ejector.reconfigure(EXACT)
    await town.answer_many(10, bad)
    assert town.endpoint(bad).state == EJECTED
    town.stage.dispatch.ejector.reconfigure(off)
    assert town.endpoint(bad).state == HEALTHY
    assert town.kinds == ["ejected", "returned"]
    await town.stage.advance(100)
    assert town.kinds == ["ejected", "returned"]


@on_loop
async def test_an_upstream_that_ends_leaves_no_alarm_behind(codec: type[Codec]) -> None:
    town = await Town.of(codec)
    await town.answer_many(10, town.stage.server)
    town.stage.dispatch.close("no longer configured")
    await town.stage.advance(100)
    assert town.kinds == ["ejected"]
