"""The wire is cut after byte N, for every N of an RPC, in either direction of either hop, by FIN or by RST.

Whatever N is: the RPC ends, with status 0 and its own answer, or with 14 or 13 and a sentence; the process lives;
the next RPC succeeds. Never a hang, never another RPC's octets.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import grpc
import pytest

from tests.adversity.bench import Bench
from tests.adversity.conftest import check_unharmed
from tests.adversity.link import BACKWARD, FORWARD, Cut, Link
from tests.adversity.wire import Closed, Response, Wire, message
from tests.processes import PATIENCE, Sidecar, free_port, wait_until
from tests.services import ProbeServer, connect, echo

CLEAN = {"OK", "UNAVAILABLE", "INTERNAL"}
DIRECTIONS = {"request": FORWARD, "response": BACKWARD}
ENDS = {"FIN": False, "RST": True}


class Hop(NamedTuple):
    """A real server behind a link behind a sidecar."""

    sidecar: Sidecar
    link: Link
    port: int  # where the app dials


@pytest.fixture(scope="module")
def behind(bench: Bench) -> Iterator[Hop]:
    """The link is between the sidecar and its upstream."""
    with ExitStack() as until:
        server = until.enter_context(ProbeServer())
        link = Link(server.port)
        until.callback(link.close)
        port = free_port()
        upstream = {
            "service": "probe",
            "listen": f"127.0.0.1:{port}",
            "endpoints": [f"127.0.0.1:{link.port}"],
            "connection": {"eager": False, "backoff_base": "1ms", "backoff_max": "2ms"},
        }
        config = {"upstreams": [upstream], "log": {"format": "text", "access": "off"}}
        sidecar = until.enter_context(Sidecar(config, bench.directory, "behind", codec=bench.codec))
        yield Hop(sidecar, link, port)
        check_unharmed(sidecar)


@pytest.fixture(scope="module")
def before(bench: Bench) -> Iterator[Hop]:
    """The link is between the app and the sidecar."""
    with ExitStack() as until:
        server = until.enter_context(ProbeServer())
        port = free_port()
        upstream = {"service": "probe", "listen": f"127.0.0.1:{port}", "endpoints": [f"127.0.0.1:{server.port}"]}
        sidecar = until.enter_context(Sidecar({"upstreams": [upstream]}, bench.directory, "before", codec=bench.codec))
        link = Link(port)
        until.callback(link.close)
        yield Hop(sidecar, link, link.port)
        check_unharmed(sidecar)


def _check(channel: grpc.Channel, payload: bytes) -> bool:
    """One RPC, which must end cleanly. True if it succeeded."""
    reply = echo(channel, payload)
    assert reply.status in CLEAN, reply
    if reply.status == "OK":
        assert reply.message == payload
    else:
        assert reply.details
    return reply.status == "OK"


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_wire_to_the_upstream_cut_after_any_byte_ends_the_rpc_cleanly(behind: Hop, direction: str, end: str) -> None:
    with connect(behind.port) as channel:
        behind.link.drop()
        behind.link.arm(None)
        assert _check(channel, b"recorded")
        length = behind.link.passed[DIRECTIONS[direction]]
        outcomes = set()
        for after in range(1, length + 1):
            behind.link.drop()
            behind.link.arm(Cut(DIRECTIONS[direction], after, ENDS[end]))
            outcomes.add(_check(channel, b"payload %06d" % after))
            behind.link.arm(None)
            # a cut before the peer's SETTINGS is a failed connect: until the next one succeeds, RPCs fail fast
            wait_until(partial(_check, channel, b"after %06d" % after), "the next RPC succeeds", pause=0.002)
    assert False in outcomes, "some cuts must have hit the RPC"


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_wire_to_a_warm_upstream_cut_after_any_byte_ends_the_rpc_cleanly(behind: Hop, direction: str, end: str) -> None:
    """The connection is in use already: the cut falls into the frames of the RPC alone."""
    with connect(behind.port) as channel:
        assert _check(channel, b"recorded")
        behind.link.arm(None)
        assert _check(channel, b"recorded")
        length = behind.link.passed[DIRECTIONS[direction]]
        for after in range(1, length + 1):
            behind.link.arm(Cut(DIRECTIONS[direction], after, ENDS[end]))
            succeeded = _check(channel, b"payload %06d" % after)
            behind.link.arm(None)
            # after a failure the loss is known and the next RPC succeeds at once; a cut that let the answer pass may
            # still be on its way when the next RPC goes out into the void
            patience = PATIENCE if succeeded else 0.0
            wait_until(partial(_check, channel, b"after %06d" % after), "the next RPC succeeds", patience)


def _one_rpc(hop: Hop, payload: bytes) -> Response:
    wire = Wire(socket.create_connection(("127.0.0.1", hop.port)), server=False)
    try:
        wire.greet()
        return wire.response(wire.request(body=payload))
    except Closed:
        return Response(lost=True)
    finally:
        wire.close()


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_wire_from_the_app_cut_after_any_byte_harms_nobody_else(before: Hop, direction: str, end: str) -> None:
    before.link.arm(None)
    assert _one_rpc(before, b"recorded").status == 0
    length = before.link.passed[DIRECTIONS[direction]]
    with connect(before.sidecar.listen_port("probe")) as other:
        for after in range(1, length + 1):
            before.link.arm(Cut(DIRECTIONS[direction], after, ENDS[end]))
            payload = b"payload %06d" % after
            seen = _one_rpc(before, payload)
            assert seen.data in (b"", *(message(payload)[:size] for size in range(1, len(message(payload)) + 1)))
            assert seen.status in (None, 0, 13, 14)
            assert _check(other, b"after %06d" % after), "another app's next RPC succeeds"


def test_no_stream_is_left_over_by_all_those_cuts(before: Hop, behind: Hop) -> None:
    for hop in (before, behind):
        (endpoint,) = hop.sidecar.endpoints("probe")
        assert endpoint["in_flight"] == 0
