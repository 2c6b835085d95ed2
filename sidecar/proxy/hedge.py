"""Several attempts of one RPC at the same time, of which the first good answer is passed on (gRFC A6, RT-10).

The first attempt is the exchange's own. Those beside it are rivals, each with a relay of its own over the replay
buffer, so an RPC is hedged only once its request is here as a whole. Whichever answers first becomes the exchange's
attempt, and the others are cancelled. It ends with its exchange; RPCs of other methods have none of this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.http2.errors import HeaderListTooLarge, StreamsExhausted
from sidecar.http2.interface import HeaderBlock, Stream
from sidecar.policy import hedge as policy
from sidecar.policy.balancer import PickContext
from sidecar.policy.cluster import Refusal
from sidecar.policy.hedge import HedgePace
from sidecar.policy.method import MethodTable
from sidecar.proxy import exchange_state
from sidecar.proxy.reason import CONNECTION_LOST, HEDGE, STATUS
from sidecar.proxy.relay import Relay
from sidecar.proxy.trial import Trial
from sidecar.proxy.wheel import Alarm
from sidecar.rpc import outcome as outcomes
from sidecar.rpc import status as codes
from sidecar.rpc.metadata import ResponseHead, build_request
from sidecar.telemetry.metrics import bump

if TYPE_CHECKING:
    from sidecar.policy.endpoint import Endpoint
    from sidecar.proxy.exchange import Exchange
    from sidecar.proxy.upstream import UpstreamConnection


class Rival(Trial):
    """An attempt beside another. It sends the whole request by itself."""

    __slots__ = ("relay",)

    def __init__(self, hedge: Hedge, endpoint: Endpoint, connection: UpstreamConnection) -> None:
        exchange = hedge.exchange
        super().__init__(hedge, exchange, endpoint, connection, exchange.attempts + 1, HEDGE)
        self.relay = Relay(exchange, exchange.request.replay)
        self.relay.rewind()
        self.relay.replay = None  # the exchange's own
        self.relay.ended = True

    def send(self, stream: Stream) -> None:
        """The request after its head."""
        self.relay.attach(self.connection, stream)

    def on_window(self) -> None:
        if not self.done:
            try:
                self.relay.pump()
            except Exception as error:
                self.exchange.crash(error)

    def close(self, outcome: int, status: int, detail: str = "") -> None:
        self.relay.discard()
        super().close(outcome, status, detail)


class Hedge(Alarm):
    """It rings when the next attempt is due."""

    __slots__ = ("exchange", "first_at", "pace", "racing", "spent", "stopped", "throttle")

    def __init__(self, exchange: Exchange, pace: HedgePace, table: MethodTable) -> None:
        super().__init__()
        self.exchange = exchange
        self.pace = pace
        self.throttle = table.throttle
        self.racing: list[Trial] = []  # under way, oldest first
        self.first_at = 0.0
        self.stopped = False  # an endpoint asked for no more
        self.spent = False
        pace.budget.earn()

    # === attempts ===

    def begin(self, endpoint: Endpoint, connection: UpstreamConnection) -> Trial:
        """An attempt of the exchange, not sent yet."""
        exchange = self.exchange
        return Trial(self, exchange, endpoint, connection, exchange.attempts + 1, exchange.why)

    def on_open(self, trial: Trial) -> None:
        """It was sent: the next is due when this one is late."""
        engine = self.exchange.engine
        self.racing.append(trial)
        self.first_at = self.first_at or engine.now
        if len(self.racing) < self.pace.policy.max_attempts:
            delay = self.pace.delay(engine.now)
            if delay is not None:
                engine.set_alarm(self, engine.now + delay)

    def ring(self, now: float) -> None:
        """The attempts so far are late."""
        exchange = self.exchange
        try:
            if exchange.state == exchange_state.ATTEMPTING and self.racing:
                self._add_rival()
            elif exchange.state == exchange_state.WAITING and not exchange.queued:
                exchange.dispatch.requeue(exchange)  # none was left, and the endpoint's pushback is over
        except Exception as error:
            exchange.crash(error)

    def _add_rival(self) -> None:
        """Send the RPC elsewhere too, or count why not."""
        exchange = self.exchange
        dispatch = exchange.dispatch
        request = exchange.request
        if not (exchange.replayable and request.ended and request.trailers is None):
            bump(dispatch.metrics.hedges_suppressed, policy.UNFINISHED)
            return
        where = self._place()
        if where is None:
            bump(dispatch.metrics.hedges_suppressed, policy.NO_OTHER)
        elif self._allowed():
            self._send(*where)

    def _place(self) -> tuple[Endpoint, UpstreamConnection] | None:
        """Where no attempt of this RPC has been, if that can take it now."""
        exchange = self.exchange
        dispatch = exchange.dispatch
        tried = (*exchange.tried, *(trial.endpoint for trial in self.racing))
        picked = dispatch.cluster.pick(PickContext(exchange.head, tried, exchange.block), exchange.engine.now)
        if isinstance(picked, Refusal) or picked in tried:
            return None
        connection = dispatch.acquire(picked)
        return None if connection is None else (picked, connection)

    def _allowed(self) -> bool:
        """Whether one more attempt may be made: it costs a token."""
        exchange = self.exchange
        caller_retries = exchange.head.previous_attempts > 0
        refusal = self.pace.refusal(exchange.attempts, self.stopped, caller_retries, self.throttle)
        if refusal:
            bump(exchange.dispatch.metrics.hedges_suppressed, refusal)
        return not refusal

    def _send(self, endpoint: Endpoint, connection: UpstreamConnection) -> None:
        exchange = self.exchange
        remaining = exchange.deadline_at - exchange.engine.now if exchange.deadline_at else None
        block = build_request(exchange.head, exchange.block, remaining, exchange.attempts)
        rival = Rival(self, endpoint, connection)
        empty = not exchange.request.received
        try:
            stream = connection.codec.open_stream(rival)
            connection.codec.send_headers(stream, block, empty)
        except StreamsExhausted:
            rival.relay.discard()
            connection.on_exhausted()
            return
        except HeaderListTooLarge:
            rival.relay.discard()
            return
        exchange.attempts += 1
        bump(exchange.dispatch.metrics.retries, HEDGE)
        rival.open(stream)
        connection.touch()
        if not empty:
            rival.send(stream)

    # === asked by the attempts ===

    @property
    def alone(self) -> bool:
        """Whether no other attempt runs beside one that failed."""
        return len(self.racing) <= 1

    @property
    def open(self) -> bool:
        """Whether an answer need not be the last word."""
        return self.exchange.replayable and (not self.alone or self.exchange.attempts < self.pace.policy.max_attempts)

    def turns_down(self, trial: Trial, status: int, response: ResponseHead, whole: bool) -> bool:
        """The endpoint has answered. True: the answer is dropped, and another attempt runs or follows."""
        exchange = self.exchange
        refused = response.pushback is not None and response.pushback < 0
        self._count(status, refused)
        if status == codes.OK or status not in self.pace.policy.codes or not whole:
            return False
        if refused:
            self.stopped = True
        if self.alone and not (exchange.replayable and self._allowed()):
            return False
        outcome = outcomes.outcome_of_status(status)
        alone = self.alone
        self._leave(trial, outcome, status, response.message.decode("ascii", "replace"))
        if outcome == outcomes.SUCCESS:
            exchange.note_failed(trial)
        if response.pushback is not None:
            trial.tell_pushback(response.pushback)
        pause = max(0, response.pushback or 0) / 1000
        if alone:
            exchange.retry(STATUS[status], pause)
        else:
            self._hurry(pause)
        return True

    def on_failure(self, why: str, status: int) -> bool:
        """An attempt ended without an answer, and was closed. True: another runs or follows."""
        exchange = self.exchange
        if self.throttle is not None:
            self.throttle.fail(lost_at=exchange.engine.now if why == CONNECTION_LOST else None)
        self.racing = [trial for trial in self.racing if not trial.done]
        if self.racing:
            self._adopt(self.racing[0])
            self._hurry(0.0)
            return True
        if not (exchange.replayable and self._allowed()):
            return False
        exchange.retry(why, 0.0)
        return True

    def on_commit(self, trial: Trial) -> None:
        """Its answer is passed on: it has won, and the others stop."""
        exchange = self.exchange
        engine = exchange.engine
        engine.cancel_alarm(self)
        self.pace.observe(engine.now - self.first_at, engine.now)
        for loser in [each for each in self.racing if each is not trial]:
            self._leave(loser, outcomes.CANCELLED, codes.CANCELLED, "another attempt answered first")
        if trial.reason == HEDGE:
            exchange.dispatch.metrics.hedge_wins += 1
        self._adopt(trial)

    def on_timeout(self, trial: Trial) -> None:
        """There is none here: a late attempt gets a rival instead."""

    def amend(self, status: int, block: HeaderBlock) -> HeaderBlock:
        """The end of an answer, as it came."""
        return block

    # === inside ===

    def _count(self, status: int, refused: bool) -> None:
        """The tokens of gRFC A6 (RT-03) for an answer; `refused`: it asks for no more attempts."""
        if self.throttle is None:
            return
        if status == codes.OK:
            self.throttle.succeed()
        elif refused or status in self.pace.policy.codes:
            self.throttle.fail()

    def _hurry(self, pause: float) -> None:
        """One attempt fewer runs: the next is due in `pause` seconds, and not when the last began to be late."""
        exchange = self.exchange
        if not self.stopped and exchange.attempts < self.pace.policy.max_attempts:
            exchange.engine.set_alarm(self, exchange.engine.now + pause)

    def _leave(self, trial: Trial, outcome: int, status: int, detail: str) -> None:
        """It is out of the race."""
        exchange = self.exchange
        self.racing.remove(trial)
        exchange.close_attempt(trial, outcome, status, detail)
        if exchange.attempt is None and self.racing:
            self._adopt(self.racing[0])

    def _adopt(self, trial: Trial) -> None:
        """It is the exchange's attempt from now on. A rival needs nothing of the exchange's own relay."""
        exchange = self.exchange
        exchange.attempt = trial
        if isinstance(trial, Rival):
            exchange.request.drop_held()

    def end(self) -> None:
        """The RPC is over: nobody waits for what still runs."""
        exchange = self.exchange
        exchange.engine.cancel_alarm(self)
        timed_out = exchange.status == codes.DEADLINE_EXCEEDED
        for trial in [trial for trial in self.racing if not trial.done]:
            if timed_out:
                exchange.close_attempt(trial, outcomes.TIMEOUT, codes.DEADLINE_EXCEEDED, "deadline")
            else:
                exchange.close_attempt(trial, outcomes.CANCELLED, codes.CANCELLED, "the RPC is over")
        self.racing = []
