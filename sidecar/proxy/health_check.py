"""The ways of asking an endpoint whether it is well: grpc.health.v1, HTTP GET, a TCP connect.

Each asks once and tells its `Asker` once, but for a watch, which tells every change until it ends. An answer speaks for
or against the endpoint; no answer, or one that says nothing of its health, is a miss. When to ask and what the findings
come to is in `checker`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from sidecar.http2.interface import HeaderBlock
from sidecar.policy.checkup import DENIED, MISSED, PASS
from sidecar.proxy.own_rpc import OwnRpc, OwnStream
from sidecar.rpc import status as codes
from sidecar.rpc.health import (
    CHECK,
    SERVING,
    WATCH,
    build_health_request,
    parse_health_response,
    serving_status_name,
)
from sidecar.rpc.metadata import read_response

if TYPE_CHECKING:
    from sidecar.proxy.dispatch import Dispatch
    from sidecar.proxy.upstream import UpstreamConnection


class Asker(Protocol):
    """Who wants to know."""

    def on_finding(self, finding: int, text: str) -> None:
        """What was found, and why in words."""
        ...

    def on_unimplemented(self, text: str) -> None:
        """The endpoint has no grpc.health.v1."""
        ...

    def on_interrupted(self) -> None:
        """The connection ended before the answer came, or it is about to: that says nothing of health."""
        ...

    def on_watch_ended(self, text: str) -> None:
        """The endpoint ended the stream on which it should tell every change."""
        ...


class _GrpcQuestion(OwnRpc):
    """What both calls of grpc.health.v1 have in common."""

    __slots__ = ("asker",)

    def __init__(self, asker: Asker, connection: UpstreamConnection) -> None:
        super().__init__(connection)
        self.asker = asker

    def tell(self, message: bytes) -> None:
        """Pass on what a HealthCheckResponse says."""
        try:
            status = parse_health_response(message)
        except ValueError as error:
            self.asker.on_finding(MISSED, f"gRPC health: an answer that makes no sense: {error}")
            return
        self.asker.on_finding(PASS if status == SERVING else DENIED, f"gRPC health: {serving_status_name(status)}")

    @property
    def interrupted(self) -> bool:
        """Whether it ended with its connection."""
        return self.connection.draining or self.connection.closing


class GrpcCheck(_GrpcQuestion):
    """One Check call."""

    __slots__ = ("_answer",)

    def __init__(self, asker: Asker, connection: UpstreamConnection) -> None:
        super().__init__(asker, connection)
        self._answer: bytes | None = None

    def ask(self, service: str, timeout: float) -> bool:
        """Send it. False: the connection takes no stream now."""
        return self.start(CHECK, build_health_request(service), timeout)

    def on_message(self, message: bytes) -> None:
        self._answer = message

    def on_end(self, status: int, text: str) -> None:
        detail = f"gRPC health: {codes.status_name(status)}{f': {text}' if text else ''}"
        if status == codes.OK and self._answer is not None:
            self.tell(self._answer)
        elif status == codes.UNIMPLEMENTED:
            self.asker.on_unimplemented(detail)
        elif status == codes.NOT_FOUND:  # the server's word for a service that it does not have (GR-50)
            self.asker.on_finding(DENIED, detail)
        elif self.interrupted:
            self.asker.on_interrupted()
        else:
            self.asker.on_finding(MISSED, detail)


class GrpcWatch(_GrpcQuestion):
    """One Watch call, for as long as the endpoint keeps it open (gRFC A17)."""

    __slots__ = ()

    def ask(self, service: str) -> bool:
        """Send it. False: the connection takes no stream now."""
        return self.start(WATCH, build_health_request(service))

    def on_message(self, message: bytes) -> None:
        self.tell(message)

    def on_end(self, status: int, text: str) -> None:
        detail = f"{codes.status_name(status)}{f': {text}' if text else ''}"
        if status == codes.UNIMPLEMENTED:
            self.asker.on_unimplemented(f"gRPC health: {detail}")
        elif self.interrupted:
            self.asker.on_interrupted()
        else:
            self.asker.on_watch_ended(f"gRPC health: the endpoint ended the watch: {detail}")


class HttpCheck(OwnStream):
    """One GET."""

    __slots__ = ("_path", "asker")

    def __init__(self, asker: Asker, connection: UpstreamConnection, path: str) -> None:
        super().__init__(connection)
        self.asker = asker
        self._path = path

    def ask(self) -> bool:
        """Send it. False: the connection takes no stream now."""
        return self.open(
            [
                (b":method", b"GET"),
                (b":scheme", b"http"),
                (b":path", self._path.encode()),
                (b":authority", self.connection.pool.name.encode()),
            ]
        )

    def take_head(self, block: HeaderBlock, end_stream: bool) -> None:
        status = read_response(block).http_status
        self.close()
        self.asker.on_finding(PASS if status // 100 == 2 else DENIED, f"GET {self._path}: {status}")

    def take_data(self, data: bytes, end_stream: bool) -> None:
        """The status has said it all."""

    def take_trailers(self, block: HeaderBlock) -> None:
        """Likewise."""

    def on_broken(self, detail: str) -> None:
        if self.connection.draining or self.connection.closing:
            self.asker.on_interrupted()
        else:
            self.asker.on_finding(MISSED, f"GET {self._path}: {detail}")


class TcpCheck:
    """One TCP connect. The only check with a task, since a connect needs one."""

    def __init__(self, asker: Asker, dispatch: Dispatch, address: str) -> None:
        self.asker = asker
        self.dispatch = dispatch
        self.address = address
        self._task: asyncio.Task[None] | None = None

    def ask(self) -> bool:
        """Connect."""
        self._task = self.dispatch.engine.loop.create_task(self._knock())
        return True

    async def _knock(self) -> None:
        finding, text = PASS, f"TCP {self.address}: connected"
        try:
            await self.dispatch.knock(self.address)
        except OSError as error:
            finding, text = MISSED, f"TCP {self.address}: {error.strerror or error}"
        self._task = None
        self.dispatch.engine.begin()
        self.asker.on_finding(finding, text)
        self.dispatch.engine.settle()

    def close(self) -> None:
        """Nobody wants to know any more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
