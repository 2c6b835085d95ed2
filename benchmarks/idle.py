"""Holds connections open and does nothing with them: `python -m benchmarks.idle --target H:P --count 1000`.

Each one makes a single RPC first, so that whatever a subject allocates on first use is allocated. It prints a line when
all stand, and answers PING and SETTINGS until SIGTERM.
"""

from __future__ import annotations

import argparse
import selectors
import socket

from benchmarks.accounting import open_many_files
from benchmarks.closedloop import connected
from benchmarks.openloop import Connection
from benchmarks.wire import Unexpected


def hold(connections: list[Connection]) -> None:
    """For ever. A subject that closes one is heard of when the others are counted, not here."""
    selector = selectors.DefaultSelector()
    for connection in connections:
        selector.register(connection.socket, selectors.EVENT_READ, connection)
    while True:
        for key, _ in selector.select():
            try:
                key.data.receive([])
            except (OSError, Unexpected):
                selector.unregister(key.fileobj)
                if isinstance(key.fileobj, socket.socket):
                    key.fileobj.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle", description=__doc__)
    parser.add_argument("--target", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--reply", type=int, default=76, help="octets of a reply")
    options = parser.parse_args()
    open_many_files()
    host, _, port = options.target.rpartition(":")
    with connected((host, int(port)), options.count, reply=options.reply) as connections:
        print(f"{len(connections)} connections stand", flush=True)
        hold(connections)


if __name__ == "__main__":
    main()
