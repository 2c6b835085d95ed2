"""The composition root: what a configuration becomes, what a reload changes of it, and the order in which it ends."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path

import pytest

from sidecar.app.reload import Reload
from sidecar.build import build_facts
from sidecar.http2.interface import HeaderBlock
from sidecar.rpc.metadata import RequestHead
from tests.app.place import Place, running, upstream
from tests.app.socket_peer import SocketServer, dial, until
from tests.processes import free_port
from tests.proxy.stage import on_loop

REQUEST = HeaderBlock([(b":method", b"POST"), (b":path", b"/shop.Orders/Get")])


async def who_listens(address: str) -> str:
    """The upstream that a port says it carries; empty when nobody accepts."""
    host, _, port = address.rpartition(":")
    try:
        reader, writer = await asyncio.open_connection(host, int(port))
    except ConnectionRefusedError:
        return ""
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer.split(b"'")[1].decode()


# === start ===


@on_loop
async def test_every_upstream_is_listened_for(tmp_path: Path) -> None:
    async with running(tmp_path, upstreams=[upstream("orders"), upstream("prices")]) as place:
        assert await who_listens(place.bound("orders")) == "orders"
        assert await who_listens(place.bound("prices")) == "prices"
        assert [view.cluster.name for view in place.sidecar.upstreams()] == ["orders", "prices"]


@on_loop
async def test_upstream_without_instances_is_ready_and_an_unanswered_registry_is_not(tmp_path: Path) -> None:
    async with running(tmp_path, upstreams=[upstream("orders")]) as place:
        await until(lambda: not place.sidecar.readiness(), "readiness")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        async with running(
            tmp_path,
            registry={"consul": {"address": address}},
            upstreams=[{"service": "orders", "listen": "127.0.0.1:0"}],
        ) as place:
            (reason,) = place.sidecar.readiness()
            assert reason.startswith("orders: the registry has not answered yet")
            assert place.sidecar.loop_alive()


@on_loop
async def test_what_runs_here_is_what_was_built_here(tmp_path: Path) -> None:
    async with running(tmp_path, upstreams=[upstream("orders")]) as place:
        info = place.sidecar.server_info()
        assert info["compiled"] == ("yes" if build_facts()["compiled"] else "no")
        assert info["codec"] in ("native", "reference")


# === reload ===


@on_loop
async def test_routes_follow_a_reload_and_lead_to_upstreams_that_nobody_dials(tmp_path: Path) -> None:
    canary = {"service": "orders", "name": "canary", "endpoints": ["127.0.0.1:1"]}
    routes = [{"to": [{"upstream": "canary"}]}]
    async with running(tmp_path, upstreams=[upstream("orders", routes=routes), canary]) as place:
        by_name = place.sidecar.by_name
        (orders, former) = by_name.values()
        head, block = RequestHead(REQUEST), REQUEST
        assert orders.dispatch.route(head, block) is former.dispatch
        assert (former.listener.bound, len(place.sidecar.listener_metrics())) == ("", 1)
        place.write(upstreams=[upstream("orders", routes=routes), {**canary, "listen": "127.0.0.1:0"}])
        assert await place.sidecar.reload() == []
        assert await who_listens(place.bound("canary")) == "canary"
        place.write(upstreams=[upstream("orders")])
        assert await place.sidecar.reload() == []
        assert (list(by_name), orders.dispatch.router) == (["orders"], None)


@on_loop
async def test_what_rpcs_pass_is_kept_by_a_reload_that_does_not_change_it(tmp_path: Path) -> None:
    shadow = {"service": "orders", "name": "shadow", "endpoints": ["127.0.0.1:1"]}
    entry = upstream(
        "orders",
        mirror={"upstream": "shadow", "percent": 5},
        faults=[{"abort": "UNAVAILABLE", "percent": 1}],
        limits={"adaptive": {}},
        methods={"/shop.Orders/Put": {"rate": {"per_second": 5}}},
    )
    async with running(tmp_path, upstreams=[entry, shadow]) as place:
        orders = place.sidecar.by_name["orders"]
        gate = orders.dispatch.gate
        (view, other) = place.sidecar.upstreams()
        assert view.notes == (
            "adaptive limit: 20 RPCs, unpressed 0 ms",
            "faults[0]: 1 % of all RPCs: abort UNAVAILABLE; 0 RPCs have it now",
            "mirror: 5 % of all RPCs to shadow; 0 in flight",
        )
        assert (other.notes, place.sidecar.by_name["shadow"].dispatch.gate) == ((), None)
        place.write(upstreams=[{**entry, "balancer": "random"}, shadow])
        assert await place.sidecar.reload() == []
        assert orders.dispatch.gate is gate is not None
        place.write(upstreams=[upstream("orders")])
        assert await place.sidecar.reload() == []
        assert orders.dispatch.gate is None


@on_loop
async def test_retries_that_pause_are_noted(tmp_path: Path) -> None:
    async with running(tmp_path, upstreams=[upstream("orders", retry={"idempotent": True})]) as place:
        methods = place.sidecar.by_name["orders"].dispatch.methods
        assert methods is not None
        assert methods.throttle is not None
        assert place.sidecar.upstreams()[0].notes == ()
        for _ in range(12):
            methods.throttle.fail()
        assert place.sidecar.upstreams()[0].notes == (methods.throttle.note,)


@on_loop
async def test_reload_adds_moves_and_removes_upstreams(tmp_path: Path) -> None:
    async with running(tmp_path, upstreams=[upstream("orders"), upstream("prices")]) as place:
        orders, prices = place.bound("orders"), place.bound("prices")
        moved = f"127.0.0.1:{free_port()}"
        place.write(upstreams=[upstream("orders", listen=moved), upstream("stock")])
        assert await place.sidecar.reload() == []
        assert await who_listens(moved) == "orders"
        assert await who_listens(place.bound("stock")) == "stock"
        assert await who_listens(orders) == ""
        assert await who_listens(prices) == ""
        assert list(place.sidecar.by_name) == ["orders", "stock"]
        assert place.sidecar.process.config_reloads == {"success": 1}


@on_loop
async def test_refused_reload_leaves_no_trace(tmp_path: Path) -> None:
    async with running(tmp_path, upstreams=[upstream("orders")]) as place:
        before, bound = dict(place.sidecar.by_name), place.bound("orders")
        in_force = place.sidecar.config
        free = f"127.0.0.1:{free_port()}"
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            place.write(
                upstreams=[
                    upstream("orders", listen=free),
                    upstream("stock"),
                    upstream("prices", listen=f"127.0.0.1:{free_port()}", balancer="no.such:Balancer"),
                    upstream("users", listen=address),
                ]
            )
            problems = await place.sidecar.reload()
        assert [problem.split(":")[0] for problem in problems] == ["upstream prices", "cannot listen on 127.0.0.1"]
        assert place.sidecar.by_name == before
        assert place.sidecar.config is in_force
        assert await who_listens(bound) == "orders"
        assert await who_listens(free) == ""
        assert place.sidecar.process.config_reload_success is False


@on_loop
async def test_app_that_dialled_what_was_refused_after_all_is_cut(tmp_path: Path) -> None:
    """Its RPCs would wait for an upstream that never comes."""
    async with running(tmp_path, upstreams=[upstream("orders")]) as place:
        place.write(upstreams=[upstream("orders"), upstream("stock")])
        change = Reload(place.sidecar, place.sidecar.source.load())
        assert await change.prepare() == []
        app = await dial(change.fresh["stock"].listener.bound)
        call = app.call()
        await until(lambda: change.fresh["stock"].dispatch.in_flight, "the RPC")
        await change.abandon()
        await until(lambda: app.peer.lost, "the end of the connection")
        assert call.status in (None, 14)


@on_loop
async def test_streams_of_a_moved_listener_and_of_a_removed_upstream_finish(tmp_path: Path) -> None:
    server = await SocketServer().start()
    both = [upstream("orders", server.address), upstream("prices", server.address)]
    async with running(tmp_path, upstreams=both) as place:
        apps = [await dial(place.bound(service)) for service in ("orders", "prices")]
        calls = [app.call() for app in apps]
        await until(lambda: len(server.requests) == 2, "both requests")
        place.write(upstreams=[upstream("orders", server.address, listen=f"127.0.0.1:{free_port()}")])
        assert await place.sidecar.reload() == []
        assert len(place.sidecar.retired) == len(place.sidecar.former) == 1
        for request in server.requests:
            server.answer(request, b"answer")
        await until(lambda: all(call.ended for call in calls), "both answers")
        assert [(call.status, call.data) for call in calls] == [(0, b"answer")] * 2
        await until(lambda: all(app.peer.lost for app in apps), "both connections asked to go")
        await until(lambda: not place.sidecar.retired and not place.sidecar.former, "the burial")
        await until(lambda: any(c.peer.lost for c in server.connections), "the end of the removed one's connection")
    server.close()


@on_loop
async def test_new_balancer_takes_over_endpoints_with_their_counters(tmp_path: Path) -> None:
    server = await SocketServer().start()
    async with running(tmp_path, upstreams=[upstream("orders", server.address)]) as place:
        cluster = place.sidecar.by_name["orders"].cluster
        await until(lambda: cluster.pickable, "a connection")
        (endpoint,) = cluster.endpoints
        place.write(upstreams=[upstream("orders", server.address, balancer="round_robin")])
        assert await place.sidecar.reload() == []
        assert cluster.balancer.name == "round_robin"
        assert cluster.pickable == [endpoint]
        assert len(server.connections) == 1
        place.write(upstreams=[upstream("orders", server.address, balancer="tests.app.balancers:First")])
        assert await place.sidecar.reload() == []
        assert cluster.balancer.name == "first"
    server.close()


@on_loop
async def test_ejection_is_on_untouched_and_a_reload_changes_it(tmp_path: Path) -> None:
    async with running(tmp_path, upstreams=[upstream("orders")]) as place:
        dispatch = place.sidecar.by_name["orders"].dispatch
        assert dispatch.ejection is not None
        place.write(
            upstreams=[upstream("orders", ejection={"enforce": 0, "classifier": "tests.app.classifiers:fails"})]
        )
        assert await place.sidecar.reload() == []
        assert dispatch.ejection.settings.enforce == 0
        place.write(upstreams=[upstream("orders", ejection={"classifier": "tests.app.classifiers:missing"})])
        (problem,) = await place.sidecar.reload()
        assert problem.startswith("upstream orders: classifier 'tests.app.classifiers:missing' cannot be loaded")
        assert dispatch.ejection.settings.enforce == 0
        place.write(upstreams=[upstream("orders", ejection={"enabled": False})])
        assert await place.sidecar.reload() == []
        assert dispatch.ejection is None


@on_loop
async def test_changes_that_wait_for_the_next_start_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(tmp_path, upstreams=[upstream("orders")]) as place:
        place.write(upstreams=[upstream("orders")], log={"access": "all"}, admin={"listen": "127.0.0.1:1"})
        with caplog.at_level(logging.WARNING):
            assert await place.sidecar.reload() == []
        said = [record.getMessage() for record in caplog.records if record.name == "sidecar.app"]
        assert said == [
            "the new admin address takes effect at the next start",
            "the new log.format and log.access take effect at the next start",
        ]


@on_loop
async def test_mistake_in_a_reload_is_said_and_the_next_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task that watches the file must outlive it."""
    async with running(tmp_path, upstreams=[upstream("orders")]) as place:

        async def broken(self: Reload) -> list[str]:
            raise ZeroDivisionError("a bug")

        with monkeypatch.context() as patched:
            patched.setattr(Reload, "prepare", broken)
            assert await place.sidecar.reload() == ["internal error: ZeroDivisionError: a bug"]
        assert await place.sidecar.reload() == []


