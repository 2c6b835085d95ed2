"""The client app of the demo: it dials localhost, sends RPCs at a steady rate, and keeps the books on each of them.

It knows no instance and no registry; who answered, it reads in the answer.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque

import grpc.aio

from sidecar.demo.greeter import HELLO, parse_reply
from sidecar.demo.ledger import Failure, Ledger

DEADLINE = 15.0  # seconds for one RPC: far more than any of them should take, so that none hangs
REMEMBERED = 1000  # latencies that the quantiles are taken of
LATEST = 1.0  # seconds behind its plan at which the load gives up catching up


class Load:
    """Sends until stopped. Open loop: a slow answer does not hold back the next RPC."""

    def __init__(self, target: str, rate: float, ledger: Ledger) -> None:
        self.rate = rate
        self.ledger = ledger
        self.answered: Counter[str] = Counter()  # by instance
        self._latencies: deque[float] = deque(maxlen=REMEMBERED)
        self._channel = grpc.aio.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)])
        self._hello: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(HELLO)
        self._calls: set[asyncio.Task[None]] = set()
        self._pacer: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to send."""
        self._pacer = asyncio.get_running_loop().create_task(self._pace())

    async def stop(self) -> None:
        """Send no more, and wait for what was sent."""
        if self._pacer is not None:
            self._pacer.cancel()
            await asyncio.gather(self._pacer, *self._calls, return_exceptions=True)
            self._pacer = None
        await self._channel.close()

    def quantile(self, share: float) -> float:
        """The latency, in seconds, that this share of the latest answers did not exceed."""
        ordered = sorted(self._latencies)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0

    async def _pace(self) -> None:
        loop = asyncio.get_running_loop()
        due_at = time.monotonic()
        while True:
            call = loop.create_task(self._call())
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
            now = time.monotonic()
            due_at = max(due_at + 1 / self.rate, now - LATEST)
            await asyncio.sleep(max(0.0, due_at - now))

    async def _call(self) -> None:
        """One RPC."""
        ledger = self.ledger
        ledger.sent += 1
        sent_at = time.monotonic()
        try:
            reply = await self._hello(f"caller {ledger.sent}".encode(), timeout=DEADLINE)
        except grpc.aio.AioRpcError as error:
            failure = Failure(sent_at, time.monotonic(), error.code().name, error.details() or "")
            ledger.failures.append(failure)
        else:
            ledger.answered += 1
            self.answered[parse_reply(reply)] += 1
            self._latencies.append(time.monotonic() - sent_at)
