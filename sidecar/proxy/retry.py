"""The retries of one RPC whose method allows them. It puts in effect what `policy.retry` decides.

It is asked about each attempt that failed, waits out the backoff as an alarm, and holds the RPC's place in the retry
budget meanwhile. It ends with its exchange. RPCs of other methods have none of this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.http2.interface import HeaderBlock
from sidecar.policy.method import MethodTable
from sidecar.policy.retry import NOT_RETRIABLE, SPENT, Failure, GiveUp, RetryPolicy
from sidecar.proxy import exchange_state, failure
from sidecar.proxy.reason import CONNECTION_LOST, STATUS, TRY_TIMEOUT
from sidecar.proxy.trial import Trial
from sidecar.proxy.wheel import Alarm
from sidecar.rpc import outcome as outcomes
from sidecar.rpc import status as codes
from sidecar.rpc.metadata import ResponseHead, forbid_retry
from sidecar.telemetry.metrics import bump

if TYPE_CHECKING:
    from sidecar.policy.endpoint import Endpoint
    from sidecar.proxy.exchange import Exchange
    from sidecar.proxy.upstream import UpstreamConnection


class Retry(Alarm):
    """It rings when the backoff is over."""

    __slots__ = ("budget", "exchange", "made", "policy", "retrying", "spent", "step", "throttle")

    def __init__(self, exchange: Exchange, policy: RetryPolicy, table: MethodTable) -> None:
        super().__init__()
        self.exchange = exchange
        self.policy = policy
        self.budget = table.budget
        self.throttle = table.throttle
        self.made = 0  # retries by this policy
        self.step = 0  # of these, since the last pushback
        self.retrying = False  # holds a place in the budget
        self.budget.begin(exchange.engine.now)
        self.spent = False  # the last failure is the answer, and the caller should not try again either

    def begin(self, endpoint: Endpoint, connection: UpstreamConnection) -> Trial:
        """An attempt, not sent yet."""
        exchange = self.exchange
        return Trial(self, exchange, endpoint, connection, exchange.attempts + 1, exchange.why)

    def on_open(self, trial: Trial) -> None:
        """It was sent."""
        if self.policy.per_try_timeout:
            trial.give(self.policy.per_try_timeout)

    @property
    def alone(self) -> bool:
        """Whether no other attempt runs beside one that failed."""
        return True

    @property
    def open(self) -> bool:
        """Whether another attempt could follow."""
        return self.made + 1 < self.policy.max_attempts and self.exchange.replayable

    # === asked by the attempts ===

    def turns_down(self, trial: Trial, status: int, response: ResponseHead, whole: bool) -> bool:
        """The endpoint has answered; `whole` unless part of it is with the app. True: another attempt follows."""
        if status == codes.OK:
            if self.throttle is not None:
                self.throttle.succeed()
            return False
        exchange = self.exchange
        delay = self._decide(status, response.pushback, committed=not (whole and exchange.replayable))
        if delay is None:
            return False
        outcome = outcomes.outcome_of_status(status)
        exchange.close_attempt(trial, outcome, status, response.message.decode("ascii", "replace"))
        if outcome == outcomes.SUCCESS:
            exchange.note_failed(trial)
        if response.pushback is not None:
            trial.tell_pushback(response.pushback)
        exchange.retry(STATUS[status], delay)
        return True

    def on_failure(self, why: str, status: int) -> bool:
        """The attempt ended without an answer, and was closed. True: another follows."""
        exchange = self.exchange
        delay = self._decide(status, None, committed=not exchange.replayable, why=why)
        if delay is None:
            return False
        exchange.retry(why, delay)
        return True

    def on_timeout(self, trial: Trial) -> None:
        """No answer within `per_try_timeout`."""
        seconds = self.policy.per_try_timeout
        failure.give_up(
            trial,
            outcomes.TIMEOUT,
            codes.DEADLINE_EXCEEDED,
            TRY_TIMEOUT,
            f"did not answer within per_try_timeout, {seconds:g}s",
        )

    def amend(self, status: int, block: HeaderBlock) -> HeaderBlock:
        """The end of an answer that is passed on: a failure says if the retries of this call tree are spent (F7)."""
        return forbid_retry(block) if self.spent and status != codes.OK else block

    # === inside ===

    def _decide(self, status: int, pushback: int | None, *, committed: bool, why: str = "") -> float | None:
        """Seconds until the next attempt, None when the failure is the answer; `why` there was no answer."""
        exchange = self.exchange
        self._give_back()  # what failed no longer counts as under way
        failure = Failure(
            status=status,
            pushback=pushback,
            retries=self.made,
            step=self.step,
            committed=committed,
            timed_out=why == TRY_TIMEOUT,
            lost=why == CONNECTION_LOST,
            caller_retries=exchange.head.previous_attempts > 0,
            remaining=exchange.deadline_at - exchange.engine.now if exchange.deadline_at else None,
        )
        dispatch = exchange.dispatch
        engine = exchange.engine
        answer = self.policy.decide(failure, dispatch.in_flight, self.budget, self.throttle, engine.rng, engine.now)
        if isinstance(answer, GiveUp):
            self.spent = answer.reason in SPENT
            if answer.reason != NOT_RETRIABLE:
                bump(dispatch.metrics.retries_suppressed, answer.reason)
            return None
        self.retrying = True
        self.made += 1
        self.step = self.step + 1 if pushback is None else 0
        return answer.seconds

    def on_commit(self, trial: Trial) -> None:
        """Its answer is passed on: however long it lasts, it is no retry under way."""
        self._give_back()

    def _give_back(self) -> None:
        if self.retrying:
            self.retrying = False
            self.budget.give_back()

    def ring(self, now: float) -> None:
        """The backoff is over."""
        exchange = self.exchange
        if exchange.state == exchange_state.WAITING and not exchange.queued:
            exchange.dispatch.requeue(exchange)

    def end(self) -> None:
        """The RPC is over."""
        self.exchange.engine.cancel_alarm(self)
        self._give_back()
