"""One RPC as the app sees it: from its request head to its last octet, over one attempt or several.

It is the sink of the app's stream and hears its attempts. It is a state machine; `exchange_state` holds the legal
moves. Layers from the outside in: metrics (what the caller saw) -> deadline -> in-flight cap -> retry -> pick.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from sidecar.http2.constants import INTERNAL_ERROR, NO_ERROR, error_name
from sidecar.http2.errors import HeaderListTooLarge, StreamsExhausted
from sidecar.http2.interface import DEAF, HeaderBlock, Stream
from sidecar.policy.balancer import PickContext
from sidecar.policy.cluster import Refusal
from sidecar.policy.endpoint import Endpoint
from sidecar.policy.method import MethodPolicy
from sidecar.proxy import hedge as hedges
from sidecar.proxy import retry as retries
from sidecar.proxy.account import account_of
from sidecar.proxy.attempt import Attempt
from sidecar.proxy.deadline import Deadline
from sidecar.proxy.exchange_state import (
    ATTEMPTING,
    DONE,
    END,
    HEAD,
    ILLEGAL,
    RETRY,
    SEND,
    STATE_NAMES,
    TABLE,
    WAITING,
)
from sidecar.proxy.lifetime import Lifetime
from sidecar.proxy.reason import FIRST, GOAWAY, REFUSED
from sidecar.proxy.relay import Relay
from sidecar.proxy.replay import Replay
from sidecar.proxy.rider import Rider
from sidecar.rpc import outcome as outcomes
from sidecar.rpc import status as codes
from sidecar.rpc.metadata import (
    NEVER,
    RequestHead,
    ResponseHead,
    build_request,
    build_trailers,
    build_trailers_only,
    read_request,
    read_response,
    status_of_answer,
)
from sidecar.telemetry.metrics import bump

if TYPE_CHECKING:
    from sidecar.proxy.downstream import DownstreamConnection
    from sidecar.proxy.gate import Gate
    from sidecar.proxy.hedge import Hedge
    from sidecar.proxy.retry import Retry
    from sidecar.proxy.upstream import UpstreamConnection

log = logging.getLogger("sidecar.proxy")

# Numbers of its own, so that the compiled form compares without objects; there they are not seen from outside.
_OK: Final = codes.OK
_SUCCESS: Final = outcomes.SUCCESS


class Exchange(Rider):
    """One RPC. It ends with `_end`, which is reached exactly once."""

    __slots__ = (
        "attempt",
        "attempts",
        "block",
        "connection",
        "deadline",
        "deadline_at",
        "dispatch",
        "engine",
        "gate",
        "head",
        "history",
        "http_status",
        "last",
        "lifetime",
        "policy",
        "queued",
        "recourse",
        "refused_once",
        "request",
        "response",
        "started_at",
        "state",
        "status",
        "stream",
        "text",
        "tried",
        "why",
    )

    def begin(self, connection: DownstreamConnection, stream: Stream, block: HeaderBlock) -> None:
        """Everything at its start. What is made for each RPC is made by `__new__` and then begun.

        A compiled method takes its arguments as they are; for an `__init__` they would be packed into a tuple.
        """
        self.connection = connection
        self.engine = connection.engine
        self.stream = stream
        self.block = block
        self.head: RequestHead = read_request(block)
        self.dispatch = connection.dispatch
        if self.dispatch.router is not None:
            self.dispatch = self.dispatch.route(self.head, block)
        self.state: int = WAITING
        self.policy: MethodPolicy | None = None  # None: the upstream sets nothing by method
        self.gate: Gate | None = None  # None: the upstream has none
        self.queued = False  # waits in the queue of `dispatch`
        self.recourse: Retry | Hedge | None = None  # what to do about a failed attempt, if its method has such
        self.why: str = FIRST  # the reason of the attempt that comes next
        self.started_at: float = self.engine.now
        self.deadline_at: float = 0.0  # 0: none
        self.deadline: Deadline | None = None
        self.lifetime: Lifetime | None = None
        self.attempt: Attempt | None = None
        self.attempts: int = 0
        self.tried: tuple[Endpoint, ...] = ()
        self.history: list[Attempt] | None = None  # attempts that failed before the present one
        self.last: Attempt | None = None  # the attempt that ended last
        self.refused_once = False
        self.http_status: int = 0  # of the forwarded response head
        self.status: int = _OK
        self.text = ""
        replay = Replay.__new__(Replay)
        replay.begin(self.engine, self.dispatch.replay_size)
        request = Relay.__new__(Relay)
        request.begin(self, replay)
        request.source = connection
        request.source_stream = stream
        self.request: Relay = request
        self.response: Relay | None = None

    def _move(self, event: int) -> None:
        """The one door of the state machine."""
        row = TABLE[self.state]
        state = row[event]
        if state == ILLEGAL:
            raise RuntimeError(f"exchange cannot take event {event} while {STATE_NAMES[self.state]}")
        self.state = state

    # === from the app ===

    def start(self, end_stream: bool) -> None:
        """The request head is here."""
        dispatch = self.dispatch
        dispatch.add()
        self.request.ended = end_stream
        if self.head.method == b"CONNECT":
            self.fail(codes.UNIMPLEMENTED, "CONNECT is not supported")
            return
        timeout = self.head.timeout
        if dispatch.methods is not None:
            self.policy = dispatch.methods.policy_of(self.head)
            timeout = self.policy.bound(timeout)
            if self.policy.retry is not None and self.head.is_grpc:
                self.recourse = retries.Retry(self, self.policy.retry, dispatch.methods)
            elif self.policy.hedge is not None and self.head.is_grpc:
                self.recourse = hedges.Hedge(self, self.policy.hedge, dispatch.methods)
            if self.policy.idle or self.policy.max_duration:
                self.lifetime = Lifetime(self, self.policy.idle, self.policy.max_duration)
        if timeout is not None:
            self.deadline_at = self.started_at + timeout
            if timeout <= 0:
                Deadline.expire(self)
                return
            self.deadline = Deadline(self)
            self.engine.set_alarm(self.deadline, self.deadline_at)
        dispatch.admit(self)

    def on_data(self, data: bytes, end_stream: bool) -> None:
        self.dispatch.metrics.bytes_up += len(data)
        if self.attempt is not None and self.attempt.answered_at == 0.0:
            self.attempt.asked_at = self.engine.now
        try:
            self.request.receive(data, end_stream)
        except Exception as error:
            self.crash(error)

    def on_part(self, whole: bytes, offset: int, size: int, end_stream: bool) -> bool:
        try:
            if not self.request.receive_part(whole, offset, size, end_stream):
                return False
            self.dispatch.metrics.bytes_up += size
            if self.attempt is not None and self.attempt.answered_at == 0.0:
                self.attempt.asked_at = self.engine.now
        except Exception as error:
            self.crash(error)
        return True

    def on_trailers(self, block: HeaderBlock) -> None:
        try:
            self.request.finish(block)
        except Exception as error:
            self.crash(error)

    def on_reset(self, error_code: int, remote: bool) -> None:
        """The app gave up on it, or broke the rules of the stream: nobody reads an answer any more."""
        if self.state != DONE:
            self.abandon(
                f"reset by the app: {error_name(error_code)}" if remote else "the app broke the rules of HTTP/2"
            )

    def on_window(self) -> None:
        if self.response is not None:
            try:
                self.response.pump()
            except Exception as error:
                self.crash(error)

    def abandon(self, detail: str) -> None:
        """The app is gone: stop the work upstream (H2-63)."""
        try:
            if self.attempt is not None:
                self.close_attempt(self.attempt, outcomes.CANCELLED, codes.CANCELLED, detail)
            self._end(codes.CANCELLED, detail)
        except Exception as error:
            self.crash(error)

    # === attempts ===

    def try_attempt(self) -> None:
        """Pick an endpoint and send; or wait for one; or answer why there is none."""
        dispatch = self.dispatch
        while True:
            context = PickContext(self.head, self.tried, self.block) if self.tried or dispatch.wants_context else None
            picked = dispatch.cluster.pick(context, self.engine.now)
            if not isinstance(picked, Endpoint):
                dispatch.wait(self, picked)
                return
            connection = dispatch.acquire(picked)
            if connection is not None and self._send(picked, connection):
                return

    def _send(self, endpoint: Endpoint, connection: UpstreamConnection) -> bool:
        """Start an attempt. False when the connection turns out to take no more streams."""
        remaining = None
        if self.deadline_at:
            remaining = self.deadline_at - self.engine.now
        block = build_request(self.head, self.block, remaining, self.attempts)
        if self.recourse is None:
            attempt = Attempt.__new__(Attempt)
            attempt.begin(self, endpoint, connection, self.attempts + 1, self.why)
        else:
            attempt = self.recourse.begin(endpoint, connection)
        ended = self.request.ended and not self.request.received and self.request.trailers is None
        try:
            stream = connection.codec.open_stream(attempt)
            connection.codec.send_headers(stream, block, ended)
        except StreamsExhausted:
            connection.on_exhausted()
            return False
        except HeaderListTooLarge as error:
            self.fail(
                codes.RESOURCE_EXHAUSTED, f"{self.dispatch.name}: {endpoint.address} accepts no such header: {error}"
            )
            return True
        self._move(SEND)
        self.attempts += 1
        if self.attempts > 1:
            bump(self.dispatch.metrics.retries, self.why)
        self.attempt = attempt
        attempt.open(stream)
        connection.touch()
        if ended:
            self.request.finished = True
        else:
            self.request.attach(connection, stream)
        return True

    def close_attempt(self, attempt: Attempt, outcome: int, status: int, detail: str = "") -> None:
        self.last = attempt  # first: compiled, an argument is not held by being one
        if attempt is self.attempt:  # a hedge is not, while it only runs beside another
            self.attempt = None
            self.request.detach()
        attempt.close(outcome, status, detail)
        if outcome != _SUCCESS:
            self.note_failed(attempt)

    def note_failed(self, attempt: Attempt) -> None:
        """Another attempt may follow this one: for the access log, and for the next pick."""
        if self.history is None:
            self.history = []
        self.history.append(attempt)
        self.tried = (*self.tried, attempt.endpoint)

    @property
    def replayable(self) -> bool:
        """Whether the RPC is uncommitted and all of its request is at hand (gRFC A6)."""
        replay = self.request.replay
        return self.state == ATTEMPTING and replay is not None and replay.live

    def retry(self, why: str, delay: float) -> None:
        """Another attempt after `delay` seconds, at 0 when the turn settles: by then it is known what goes away."""
        self._move(RETRY)
        self.why = why
        self.request.rewind()
        if delay > 0 and self.recourse is not None:
            self.engine.set_alarm(self.recourse, self.engine.now + delay)
        else:
            self.dispatch.requeue(self)

    def resume(self) -> None:
        """Its turn in the queue has come."""
        if self.why == REFUSED and self.last is not None and self.last.connection.draining:
            self.why = GOAWAY
        try:
            if self.deadline_at and self.engine.now >= self.deadline_at:
                Deadline.expire(self)
            else:
                self.try_attempt()
        except Exception as error:
            self.crash(error)

    # === the response ===

    def on_informational(self, block: HeaderBlock) -> None:
        """A 1xx head passes on and commits nothing (H2-37)."""
        if self.state == ATTEMPTING:
            try:
                self.connection.codec.send_informational(self.stream, block)
            except HeaderListTooLarge:
                return  # the app takes no head of that size, and this one may be missed
            self.connection.touch()

    def on_response_head(self, attempt: Attempt, block: HeaderBlock, end_stream: bool) -> None:
        """The final head: from here on the RPC is committed, unless it is the whole answer (GR-30)."""
        response = read_response(block)
        self.http_status = response.http_status
        if end_stream:
            self._record_answer(attempt, response)
        else:
            response_relay = self.gate.relay(self) if self.gate is not None else None
            if response_relay is None:
                response_relay = Relay.__new__(Relay)
                response_relay.begin(self, None)
            response_relay.source = attempt.connection
            response_relay.source_stream = attempt.stream
            response_relay.target = self.connection
            response_relay.target_stream = self.stream
            self.response = response_relay
        if self.request.replay is not None:
            self.request.replay.drop()
        try:
            self.connection.codec.send_headers(self.stream, block, end_stream)
        except HeaderListTooLarge as error:
            self.response = None
            self.fail(codes.RESOURCE_EXHAUSTED, f"{self.dispatch.name}: the app accepts no such response head: {error}")
            return
        self.connection.touch()
        if end_stream:
            self._end(self.status, self.text)
        else:
            self._move(HEAD)

    def on_response_data(self, attempt: Attempt, data: bytes, end_stream: bool) -> None:
        relay = self.response
        assert relay is not None
        self.dispatch.metrics.bytes_down += len(data)
        relay.receive(data, end_stream)
        if end_stream:
            # No trailers: passed on as it is; the caller's gRPC library will make an error of it (GR-34).
            self._record_answer(attempt, None)
            self._maybe_end(relay)

    def on_response_part(self, whole: bytes, offset: int, size: int) -> bool:
        relay = self.response
        assert relay is not None
        if not relay.receive_part(whole, offset, size, False):
            return False
        self.dispatch.metrics.bytes_down += size
        return True

    def on_response_trailers(self, attempt: Attempt, block: HeaderBlock) -> None:
        relay = self.response
        assert relay is not None
        self._record_answer(attempt, read_response(block))
        relay.finish(block)
        self._maybe_end(relay)

    def _maybe_end(self, response: Relay) -> None:
        """The response is whole. While the app has not read it all, its request is still taken, but for nobody."""
        if not response.finished:
            self.request.discard()
        elif self.state != DONE:
            self._end(self.status, self.text)

    def _record_answer(self, attempt: Attempt, response: ResponseHead | None) -> None:
        """The endpoint has answered in full: its verdict stands, whatever the app does with it (GR-32)."""
        status = status_of_answer(response, self.http_status, self.head.is_grpc)
        if response is not None:
            self.text = response.message.decode("ascii", "replace")
        self.status = status
        outcome = _SUCCESS if status == _OK else outcomes.outcome_of_status(status)
        self.close_attempt(attempt, outcome, status, self.text)
        if response is not None and response.pushback is not None:
            attempt.tell_pushback(response.pushback)

    def on_relay_finished(self, relay: Relay) -> None:
        """What was held for a slow reader is out, END_STREAM included."""
        if relay is self.response and self.attempt is None and self.state != DONE:
            self._end(self.status, self.text)

    # === answers of our own ===

    def refuse(self, refusal: Refusal) -> None:
        """No attempt can be made; the reason is counted under its own name (D18)."""
        bump(self.dispatch.metrics.refusals, refusal.reason)
        self.fail(refusal.status, refusal.text, refusal.pushback)

    def fail(self, status: int, text: str, pushback: float = 0.0) -> None:
        """Answer in the endpoint's place; data that was received is delivered first (GR-20, GR-24, GR-33)."""
        self.status, self.text = status, f"sidecar: {text}; attempts: {self.attempts}"
        if self.recourse is not None and self.recourse.spent:
            pushback = NEVER
        codec = self.connection.codec
        self.connection.touch()
        if self.response is None:
            try:
                codec.send_headers(self.stream, build_trailers_only(self.head, status, self.text, pushback), True)
            except HeaderListTooLarge:
                codec.reset_stream(self.stream, INTERNAL_ERROR)
            self._end(status, self.text)
        elif not self.head.is_grpc:
            codec.reset_stream(self.stream, INTERNAL_ERROR)
            self._end(status, self.text)
        else:
            self.response.finish(build_trailers(status, self.text))
            self._maybe_end(self.response)

    def cut(self, status: int, text: str) -> None:
        """End it now, with a status, whatever it is doing; what is held for a slow reader is dropped."""
        if self.state == DONE:
            return
        if self.attempt is not None:
            self.close_attempt(self.attempt, outcomes.CANCELLED, status, text)
        if self.response is not None:
            self.response.drop_held()
        self.fail(status, text)

    def crash(self, error: Exception) -> None:
        """A mistake of ours, or of a user's balancer, costs this RPC and no other (table 6.1: 13)."""
        log.error("%r: internal error; failing this RPC", self, exc_info=error)
        try:
            self.cut(codes.INTERNAL, f"{self.dispatch.name}: internal error: {type(error).__name__}")
        except Exception:
            log.exception("%r: cannot be failed either; closing the app's connection", self)
            self.connection.shut("internal error of the sidecar")

    # === the end ===

    def _end(self, status: int, text: str) -> None:
        """The app has its answer, or is gone: give everything back and count it once."""
        self._move(END)
        engine, dispatch, stream = self.engine, self.dispatch, self.stream
        if self.attempt is not None:
            self.close_attempt(self.attempt, outcomes.CANCELLED, status, text)
        if not stream.remote_closed:
            self.connection.codec.reset_stream(stream, NO_ERROR)
            self.connection.touch()
        if self.deadline is not None:
            engine.cancel_alarm(self.deadline)
        if self.lifetime is not None:
            engine.cancel_alarm(self.lifetime)
            self.lifetime = None
        if self.recourse is not None:
            self.recourse.end()
            self.recourse = None
        self.request.discard()
        if self.response is not None:
            self.response.discard()
        seconds = engine.now - self.started_at
        dispatch.metrics.exchange_status[status] += 1
        dispatch.metrics.exchange_latency.observe(seconds)
        if self.gate is not None:
            self.gate.leave(self)
        dispatch.remove(self)
        self.connection.remove(self)
        if status >= engine.log_from and engine.log_rpc is not None:
            engine.log_rpc(account_of(self, status, text, seconds))
        # Everything that holds the exchange and is held by it lets go, so that no garbage collection is needed.
        stream.sink = DEAF
        self.deadline = None
        self.gate = None
        self.last = None
        self.history = None

    def __repr__(self) -> str:
        return f"<Exchange {self.dispatch.name} {self.head.path!r} {STATE_NAMES[self.state]} attempts={self.attempts}>"
