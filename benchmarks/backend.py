"""The service behind the subjects: answers every RPC with the same good reply, as cheaply as Python can.

`python -m benchmarks.backend --listen 127.0.0.1:50051 --reply 76`. It reads no header block; it answers when a request
ends, keeps to the peer's flow control, and listens on as many addresses as it is given, in one process.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import struct
from collections.abc import Iterable
from typing import cast

from benchmarks.wire import (
    ACK,
    DATA,
    DEFAULT_TABLE_SIZE,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEAD,
    HEAD_SIZE,
    HEADERS,
    LARGE_WINDOW,
    MAX_FRAME,
    PING,
    PREFACE,
    RST_STREAM,
    SETTING_MAX_STREAMS,
    SETTING_TABLE_SIZE,
    SETTING_WINDOW,
    SETTINGS,
    WINDOW_UPDATE,
    ReplyBlocks,
    frame,
    grpc_message,
    parse_settings,
    settings,
    window_update,
)

STREAM_MESSAGE = 65_536  # one message of a streamed reply: four whole frames
WRITE_AHEAD = 524_288  # octets handed to the transport before it is asked again
CREDIT_AT = LARGE_WINDOW // 4  # octets received before the connection window is filled up again


class Body:
    """What every reply carries: one message, or a stream of equal messages that is cut out of one of them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.cycle = size if size <= 2 * STREAM_MESSAGE or size % STREAM_MESSAGE else STREAM_MESSAGE
        self.octets = memoryview(grpc_message(self.cycle) * (2 if self.cycle < size else 1))

    def cut(self, offset: int, length: int) -> memoryview:
        """`length` octets, at most one frame, from `offset` on."""
        start = offset % self.cycle
        return self.octets[start : start + length]


class Usual:
    """A small reply as one pack call: three frames with the stream's number to be filled in."""

    def __init__(self, body: Body, state: int) -> None:
        head, trailers = ReplyBlocks.HEAD[state], ReplyBlocks.TRAILERS[state]
        self.octets = bytes(body.octets[: body.size])
        self.struct = struct.Struct(f">5sI{len(head)}s5sI{len(self.octets)}s5sI{len(trailers)}s")
        self.heads = (
            frame(HEADERS, END_HEADERS, 0, head)[:5],
            frame(DATA, 0, 0, self.octets)[:5],
            frame(HEADERS, END_HEADERS | END_STREAM, 0, trailers)[:5],
        )
        self.blocks = (head, trailers)

    def build(self, stream: int) -> bytes:
        """The whole reply."""
        (head, data, last), (block, trailers) = self.heads, self.blocks
        return self.struct.pack(head, stream, block, data, stream, self.octets, last, stream, trailers)


class Reply:
    """A reply that did not leave at once: its window or the connection's is closed, or it is too long."""

    __slots__ = ("offset", "stream", "window")

    def __init__(self, stream: int, window: int) -> None:
        self.stream = stream
        self.window = window
        self.offset = 0


