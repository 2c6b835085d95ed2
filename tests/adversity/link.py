"""A TCP link between two hops that is cut after byte N of one direction, by FIN or by RST; deterministic, no timing.

One thread moves everything, so that a cut is one act: nothing passes after it, on either half of either socket.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
from contextlib import suppress
from typing import Final, NamedTuple

from tests.adversity.wire import PATIENCE

FORWARD: Final = 0  # from who dialled to who listens
BACKWARD: Final = 1
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Cut(NamedTuple):
    """Let `after` more octets of `direction` through, then end the connection."""

    direction: int
    after: int
    reset: bool


class Link:
    """A relay on a loopback port of its own to the port `target`."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()  # held by the thread while it acts, and by whoever arms
        self._cut: Cut | None = None
        self._wake, self._woken = socket.socketpair()
        self._ended = False
        self._idle = threading.Event()
        self._dropping = False
        self.passed = [0, 0]  # octets since the last `arm`, by direction
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def arm(self, cut: Cut | None) -> None:
        """Cut the connection that exists, or else the next one; `passed` counts from here."""
        with self._lock:
            self._cut = cut
            self.passed = [0, 0]

    @property
    def armed(self) -> bool:
        """Whether the cut is still to come."""
        return self._cut is not None

    def drop(self) -> None:
        """End the connection that exists with a FIN; returns when both sides have closed theirs in answer."""
        self._idle.clear()
        self._dropping = True
        self._wake.send(b"!")
        assert self._idle.wait(PATIENCE), "a side of the link did not close its connection after a FIN"

    def close(self) -> None:
        self._ended = True
        self._wake.send(b"!")
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        while not self._ended:
            sockets = [self._listener, self._woken, *(sock for pair in self._pairs for sock in pair)]
            readable, _, _ = select.select(sockets, [], [])
            with self._lock:
                for sock in readable:
                    if sock is self._listener:
                        self._accept()
                    elif sock is self._woken:
                        self._woken.recv(64)
                    else:
                        self._pass_on(sock)
                if self._dropping:
                    self._drop()
        for sock in (self._listener, self._wake, self._woken, *(sock for pair in self._pairs for sock in pair)):
            sock.close()

    def _accept(self) -> None:
        dialled, _ = self._listener.accept()
        try:
            target = socket.create_connection(("127.0.0.1", self._target), timeout=PATIENCE)
        except OSError:
            dialled.close()
            return
        for sock in (dialled, target):
            sock.settimeout(PATIENCE)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pairs.append((dialled, target))

    def _pass_on(self, source: socket.socket) -> None:
        pair = next((pair for pair in self._pairs if source in pair), None)
        if pair is None:
            return  # it was cut in this very round
        direction = FORWARD if source is pair[0] else BACKWARD
        sink = pair[1 - direction]
        try:
            octets = source.recv(65_536)
        except OSError:
            octets = b""
        if not octets:
            self._end(pair, reset=False)
            return
        cut, severed = self._cut, False
        if cut is not None and cut.direction == direction:
            severed = len(octets) >= cut.after
            octets = octets[: cut.after]
            self._cut = None if severed else cut._replace(after=cut.after - len(octets))
        self.passed[direction] += len(octets)
        with suppress(OSError):
            sink.sendall(octets)
        if severed and cut is not None:
            self._end(pair, cut.reset)

    def _end(self, pair: tuple[socket.socket, socket.socket], reset: bool) -> None:
        """Close both sockets: what was let through is delivered before a FIN, not necessarily before a RST."""
        self._pairs.remove(pair)
        for sock in pair:
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            sock.close()

    def _drop(self) -> None:
        """Say FIN to both sides, read on until both have answered with theirs."""
        self._dropping = False
        for pair in list(self._pairs):
            for sock in pair:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_WR)
            for sock in pair:
                with suppress(OSError):
                    while sock.recv(65_536):
                        pass
            self._end(pair, reset=False)
        self._idle.set()
