"""One try of an RPC on one stream of one endpoint. It hears that stream and tells its exchange.

It keeps the endpoint's books: in flight from the start, one outcome at the end, exactly once. It decides
nothing; `exchange` and `failure` do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sidecar.http2.constants import CANCEL, NO_ERROR
from sidecar.http2.interface import DEAF, HeaderBlock, Stream
from sidecar.proxy import failure
from sidecar.proxy.rider import Rider
from sidecar.proxy.wheel import OVERSLEPT
from sidecar.rpc.load_report import find_report
from sidecar.rpc.outcome import CANCELLED, LOCAL, NOBODY, OURS, OUTCOME_NAMES, REFUSED, REMOTE, SUCCESS
from sidecar.rpc.status import DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED
from sidecar.telemetry.metrics import UpstreamMetrics, bucket_of, bump
from sidecar.telemetry.record import AttemptRecord

if TYPE_CHECKING:
    from sidecar.policy.endpoint import Endpoint
    from sidecar.proxy.exchange import Exchange
    from sidecar.proxy.upstream import UpstreamConnection

# Numbers of its own, so that the compiled form compares without objects; there they are not seen from outside.
_SUCCESS: Final = SUCCESS
_CANCELLED: Final = CANCELLED
_RESOURCE_EXHAUSTED: Final = RESOURCE_EXHAUSTED
_REMOTE: Final = REMOTE
_OURS: Final = OURS


class Attempt(Rider):
    """Numbered from 1. `reason` says why it was made: `first`, or the reason of the retry."""

    __slots__ = (
        "answered_at",
        "asked_at",
        "connection",
        "detail",
        "done",
        "endpoint",
        "exchange",
        "flush_mark",
        "local",
        "number",
        "outcome",
        "reason",
        "seconds",
        "started_at",
        "status",
        "stream",
    )

    def __init__(
        self, exchange: Exchange, endpoint: Endpoint, connection: UpstreamConnection, number: int, reason: str
    ):
        self.begin(exchange, endpoint, connection, number, reason)

    def begin(
        self, exchange: Exchange, endpoint: Endpoint, connection: UpstreamConnection, number: int, reason: str
    ) -> None:
        """Everything at its start: see `Exchange.begin`."""
        self.exchange = exchange
        self.endpoint = endpoint
        self.connection = connection
        self.number = number
        self.reason = reason
        self.stream: Stream | None = None
        self.started_at: float = exchange.engine.now
        self.asked_at: float = self.started_at  # when the app last sent something before the answer began
        self.answered_at: float = 0.0  # when the response head came; 0: not yet
        self.flush_mark: int = connection.flushes
        self.done = False
        self.local = False  # it ended on this side of the connection
        self.status: int = 0
        self.outcome: int = _SUCCESS
        self.detail = ""
        self.seconds: float = 0.0

    # === heard from the stream: what goes wrong here costs the RPC, never the connection that others share ===

    def on_informational(self, block: HeaderBlock) -> None:
        if not self.done:
            try:
                self.exchange.on_informational(block)
            except Exception as error:
                self.exchange.crash(error)

    def on_headers(self, block: HeaderBlock, end_stream: bool) -> None:
        if not self.done:
            self.answered_at = self.exchange.engine.now
            try:
                if end_stream and self.exchange.dispatch.wants_load:
                    self._read_load(block)
                self.exchange.on_response_head(self, block, end_stream)
            except Exception as error:
                self.exchange.crash(error)

    def on_data(self, data: bytes, end_stream: bool) -> None:
        if self.done:
            self._give_back(len(data))
            return
        try:
            self.exchange.on_response_data(self, data, end_stream)
        except Exception as error:
            self.exchange.crash(error)

    def on_part(self, whole: bytes, offset: int, size: int, end_stream: bool) -> bool:
        if self.done or end_stream:  # without trailers it is a broken answer, and those are not many
            return False
        try:
            return self.exchange.on_response_part(whole, offset, size)
        except Exception as error:
            self.exchange.crash(error)
        return True

    def on_trailers(self, block: HeaderBlock) -> None:
        if not self.done:
            try:
                if self.exchange.dispatch.wants_load:
                    self._read_load(block)
                self.exchange.on_response_trailers(self, block)
            except Exception as error:
                self.exchange.crash(error)

    def on_reset(self, error_code: int, remote: bool) -> None:
        if not self.done:
            self.local = not remote
            try:
                failure.reset(self, error_code, remote)
            except Exception as error:
                self.exchange.crash(error)

    def on_window(self) -> None:
        if not self.done:
            try:
                self.exchange.request.pump()
            except Exception as error:
                self.exchange.crash(error)

    def on_connection_lost(self, detail: str) -> None:
        """The connection is gone, and the stream with it."""
        self.local = True
        try:
            failure.lose(self, detail)
        except Exception as error:
            self.exchange.crash(error)

    def _read_load(self, block: HeaderBlock) -> None:
        """The endpoint's word on its load, for a balancer that asks for it; forwarded all the same (LB-10)."""
        dispatch = self.exchange.dispatch
        came, report = find_report(block.fields)
        if came:
            bump(dispatch.metrics.load_reports, came)
        if report is not None:
            dispatch.cluster.balancer.take_report(self.endpoint, report, self.exchange.engine.now)

    def _give_back(self, size: int) -> None:
        if self.stream is not None:
            self.connection.codec.acknowledge_received_data(self.stream, size)

    # === the books ===

    def open(self, stream: Stream) -> None:
        """The request head is on its way."""
        self.stream = stream
        self.exchange.dispatch.cluster.begin_attempt(self.endpoint)
        if self.endpoint.state:  # not healthy
            self.exchange.dispatch.begin_trial(self.endpoint)
        self.connection.add(self, stream)
        self.exchange.dispatch.metrics.attempt_started += 1

    @property
    def unsent(self) -> bool:
        """Whether nothing of it was ever written to the socket."""
        return self.connection.flushes == self.flush_mark

    def close(self, outcome: int, status: int, detail: str = "") -> None:
        """It is over: free the stream if it is not, and record the outcome. Only the first call counts."""
        if self.done:
            return
        self.done = True
        self.outcome = outcome
        self.status = status
        self.detail = detail
        stream, connection, endpoint = self.stream, self.connection, self.endpoint
        if stream is None:
            return
        stream.sink = DEAF
        if not (stream.local_closed and stream.remote_closed):
            # A finished response frees the stream without blame (H2-62); everything else stops the server's work.
            connection.codec.reset_stream(stream, NO_ERROR if stream.remote_closed else CANCEL)
            connection.touch()
        now = self.exchange.engine.now
        self.seconds = now - self.started_at
        cluster = self.exchange.dispatch.cluster
        cluster.end_attempt(endpoint)
        if outcome == _SUCCESS:
            endpoint.successes += 1
        elif outcome != _CANCELLED:
            endpoint.failures += 1
        bucket = bucket_of(self.seconds)
        endpoint.latency.count_in(bucket, self.seconds)
        metrics = self.exchange.dispatch.metrics
        metrics.attempt_status[status] += 1
        metrics.attempt_latency.count_in(bucket, self.seconds)
        blame: int = _REMOTE
        if outcome != _SUCCESS:
            blame = self._blame(outcome, status, now)
            bump(metrics.outcomes, OUTCOME_NAMES[outcome])
        if endpoint.foreign:
            self._count_foreign(metrics)
        # What the balancer learns is how long the endpoint took to answer; how long a stream then lasts says nothing.
        balancer = cluster.balancer
        if blame == _OURS:
            balancer.done(endpoint, _CANCELLED, 0.0, now)  # nor does how long we slept
        else:
            balancer.done(endpoint, outcome, (self.answered_at or now) - self.asked_at, now)
        if status == _RESOURCE_EXHAUSTED and outcome != _CANCELLED:
            balancer.push_back(endpoint, 0.0, now)
        ejection = self.exchange.dispatch.ejection
        if ejection is not None:
            event = ejection.record(endpoint, blame, outcome, status, self.started_at, now, self.exchange.head.path)
            if event is not None:
                self.exchange.dispatch.note(event)
        connection.remove(self)

    def _count_foreign(self, metrics: UpstreamMetrics) -> None:
        """Traffic between zones is billed."""
        exchange = self.exchange
        metrics.foreign_attempts += 1
        metrics.foreign_up += exchange.request.sent
        if exchange.response is not None:
            metrics.foreign_down += exchange.response.received

    def tell_pushback(self, milliseconds: int) -> None:
        """The endpoint asked to be spared: the balancer should know, whether or not the RPC is retried (RT-09)."""
        balancer = self.exchange.dispatch.cluster.balancer
        balancer.push_back(self.endpoint, max(0.0, milliseconds / 1000), self.exchange.engine.now)

    def _blame(self, outcome: int, status: int, now: float) -> int:
        """Whose doing it is that it did not succeed."""
        if outcome in (CANCELLED, REFUSED) or (self.local and self.unsent):
            return NOBODY
        deadline_at = self.exchange.deadline_at
        if status == DEADLINE_EXCEEDED and deadline_at and now - deadline_at > OVERSLEPT:
            return OURS
        return LOCAL if self.local else REMOTE

    def record(self) -> AttemptRecord:
        """For the access log."""
        return AttemptRecord(
            endpoint=self.endpoint.address,
            status=self.status,
            outcome=OUTCOME_NAMES[self.outcome],
            reason=self.reason,
            detail=self.detail,
            seconds=self.seconds,
        )