class Backend(asyncio.Protocol):
    """One connection."""

    def __init__(self, body: Body, delay: float) -> None:
        self.body = body
        self.delay = delay
        self.small = body.size <= MAX_FRAME
        self.blocks = ReplyBlocks()
        self.tail = b""
        self.greeted = False
        self.paused = False
        self.window = DEFAULT_WINDOW
        self.initial_window = DEFAULT_WINDOW
        self.uncredited = 0
        self.early: dict[int, int] = {}  # window updates for streams whose reply has not begun
        self.waiting: dict[int, Reply] = {}
        self.usual = {state: Usual(body, state) for state in ReplyBlocks.STEADY} if self.small else {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's do not inherit from it
        self.transport.set_write_buffer_limits(high=WRITE_AHEAD)
        self.transport.write(
            settings({SETTING_MAX_STREAMS: 2**31 - 1, SETTING_WINDOW: LARGE_WINDOW})
            + window_update(0, LARGE_WINDOW - DEFAULT_WINDOW)
        )

    def data_received(self, data: bytes) -> None:
        if self.tail:
            data = self.tail + data
        position = 0
        if not self.greeted:
            if len(data) < len(PREFACE):
                self.tail = data
                return
            if not data.startswith(PREFACE):
                self.transport.abort()
                return
            self.greeted = True
            position = len(PREFACE)
        ended: list[int] = []
        out: list[bytes] = []
        end = len(data)
        unpack = HEAD.unpack_from
        while end - position >= HEAD_SIZE:
            high, low, kind, flags, stream = unpack(data, position)
            after = position + HEAD_SIZE + (high << 8 | low)
            if after > end:
                break
            if kind == DATA:
                self.uncredited += after - position - HEAD_SIZE
                if flags & END_STREAM:
                    ended.append(stream)
            elif kind == HEADERS:
                if flags & END_STREAM:
                    ended.append(stream)
            else:
                self.receive_control(kind, flags, stream, data[position + HEAD_SIZE : after], out)
            position = after
        self.tail = data[position:]
        if self.uncredited > CREDIT_AT:
            out.append(window_update(0, self.uncredited))
            self.uncredited = 0
        if ended and self.delay:
            asyncio.get_running_loop().call_later(self.delay, self.reply_later, ended)
        elif ended:
            self.reply(ended, out)
        if out:
            self.transport.write(b"".join(out))
        if self.waiting:
            self.pump()

    def receive_control(self, kind: int, flags: int, stream: int, payload: bytes, out: list[bytes]) -> None:
        """SETTINGS, PING, WINDOW_UPDATE, RST_STREAM; everything else needs no answer."""
        if kind == WINDOW_UPDATE:
            credit = int.from_bytes(payload, "big")
            if not stream:
                self.window += credit
            elif (reply := self.waiting.get(stream)) is not None:
                reply.window += credit
            elif not self.small or self.delay:
                self.early[stream] = self.early.get(stream, 0) + credit
        elif kind == SETTINGS and not flags & ACK:
            values = parse_settings(payload)
            if values.get(SETTING_TABLE_SIZE, DEFAULT_TABLE_SIZE) < DEFAULT_TABLE_SIZE:
                self.blocks.forget()
            window = values.get(SETTING_WINDOW, self.initial_window)
            for reply in self.waiting.values():
                reply.window += window - self.initial_window
            self.initial_window = window
            out.append(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            out.append(frame(PING, ACK, 0, payload))
        elif kind == RST_STREAM:
            self.waiting.pop(stream, None)
        elif kind == GOAWAY and not self.waiting:
            self.transport.close()

    def reply_later(self, streams: list[int]) -> None:
        """The delay is over."""
        if self.transport.is_closing():
            return
        out: list[bytes] = []
        self.reply(streams, out)
        self.transport.write(b"".join(out))
        self.pump()

    def reply(self, streams: Iterable[int], out: list[bytes]) -> None:
        """Answer what ended, at once where the windows allow it."""
        size = self.body.size
        for stream in streams:
            if self.small and self.window >= size and self.initial_window >= size and not self.waiting:
                self.window -= size
                usual = self.usual.get(self.blocks.sent)
                if usual is None:
                    data = frame(DATA, 0, stream, bytes(self.body.octets[:size]))
                    out.append(self.blocks.head(stream) + data + self.blocks.trailers(stream))
                else:
                    out.append(usual.build(stream))
            else:
                out.append(self.blocks.head(stream))
                self.waiting[stream] = Reply(stream, self.initial_window + self.early.pop(stream, 0))

    def pump(self) -> None:
        """Send what the windows and the transport allow, one frame of each waiting reply in turn."""
        while self.waiting and self.window and not self.paused and not self.transport.is_closing():
            out: list[bytes | memoryview] = []
            budget = WRITE_AHEAD // 2
            moved = 0
            for stream, reply in list(self.waiting.items()):
                share = max(MAX_FRAME, budget // len(self.waiting))
                moved += self.advance(stream, reply, share, out)
                if moved >= budget:
                    break
            if not out:
                return
            self.transport.write(b"".join(out))

    def advance(self, stream: int, reply: Reply, share: int, out: list[bytes | memoryview]) -> int:
        """Up to `share` octets of one reply; returns how many."""
        size = self.body.size
        before = reply.offset
        while reply.offset < size and reply.offset - before < share:
            length = min(MAX_FRAME, size - reply.offset, self.window, reply.window)
            if length <= 0:
                break
            out.append(HEAD.pack(length >> 8, length & 0xFF, DATA, 0, stream))
            out.append(self.body.cut(reply.offset, length))
            reply.offset += length
            reply.window -= length
            self.window -= length
        if reply.offset == size:
            out.append(self.blocks.trailers(stream))
            del self.waiting[stream]
        return reply.offset - before

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.pump()


async def serve(addresses: list[str], body: Body, delay: float) -> None:
    """Listen until SIGTERM."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    for address in addresses:
        host, _, port = address.rpartition(":")
        await loop.create_server(lambda: Backend(body, delay), host, int(port), backlog=2048)
    print("listening", flush=True)
    await stop.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backend", description=__doc__)
    parser.add_argument("--listen", required=True, help="host:port, or several separated by commas")
    parser.add_argument("--reply", type=int, default=76, help="octets of every reply, message prefixes included")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds to wait before every reply")
    options = parser.parse_args()
    gc.freeze()
    coroutine = serve(options.listen.split(","), Body(options.reply), options.delay)
    try:
        import uvloop
    except ImportError:
        asyncio.run(coroutine)
    else:
        uvloop.run(coroutine)


if __name__ == "__main__":
    main()
