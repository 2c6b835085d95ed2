"""The request octets of an RPC that may still have to be sent again (gRFC A6: the replay buffer).

It holds references to what was received anyway and copies only crumbs. It overflows into being committed, which is
no error: the RPC goes on, it can only not be retried any more (RT-04).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sidecar.proxy.engine import REPLAY_BUDGET

if TYPE_CHECKING:
    from sidecar.proxy.engine import Engine

# Chunks are gathered up to this many octets: kept one by one, octets cost forty times what the budgets count.
CRUMB: Final = 2048
_CRUMB: Final = CRUMB  # for the compiled form, where it is a number in C and not seen from outside


class Replay:
    """Everything received so far from the app for one RPC, until `drop`."""

    __slots__ = ("chunks", "engine", "limit", "live", "size")

    def __init__(self, engine: Engine, limit: int) -> None:
        self.begin(engine, limit)

    def begin(self, engine: Engine, limit: int) -> None:
        """Everything at its start: see `Exchange.begin`."""
        self.engine = engine
        self.limit = limit
        self.chunks: list[bytes] | tuple[bytes, ...] = ()  # a list from the second chunk on: most requests are one
        self.size: int = 0
        self.live: bool = True

    def wants_more(self) -> bool:
        """Whether `keep` has a use for what arrives."""
        return self.live

    def keep(self, data: bytes) -> None:
        """One more chunk; too much of it commits the RPC."""
        if not self.live:
            return
        size = len(data)
        engine = self.engine
        if self.size + size > self.limit or engine.replay_size + size > REPLAY_BUDGET or engine.holding:
            self.drop()  # where memory is short, replays are given up before RPCs are refused
            return
        if not self.chunks:
            self.chunks = (data,)
        else:
            chunks = self.chunks = list(self.chunks) if isinstance(self.chunks, tuple) else self.chunks
            newest = len(chunks) - 1  # no index from the end: what is compiled knows none
            last = chunks[newest]
            if len(last) + size <= _CRUMB:
                chunks[newest] = last + data
            else:
                chunks.append(data)
        self.size += size
        engine.replay_size += size

    def drop(self) -> None:
        """Committed, or over: nothing can be replayed any more."""
        if self.live:
            self.live = False
            self.engine.replay_size -= self.size
            self.size = 0
            self.chunks = ()