# === registration, drain and end ===


def registering(place_directory: Path, port: int) -> dict[str, object]:
    return {
        "service": {"name": "greeter", "port": port, "address": "127.0.0.1", "check": {"tcp": {}, "interval": "100ms"}},
        "registry": {"file": {"path": str(place_directory / "leases")}},
        "upstreams": [upstream("orders")],
    }


def leases(directory: Path) -> list[Path]:
    return [path for path in (directory / "leases").rglob("*.json")] if (directory / "leases").exists() else []


@on_loop
async def test_drain_deregisters_and_a_second_one_joins_the_first(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as app:
        config = registering(tmp_path, app.getsockname()[1])
        async with running(tmp_path, **config) as place:
            await until(lambda: leases(tmp_path), "the registration")
            assert await asyncio.gather(place.sidecar.drain(), place.sidecar.drain()) == [[], []]
            assert leases(tmp_path) == []
            assert place.sidecar.readiness() == ["the sidecar is drained: its service is deregistered"]
            assert await who_listens(place.bound("orders")) == "orders"
            place.write(**{**config, "service": {**config["service"], "tags": ["new"]}})  # type: ignore[dict-item]
            assert await place.sidecar.reload() == []
            assert place.sidecar.registration.registrar is None


@on_loop
async def test_reload_of_the_service_registers_it_anew(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as app:
        config = registering(tmp_path, app.getsockname()[1])
        async with running(tmp_path, **config) as place:
            await until(lambda: leases(tmp_path), "the registration")
            place.write(**{**config, "service": {**config["service"], "tags": ["canary"]}})  # type: ignore[dict-item]
            assert await place.sidecar.reload() == []
            await until(lambda: any("canary" in path.read_text() for path in leases(tmp_path)), "the new registration")
    assert leases(tmp_path) == []


@on_loop
async def test_reload_that_meets_the_end_registers_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as app:
        config = registering(tmp_path, app.getsockname()[1])
        async with running(tmp_path, **config) as place:
            await until(lambda: leases(tmp_path), "the registration")
            place.write(**{**config, "service": {**config["service"], "tags": ["late"]}})  # type: ignore[dict-item]
            reload = asyncio.ensure_future(place.sidecar.reload())
            await asyncio.sleep(0)
            place.sidecar.quit()
            await place.sidecar.stop()
            await reload
            assert leases(tmp_path) == []
            assert await place.sidecar.reload() == ["the sidecar is ending"]


@on_loop
async def test_end_waits_for_a_deregistration_that_is_under_way(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as app:
        async with running(tmp_path, **registering(tmp_path, app.getsockname()[1])) as place:
            await until(lambda: leases(tmp_path), "the registration")
            draining = asyncio.ensure_future(place.sidecar.drain())
            await asyncio.sleep(0)
            place.sidecar.quit()
            await place.sidecar.stop()
            assert leases(tmp_path) == []
            assert await draining == []


async def ending(place: Place) -> asyncio.Task[None]:
    place.sidecar.quit()
    return asyncio.get_running_loop().create_task(place.sidecar.stop())


@on_loop
async def test_end_finishes_what_runs_and_flushes_the_access_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await SocketServer().start()
    async with running(tmp_path, upstreams=[upstream("orders", server.address)], drain={"grace": "30s"}) as place:
        flushed: list[bool] = []
        flush = place.sidecar.access.flush
        monkeypatch.setattr(place.sidecar.access, "flush", lambda: (flushed.append(True), flush()))
        app = await dial(place.bound("orders"))
        call = app.call()
        await until(lambda: server.requests, "the request")
        task = await ending(place)
        await until(lambda: app.peer.goaways, "the announcement")
        assert place.sidecar.readiness() == ["the sidecar is ending"]
        assert not task.done()
        server.answer(server.requests[0], b"whole")
        await task
        assert (call.data, call.status) == (b"whole", 0)
        assert flushed == [True]
    server.close()


@on_loop
async def test_second_signal_ends_at_once_with_a_status(tmp_path: Path) -> None:
    server = await SocketServer().start()
    async with running(tmp_path, upstreams=[upstream("orders", server.address)], drain={"grace": "1h"}) as place:
        app = await dial(place.bound("orders"))
        call = app.call()
        await until(lambda: server.requests, "the request")
        task = await ending(place)
        await until(lambda: app.peer.goaways, "the announcement")
        place.sidecar.quit()
        await task
        await until(lambda: call.ended, "the status")
        assert call.status == 14
    server.close()
