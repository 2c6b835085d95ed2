"""The bench of the adversity tests: one sidecar with many lanes, a lane being an upstream that the test plays itself.

A lane's upstream socket listens from the start (so that nobody else takes the port), and the sidecar dials it only
when an RPC needs it: each test starts from nothing on a lane of its own, without paying for a process.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc

from tests.adversity.wire import PATIENCE, Closed, Wire
from tests.processes import Sidecar, free_port
from tests.services import connect

Script = Callable[[Wire], None]
LANES = 150
# On demand, so that a test sees the first octet; and quick to dial again after a cut. A peer that a test plays is one
# of many threads, and greets late where the machine is busy.
CONNECTION = {"eager": False, "backoff_base": "10ms", "backoff_max": "50ms", "connect_timeout": "30s"}


class Lane:
    """One upstream of the sidecar, played by the test."""

    def __init__(self, listener: socket.socket, port: int, service: str, sidecar: Sidecar) -> None:
        self.listener = listener
        self.port = port
        self.service = service
        self.sidecar = sidecar
        self.upstream_port: int = listener.getsockname()[1]
        self._opened: list[Callable[[], Any]] = []

    def dial(self, settings: dict[int, int] | None = None, port: int | None = None) -> Wire:
        """The app's end of a new connection to the sidecar, its opening sent."""
        wire = self.dial_raw(port)
        wire.greet(settings)
        return wire

    def dial_raw(self, port: int | None = None) -> Wire:
        """The same, with nothing sent."""
        wire = Wire(socket.create_connection(("127.0.0.1", port or self.port), timeout=PATIENCE), server=False)
        self._opened.append(wire.close)
        return wire

    def channel(self, port: int | None = None) -> grpc.Channel:
        """A grpcio channel to the sidecar."""
        channel = connect(port or self.port)
        self._opened.append(channel.close)
        return channel

    def accept(self, settings: dict[int, int] | None = None, *, greet: bool = True) -> Wire:
        """The upstream's end of the sidecar's next connection, its opening sent and the sidecar's preface read."""
        self.listener.settimeout(PATIENCE)
        sock, _ = self.listener.accept()
        wire = Wire(sock, server=True)
        self._opened.append(wire.close)
        if greet:
            wire.greet(settings)
        return wire

    @contextmanager
    def serving(self, *scripts: Script) -> Iterator[None]:
        """Play `scripts` from threads, one per connection in their order, the last one for all that follow.

        A script gets the connection before its opening. It may end at any time by returning or by `Closed`; any other
        error of it is the test's.
        """
        errors: list[BaseException] = []
        threads: list[threading.Thread] = []
        wires: list[Wire] = []

        def play(script: Script, wire: Wire) -> None:
            try:
                with suppress(Closed):
                    script(wire)
                wire.close()
            except BaseException as error:
                errors.append(error)
                wire.close()

        def accept() -> None:
            number = 0
            while True:
                sock, _ = self.listener.accept()
                if ended.is_set():
                    sock.close()
                    return
                wires.append(Wire(sock, server=True))
                script = scripts[min(number, len(scripts) - 1)]
                threads.append(threading.Thread(target=play, args=(script, wires[-1]), daemon=True))
                threads[-1].start()
                number += 1

        ended = threading.Event()
        self.listener.settimeout(None)
        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield
        finally:
            ended.set()
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", self.upstream_port), timeout=PATIENCE).close()
            accepting.join(PATIENCE)
            for wire in wires:
                wire.close()
            for thread in threads:
                thread.join(PATIENCE)
        if errors:
            raise errors[0]

    def close(self) -> None:
        for close in reversed(self._opened):
            close()
        self.listener.close()


class Bench:
    """Lanes of one codec. A new sidecar is started when the lanes of the last one are used up."""

    def __init__(self, directory: Path, codec: str) -> None:
        self.directory = directory
        self.codec = codec
        self.sidecars: list[Sidecar] = []
        self._lanes: list[Lane] = []
        self._opened: list[Lane] = []
        self._failed = False

    def lane(self) -> Lane:
        """A lane nobody has used."""
        if not self._lanes:
            self._lanes = self.open(LANES)
        return self._lanes.pop()

    def open(self, lanes: int = 1, connection: dict[str, Any] | None = None, **config: Any) -> list[Lane]:
        """Lanes on a new sidecar, whose config and connection settings may differ from the common ones."""
        assert not self._failed, "the sidecar did not start for an earlier test of this bench, see there"
        listeners = [socket.create_server(("127.0.0.1", 0), backlog=16) for _ in range(lanes)]
        limits = config.pop("limits", {})
        upstreams = [
            {
                "service": f"lane{number}",
                "listen": f"127.0.0.1:{free_port()}",
                "endpoints": [f"127.0.0.1:{listener.getsockname()[1]}"],
                "connection": {**CONNECTION, **(connection or {})},
                "limits": limits,
            }
            for number, listener in enumerate(listeners)
        ]
        sidecar = Sidecar({"upstreams": upstreams, **config}, self.directory, f"bench-{self.codec}", codec=self.codec)
        try:
            sidecar.__enter__()
        except BaseException:
            self._failed = True
            for listener in listeners:
                listener.close()
            raise
        self.sidecars.append(sidecar)
        opened = [
            Lane(listener, sidecar.listen_port(str(entry["service"])), str(entry["service"]), sidecar)
            for listener, entry in zip(listeners, upstreams, strict=True)
        ]
        self._opened += opened
        return opened

    def close(self) -> None:
        """End every sidecar by SIGTERM; each must end in order."""
        for lane in self._opened:
            lane.close()
        for sidecar in self.sidecars:
            sidecar.__exit__(None, None, None)
