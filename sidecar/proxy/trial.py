"""An attempt whose answer may still be turned down: what RPCs with retries or hedges use in place of a plain one.

It withholds a response head for a moment, since a head that is followed by error trailers without any DATA is an
answer like a Trailers-Only one (GR-31), and it keeps `per_try_timeout`. Whether it is turned down, its recourse says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from sidecar.http2.interface import HeaderBlock, Stream
from sidecar.proxy.attempt import Attempt
from sidecar.proxy.wheel import OVERSLEPT, Alarm
from sidecar.rpc.metadata import NO_STATUS, ResponseHead, read_response, status_of_answer
from sidecar.rpc.outcome import OURS, TIMEOUT

if TYPE_CHECKING:
    from sidecar.policy.endpoint import Endpoint
    from sidecar.proxy.exchange import Exchange
    from sidecar.proxy.upstream import UpstreamConnection

# For a server that sends its head early this is the delay; one that answers at once has its trailers in the same read.
WITHHOLD: Final = 0.005  # seconds
OK_HTTP: Final = 200


class Recourse(Protocol):
    """What an RPC can do about an attempt that failed: `Retry`, or `Hedge`."""

    @property
    def open(self) -> bool:
        """Whether another attempt could still follow, or be the answer."""
        ...

    def turns_down(self, trial: Trial, status: int, response: ResponseHead, whole: bool) -> bool:
        """The endpoint has answered; `whole` unless part of it is with the app. True: it was dealt with."""
        ...

    def amend(self, status: int, block: HeaderBlock) -> HeaderBlock:
        """The end of an answer that is passed on, with what the caller should know."""
        ...

    def on_timeout(self, trial: Trial) -> None:
        """It has been without an answer for its `per_try_timeout`."""
        ...

    def on_open(self, trial: Trial) -> None:
        """Its request head is on its way."""
        ...

    def on_commit(self, trial: Trial) -> None:
        """Its answer is passed on from now on."""
        ...


class Patience(Alarm):
    """How long a trial may stay as it is."""

    __slots__ = ("trial",)

    def __init__(self, trial: Trial) -> None:
        super().__init__()
        self.trial = trial

    def ring(self, now: float) -> None:
        try:
            self.trial.on_patience()
        except Exception as error:
            self.trial.exchange.crash(error)


class Trial(Attempt):
    """One attempt of an RPC that has a recourse."""

    __slots__ = ("due_at", "patience", "recourse", "withheld")

    def __init__(
        self,
        recourse: Recourse,
        exchange: Exchange,
        endpoint: Endpoint,
        connection: UpstreamConnection,
        number: int,
        reason: str,
    ) -> None:
        super().__init__(exchange, endpoint, connection, number, reason)
        self.recourse = recourse
        self.withheld: HeaderBlock | None = None  # the head of an answer of which nothing else is known
        self.patience: Patience | None = None
        self.due_at = 0.0  # when that is over; 0: it has never begun

    def give(self, seconds: float) -> None:
        """So long it may stay as it is from now on."""
        if self.patience is None:
            self.patience = Patience(self)
        engine = self.exchange.engine
        self.due_at = engine.now + seconds
        engine.set_alarm(self.patience, self.due_at)

    def open(self, stream: Stream) -> None:
        super().open(stream)
        self.recourse.on_open(self)

    # === heard from the stream ===

    def on_headers(self, block: HeaderBlock, end_stream: bool) -> None:
        if self.done:
            return
        self.answered_at = self.exchange.engine.now
        try:
            self._on_head(block, end_stream)
        except Exception as error:
            self.exchange.crash(error)

    def _on_head(self, block: HeaderBlock, end_stream: bool) -> None:
        response = read_response(block)
        if end_stream or (response.http_status != OK_HTTP and response.grpc_status == NO_STATUS):
            status = status_of_answer(response, response.http_status, True)
            if self.recourse.turns_down(self, status, response, True):
                return
            self.pass_on(self.recourse.amend(status, block) if end_stream else block, end_stream)
        elif self.recourse.open:
            self.withheld = block
            self.give(WITHHOLD)
        else:
            self.pass_on(block, end_stream)

    def on_data(self, data: bytes, end_stream: bool) -> None:
        if self.withheld is not None and not self.done:
            self.release()
        super().on_data(data, end_stream)

    def on_trailers(self, block: HeaderBlock) -> None:
        if self.done:
            return
        try:
            response = read_response(block)
            head = self.withheld
            http_status = read_response(head).http_status if head is not None else OK_HTTP
            status = status_of_answer(response, http_status, True)
            if self.recourse.turns_down(self, status, response, head is not None):
                return
            self.release()
            block = self.recourse.amend(status, block)
        except Exception as error:
            self.exchange.crash(error)
        super().on_trailers(block)

    # === time ===

    def on_patience(self) -> None:
        """The wait is over: for what may follow a head, or for the head."""
        if self.withheld is not None:
            self.release()
        elif not self.done and not self.answered_at:
            self.recourse.on_timeout(self)

    def release(self) -> None:
        """Pass the withheld head on: the RPC is committed to this attempt."""
        if self.withheld is not None and not self.done:
            block, self.withheld = self.withheld, None
            self.pass_on(block, False)

    def pass_on(self, block: HeaderBlock, end_stream: bool) -> None:
        """Give the head to the app."""
        self.rest()
        self.recourse.on_commit(self)
        self.exchange.on_response_head(self, block, end_stream)

    def rest(self) -> None:
        """Nothing is waited for any more."""
        if self.patience is not None:
            self.exchange.engine.cancel_alarm(self.patience)

    def close(self, outcome: int, status: int, detail: str = "") -> None:
        self.rest()
        self.patience = self.withheld = None
        super().close(outcome, status, detail)

    def _blame(self, outcome: int, status: int, now: float) -> int:
        if outcome == TIMEOUT and not self.answered_at and self.due_at and now - self.due_at > OVERSLEPT:
            return OURS
        return super()._blame(outcome, status, now)
