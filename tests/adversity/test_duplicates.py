"""With default settings no RPC runs twice, however its connection and its stream end (RT-14)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from tests.adversity.bench import Lane
from tests.adversity.wire import CANCEL, HEAD, INTERNAL_ERROR, NO_ERROR, OK, REFUSED_STREAM, Wire
from tests.services import Reply, echo

RPCS = 150
ENDS = (
    "answer",
    "answer",
    "answer",
    "kill before",
    "kill after",
    "kill half way",
    "refuse",
    "cancel",
    "break",
    "finish",
    "goaway below",
    "goaway that covers",
)


def _chaos(executed: Counter[bytes], ends: Callable[[], str]) -> Callable[[Wire], None]:
    """Serve RPCs one after the other, each with its own end. A request counts as executed from its last octet on."""

    def script(wire: Wire) -> None:
        wire.greet()
        while True:
            end = ends()
            stream, _ = wire.expect_request()
            body = wire.expect_body(stream)
            if end == "refuse":
                wire.send(wire.reset(stream, REFUSED_STREAM))
                continue
            if end == "goaway below":
                wire.send(wire.goaway(stream - 2 if stream > 1 else 0))
                wire.wait_closed()
                return
            if end == "kill before":
                executed[body] += 1
                wire.close(reset=True)
                return
            executed[body] += 1
            if end == "goaway that covers":
                wire.send(wire.goaway(stream))
            if end in ("cancel", "break", "finish"):
                code = {"cancel": CANCEL, "break": INTERNAL_ERROR, "finish": NO_ERROR}[end]
                wire.send(wire.reset(stream, code))
                continue
            if end == "kill half way":
                wire.send(wire.headers(stream, HEAD))
                wire.close(reset=True)
                return
            wire.send(wire.headers(stream, HEAD), wire.data(stream, body), wire.headers(stream, OK, end=True))
            if end == "kill after":
                wire.round_trip()
                wire.close(reset=True)
                return

    return script


def test_no_rpc_runs_twice_however_its_stream_and_its_connection_end(lane: Lane) -> None:
    rng = random.Random(14)
    executed: Counter[bytes] = Counter()
    replies: list[Reply] = []
    with lane.serving(_chaos(executed, lambda: rng.choice(ENDS))):
        channel = lane.channel()
        for number in range(RPCS):
            replies.append(echo(channel, b"%d" % number))
    assert max(executed.values()) == 1
    good = [reply for reply in replies if reply.status == "OK"]
    assert len(good) > RPCS / 4
    for reply in replies:
        assert reply.status == "OK" or "lane" in (reply.details or ""), reply
