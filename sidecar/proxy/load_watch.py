"""Reports of load out of band: one long stream per endpoint, on its own connection, where a balancer asks (gRFC A51).

An endpoint that does not know the service is not asked again on that connection; a stream that ends otherwise is begun
anew after a backoff, which the next report resets. Nothing here weighs a report; it ends with `close`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from sidecar.policy.backoff import Backoff
from sidecar.policy.endpoint import Endpoint
from sidecar.proxy.own_rpc import OwnRpc
from sidecar.proxy.upstream import Timeout, UpstreamConnection
from sidecar.rpc.load_report import MALFORMED, STREAM_PATH, TAKEN, build_interval, parse_report
from sidecar.rpc.protobuf import Malformed
from sidecar.rpc.status import UNIMPLEMENTED, status_name
from sidecar.telemetry.metrics import bump

if TYPE_CHECKING:
    from sidecar.proxy.dispatch import Dispatch

log = logging.getLogger("sidecar.proxy")

BACKOFF_BASE, BACKOFF_FACTOR, BACKOFF_MAX, BACKOFF_JITTER = 1.0, 1.6, 120.0, 0.2  # gRPC connection-backoff.md
# As the metric calls streams that came to nothing.
NOT_OFFERED: Final = "unimplemented"
BROKEN: Final = "broken"


class LoadWatch:
    """The streams of one upstream; there are none while its balancer asks for none."""

    def __init__(self, dispatch: Dispatch) -> None:
        self.dispatch = dispatch
        self.interval = dispatch.cluster.balancer.report_interval  # seconds; 0: nothing is asked
        self.watched: dict[Endpoint, EndpointLoad] = {}
        dispatch.on_connection.append(self.on_connection)

    def on_connection(self, connection: UpstreamConnection) -> None:
        """A connection is ready: ask on it, unless that endpoint is asked already."""
        if not self.interval:
            return
        watched = self.watched.get(connection.endpoint)
        if watched is None:
            watched = self.watched[connection.endpoint] = EndpointLoad(self, connection.endpoint)
        watched.ask()

    def reconfigure(self) -> None:
        """The balancer may be another one, or ask for another interval: begin all streams anew if so."""
        interval = self.dispatch.cluster.balancer.report_interval
        if interval == self.interval:
            return
        self.close()
        self.interval = interval
        for pool in self.dispatch.pools.values():
            for connection in pool.connections:
                self.on_connection(connection)

    def close(self) -> None:
        """End every stream."""
        for watched in self.watched.values():
            watched.close()
        self.watched.clear()


class EndpointLoad:
    """What is asked of one endpoint: one stream on its oldest connection, or the wait for the next one."""

    def __init__(self, watch: LoadWatch, endpoint: Endpoint) -> None:
        self.watch = watch
        self.endpoint = endpoint
        self.stream: LoadStream | None = None
        self.unable: UpstreamConnection | None = None  # knows no such service
        self._backoff = Backoff(BACKOFF_BASE, BACKOFF_FACTOR, BACKOFF_MAX, BACKOFF_JITTER)
        self._again = Timeout(self.ask)

    def ask(self) -> None:
        """Begin a stream, unless there is one, or a reason to wait."""
        dispatch = self.watch.dispatch
        pool = dispatch.pools.get(self.endpoint)
        if pool is None:
            self.watch.watched.pop(self.endpoint, None)  # it has left
            return
        if self.stream is not None or self._again.is_set or not pool.connections:
            return
        connection = pool.connections[0]
        if connection is self.unable:
            return
        stream = LoadStream(connection, self)
        if stream.start(STREAM_PATH, build_interval(self.watch.interval)):
            self.stream = stream
        else:
            self._ask_later()

    def take(self, message: bytes) -> None:
        """A report has come."""
        dispatch = self.watch.dispatch
        try:
            report = parse_report(message)
        except Malformed:
            bump(dispatch.metrics.load_reports, MALFORMED)
            return
        self._backoff.succeed()
        bump(dispatch.metrics.load_reports, TAKEN)
        dispatch.cluster.balancer.take_report(self.endpoint, report, dispatch.engine.now)

    def end(self, connection: UpstreamConnection, status: int, text: str) -> None:
        """The stream is over."""
        dispatch = self.watch.dispatch
        self.stream = None
        if status == UNIMPLEMENTED:
            self.unable = connection
            bump(dispatch.metrics.load_reports, NOT_OFFERED)
            log.info("%s: %s reports no load out of band; it is not asked again", dispatch.name, self.endpoint.address)
        elif connection.draining or connection.closing:
            self.ask()
        else:
            bump(dispatch.metrics.load_reports, BROKEN)
            log.debug(
                "%s: %s ended its reports of load with %s: %s",
                dispatch.name,
                self.endpoint.address,
                status_name(status),
                text,
            )
            self._ask_later()

    def close(self) -> None:
        """Ask no more."""
        self.watch.dispatch.engine.cancel_alarm(self._again)
        if self.stream is not None:
            self.stream.close()
            self.stream = None

    def _ask_later(self) -> None:
        engine = self.watch.dispatch.engine
        engine.set_alarm(self._again, engine.now + self._backoff.fail(engine.rng))


class LoadStream(OwnRpc):
    """One stream of reports."""

    __slots__ = ("owner",)

    def __init__(self, connection: UpstreamConnection, owner: EndpointLoad) -> None:
        super().__init__(connection)
        self.owner = owner

    def on_message(self, message: bytes) -> None:
        self.owner.take(message)

    def on_end(self, status: int, text: str) -> None:
        self.owner.end(self.connection, status, text)
