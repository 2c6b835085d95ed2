"""A server that says goodbye at a chosen place of an RPC, in a chosen way, and what the app may see of it.

The table of the adversity tests and of `scripts/chaos goaway`. Each way is played on the sidecar's first connection;
whoever plays it gives later connections to `serve`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from tests.adversity.wire import ENHANCE_YOUR_CALM, HEAD, NO_ERROR, OK, WINDOW, Wire

POSITIONS: Final = (
    "before the request",
    "after its head",
    "after its data",
    "after the response head",
    "after the response data",
    "after the trailers",
)
ANSWERING: Final = (3, 4)  # positions at which part of the answer is with the app
FIRST: Final = 1  # the stream of the connection's first RPC, known before it comes


@dataclass(frozen=True)
class Goodbye:
    """One way to go. `say` is told the RPC's stream and the position; `stays`: the RPC is served all the same."""

    name: str
    say: Callable[[Wire, int, int], None]
    stays: bool = False
    executes: bool = False  # the server names the RPC as one that it took on, and goes without its answer
    serves_on: bool = False  # it names no last stream: what was on its way already is served as well

    def allowed(self, position: int) -> str:
        """The one status that the app may see: what was not processed is tried elsewhere, what may have run is not."""
        if self.stays or position == len(POSITIONS) - 1:
            return "OK"
        if position in ANSWERING or (self.executes and position > 0):
            return "UNAVAILABLE"
        return "OK"


def _once(last: Callable[[int], int], code: int = NO_ERROR) -> Callable[[Wire, int, int], None]:
    def say(wire: Wire, stream: int, position: int) -> None:
        wire.send(wire.goaway(last(stream), code, b"going"))
        wire.round_trip()

    return say


def _twice(wire: Wire, stream: int, position: int) -> None:
    """The graceful way: announce, wait for a round trip, name the last stream."""
    wire.send(wire.goaway(WINDOW))
    wire.round_trip()
    wire.send(wire.goaway(stream))
    wire.round_trip()


def _cut(code: int) -> Callable[[Wire, int, int], None]:
    """Name what was seen, and close at once: nobody waits for anything."""

    def say(wire: Wire, stream: int, position: int) -> None:
        wire.send(wire.goaway(stream if position else 0, code, b"gone"))
        wire.close()

    return say


GOODBYES: Final = (
    Goodbye("graceful: two steps", _twice, stays=True),
    Goodbye("graceful: the last stream is the RPC", _once(lambda stream: stream), stays=True),
    Goodbye("graceful: no last stream yet", _once(lambda _: WINDOW), stays=True, serves_on=True),
    Goodbye("graceful: too many pings", _once(lambda stream: stream, ENHANCE_YOUR_CALM), stays=True),
    Goodbye("abrupt: nothing was processed", _once(lambda _: 0)),
    Goodbye("abrupt: nothing was processed, too many pings", _once(lambda _: 0, ENHANCE_YOUR_CALM)),
    Goodbye("abrupt: closed at once", _cut(NO_ERROR), executes=True),
    Goodbye("abrupt: closed at once, too many pings", _cut(ENHANCE_YOUR_CALM), executes=True),
)


def serve(wire: Wire) -> None:
    """Echo unary RPCs in order, for ever."""
    wire.greet()
    _serve_on(wire)


def _serve_on(wire: Wire) -> None:
    while True:
        for _ in _steps(wire):
            pass


def script(goodbye: Goodbye, position: int) -> Callable[[Wire], None]:
    """Serve one RPC and say goodbye at `position`; then serve no other one, nor that one if the way is abrupt.

    The app may have sent its next RPC before it hears the goodbye: whose that is depends on the last stream named.
    """

    def play(wire: Wire) -> None:
        wire.greet()
        for place, stream in enumerate(_steps(wire)):
            if place == position:
                goodbye.say(wire, stream, position)
                if not goodbye.stays:
                    break
        if goodbye.serves_on:
            _serve_on(wire)
        wire.wait_closed()

    return play


def _steps(wire: Wire) -> Iterator[int]:
    """One RPC; its stream at each of POSITIONS."""
    yield FIRST
    stream, _ = wire.expect_request()
    yield stream
    body = wire.expect_body(stream)
    yield stream
    wire.send(wire.headers(stream, HEAD))
    yield stream
    wire.send(wire.data(stream, body))
    yield stream
    wire.send(wire.headers(stream, OK, end=True))
    yield stream
