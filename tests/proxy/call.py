"""One RPC half way: what tests of the exchange begin with."""

from __future__ import annotations

from typing import Any

from sidecar.http2.interface import Codec
from tests.proxy.pipe import REQUEST, Ear, Peer
from tests.proxy.stage import Stage, started

OK = [(b"grpc-status", b"0")]
PLAIN = tuple(field for field in REQUEST if field[0] not in (b"content-type", b"te"))


async def called(
    codec: type[Codec], *extra: tuple[bytes, bytes], end: bool = False, **options: Any
) -> tuple[Stage, Ear, Peer, Ear]:
    """A stage with one RPC whose head has reached the server: stage, the app's ear, the server, the server's ear."""
    stage = await started(codec, **options)
    app = stage.app()
    await stage.run()
    call = app.call(*extra, end=end)
    await stage.run()
    return stage, call, stage.server.connection, stage.server.request


def calls(stage: Stage, count: int) -> list[Ear]:
    """RPCs of the one app."""
    app = stage.apps[0] if stage.apps else stage.app()
    return [app.call(end=True) for _ in range(count)]
