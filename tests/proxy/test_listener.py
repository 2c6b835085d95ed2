"""A listener on real sockets: binding, its address, Unix sockets. What is said on a connection is tested in memory."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from sidecar.http2.interface import Codec
from sidecar.proxy.listener import BACKLOG, Listener
from tests.proxy.stage import Stage, on_loop


def listener(codec: type[Codec], address: str) -> Listener:
    stage = Stage(codec)
    return Listener(stage.engine, stage.dispatch, address, stage.listener_metrics)


async def answer_to(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """What a listener says to HTTP/1."""
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer


@on_loop
async def test_more_connects_may_wait_than_are_accepted_at_once(codec: type[Codec]) -> None:
    one = listener(codec, "127.0.0.1:0")
    await one.start()
    assert one._server is not None
    info = one._server.sockets[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    most = int.from_bytes(info[28:32], sys.byteorder)  # tcpi_sacked, which for a listening socket is its backlog
    assert most == min(BACKLOG, int(Path("/proc/sys/net/core/somaxconn").read_text()))
    one.stop()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
@on_loop
async def test_port_zero_binds_a_free_port_and_tells_which(codec: type[Codec], host: str) -> None:
    one = listener(codec, f"{host}:0")
    await one.start()
    address, _, port = one.bound.rpartition(":")
    assert address == host
    answer = await answer_to(*await asyncio.open_connection(host.strip("[]"), int(port)))
    assert answer.startswith(b"HTTP/1.1 505 ")
    one.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host.strip("[]"), int(port))


@on_loop
async def test_address_that_is_taken_is_an_error_that_names_it_and_the_upstream(codec: type[Codec]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=f"cannot listen on {address} for upstream greeter"):
            await listener(codec, address).start()


@on_loop
async def test_unix_socket_is_for_this_user_only_and_goes_when_it_stops(codec: type[Codec], tmp_path: Path) -> None:
    path = tmp_path / "greeter.sock"
    one = listener(codec, f"unix:{path}")
    await one.start()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (await answer_to(*await asyncio.open_unix_connection(path))).startswith(b"HTTP/1.1 505 ")
    one.stop()
    assert not path.exists()


@on_loop
async def test_socket_file_left_by_a_process_that_died_is_replaced(codec: type[Codec], tmp_path: Path) -> None:
    path = tmp_path / "greeter.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(os.fspath(path))
    left.close()
    one = listener(codec, f"unix:{path}")
    await one.start()
    assert (await answer_to(*await asyncio.open_unix_connection(path))).startswith(b"HTTP/1.1 505 ")
    one.stop()


@on_loop
async def test_socket_that_somebody_listens_on_is_not_taken_from_him(codec: type[Codec], tmp_path: Path) -> None:
    path = tmp_path / "greeter.sock"
    first, second = listener(codec, f"unix:{path}"), listener(codec, f"unix:{path}")
    await first.start()
    with pytest.raises(OSError, match="somebody listens there already"):
        await second.start()
    second.stop()
    assert (await answer_to(*await asyncio.open_unix_connection(path))).startswith(b"HTTP/1.1 505 ")
    first.stop()


@on_loop
async def test_file_that_is_no_socket_is_never_removed(codec: type[Codec], tmp_path: Path) -> None:
    """A slip in the configuration must not cost a file."""
    path = tmp_path / "precious"
    path.write_text("data")
    one = listener(codec, f"unix:{path}")
    with pytest.raises(OSError, match="a file that is not a socket"):
        await one.start()
    one.stop()
    assert path.read_text() == "data"


@on_loop
async def test_abort_cuts_its_connections(codec: type[Codec]) -> None:
    one = listener(codec, "127.0.0.1:0")
    await one.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(one.bound.rpartition(":")[2]))
    while not one.connections:
        await asyncio.sleep(0)
    one.abort()
    with suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
