"""A real gRPC server that fails in trailers, behind a real sidecar: it is left out, and comes back (E2, E10)."""

from __future__ import annotations

import json
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc

from sidecar.http2.codec import codec_name
from sidecar.http2.interface import Codec
from tests.processes import Sidecar, free_port, wait_until
from tests.services import OPTIONS, SERVICE, connect, echo


class Moody:
    """Echoes, or fails with UNAVAILABLE in trailers after a message, as it is told to."""

    def __init__(self) -> None:
        self.failing = False
        self.asked = 0
        self.server = grpc.server(futures.ThreadPoolExecutor(2), options=OPTIONS)
        handler = grpc.unary_unary_rpc_method_handler(self.echo)
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Echo": handler}),))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def echo(self, request: bytes, context: Any) -> bytes:
        self.asked += 1
        if self.failing:
            context.send_initial_metadata(())
            context.abort(grpc.StatusCode.UNAVAILABLE, "moody")
        return request


def test_a_server_that_fails_in_trailers_is_left_out_and_comes_back_when_it_is_well(
    tmp_path: Path, codec: type[Codec]
) -> None:
    servers = [Moody(), Moody(), Moody()]
    bad = servers[0]
    config = {
        "upstreams": [
            {
                "service": "moody",
                "listen": f"127.0.0.1:{free_port()}",
                "balancer": "round_robin",
                "ejection": {"success_rate": 0},
                "endpoints": [f"127.0.0.1:{server.port}" for server in servers],
            }
        ]
    }
    with Sidecar(config, tmp_path, codec=codec_name(codec)) as sidecar:
        channel = connect(sidecar.listen_port("moody"))

        def attempt() -> bool:
            return echo(channel).status == "OK"

        def state() -> str:
            endpoints = json.loads(sidecar.ask("/clusters?format=json")[1])["upstreams"][0]["endpoints"]
            return next(str(each["state"]) for each in endpoints if each["address"].endswith(f":{bad.port}"))

        def kinds() -> list[str]:
            return [event["event"] for event in json.loads(sidecar.ask("/events")[1])["upstreams"][0]["events"]]

        assert all(attempt() for _ in range(30))
        bad.failing = True
        failed = sum(not attempt() for _ in range(60))
        assert failed == 4 + kinds().count("ejected"), "five in a row, and one for each trial"
        bad.failing = False
        wait_until(lambda: attempt() and state() == "healthy", "the moody one is back")
        assert kinds()[0] == "returned"
        bad.asked = 0
        wait_until(lambda: attempt() and bad.asked > 2, "it takes part again")
        channel.close()
    for server in servers:
        server.server.stop(None)
