"""The instance that resets streams: grpcio's server has no way to send RST_STREAM with a code, grpclib's has.

`python -m benchmarks.chaos.resetting`, with the arguments of `benchmarks.chaos.instance`. Healthy, it echoes, too.
"""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from grpclib.const import Cardinality, Handler
from grpclib.encoding.base import CodecBase
from grpclib.server import Server, Stream
from h2.errors import ErrorCodes

from benchmarks.chaos.behaviour import METHOD, RESET, Behaviour, Journal, obey
from benchmarks.chaos.instance import parser


class Octets(CodecBase):
    """Messages are plain octets."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> bytes:
        return data


class Service:
    """Answers with the request, or resets the stream."""

    def __init__(self, behaviour: Behaviour, journal: Journal) -> None:
        self.behaviour = behaviour
        self.journal = journal

    async def do(self, stream: Stream[bytes, bytes]) -> None:
        request = await stream.recv_message()
        assert request is not None
        self.journal.write(request)
        if self.behaviour.fault == RESET:
            await stream._stream.reset(ErrorCodes.INTERNAL_ERROR)  # its own `cancel` knows no other code than CANCEL
            stream._cancel_done = True  # what `cancel` notes: nothing more is to be sent
            return
        await asyncio.sleep(self.behaviour.work)
        await stream.send_message(request)

    def __mapping__(self) -> dict[str, Handler]:
        return {METHOD: Handler(self.do, Cardinality.UNARY_UNARY, bytes, bytes)}


async def serve() -> None:
    """Until SIGTERM."""
    options = parser().parse_args()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    behaviour = Behaviour(work=options.work)
    server = Server([Service(behaviour, Journal(options.journal))], codec=Octets())
    host, _, port = options.address.rpartition(":")
    control = await obey(options.control, behaviour)
    await server.start(host, int(port))
    await stop.wait()
    control.close()
    server.close()


if __name__ == "__main__":
    asyncio.run(serve())
