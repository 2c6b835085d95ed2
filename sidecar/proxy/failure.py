"""What fails on the way: a reset stream, a lost connection, a timeout, trailers too large. What that does to the RPC.

What certainly did not run goes elsewhere at once. The rest may have run (F9): whether it is tried again, the method's
policy says, and otherwise the app gets a status and a sentence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sidecar.http2.constants import INTERNAL_ERROR, NO_ERROR, REFUSED_STREAM, error_name
from sidecar.http2.errors import HeaderListTooLarge
from sidecar.proxy.exchange_state import ATTEMPTING, RESPONDING
from sidecar.proxy.reason import CONNECTION_LOST, FINISHED, NOT_SENT, REFUSED, RESET
from sidecar.rpc import outcome as outcomes
from sidecar.rpc import status as codes
from sidecar.rpc.metadata import build_trailers

if TYPE_CHECKING:
    from sidecar.proxy.attempt import Attempt
    from sidecar.proxy.exchange import Exchange
    from sidecar.proxy.relay import Relay

# A CANCEL may come just before the deadline that it stands for (GR-35): the endpoint was told a time rounded down, and
# gRPC's C core, which grpcio is made of, keeps instants in whole milliseconds.
DEADLINE_SLACK: Final = 0.001  # seconds


def reset(attempt: Attempt, error_code: int, remote: bool) -> None:
    """The stream was reset before its response was complete (tables 6.2, RT-06, GR-33)."""
    exchange = attempt.exchange
    if remote and error_code == REFUSED_STREAM:
        if _may_go_elsewhere(exchange) and not exchange.refused_once:
            exchange.refused_once = True
            detail = "the stream was refused, not processed"
            exchange.close_attempt(attempt, outcomes.REFUSED, codes.UNAVAILABLE, detail)
            exchange.retry(REFUSED, 0.0)
        else:
            give_up(attempt, outcomes.REFUSED, codes.UNAVAILABLE, REFUSED, "refused the stream")
        return
    passed = exchange.deadline_at != 0 and exchange.engine.now >= exchange.deadline_at - DEADLINE_SLACK
    status = codes.status_of_reset(error_code, passed) if remote else codes.INTERNAL
    what = "reset the stream" if remote else "broke the rules of HTTP/2"
    why = FINISHED if remote and error_code == NO_ERROR else RESET
    give_up(attempt, outcomes.RESET, status, why, f"{what} with {error_name(error_code)}")


def lose(attempt: Attempt, detail: str) -> None:
    """Its connection is gone. What never left may go elsewhere; the rest may have run (H2-65)."""
    exchange = attempt.exchange
    if attempt.unsent and _may_go_elsewhere(exchange):
        exchange.close_attempt(attempt, outcomes.RESET, codes.UNAVAILABLE, detail)
        exchange.retry(NOT_SENT, 0.0)
        return
    where = "before it answered; the RPC may have run"
    if exchange.state == RESPONDING:
        where = "in the middle of its answer"
    give_up(attempt, outcomes.RESET, codes.UNAVAILABLE, CONNECTION_LOST, f"was lost {where}: {detail}")


def refuse_trailers(exchange: Exchange, relay: Relay, detail: str) -> None:
    """A peer accepts no trailing block of that size: say so in a small one (H2-26)."""
    text = f"{exchange.dispatch.name}: trailers too large: {detail}"
    if relay is exchange.response:
        exchange.status, exchange.text = codes.RESOURCE_EXHAUSTED, text
        try:
            exchange.connection.codec.send_trailers(exchange.stream, build_trailers(codes.RESOURCE_EXHAUSTED, text))
        except HeaderListTooLarge:
            exchange.connection.codec.reset_stream(exchange.stream, INTERNAL_ERROR)
    elif exchange.attempt is not None:
        exchange.close_attempt(exchange.attempt, outcomes.CANCELLED, codes.RESOURCE_EXHAUSTED, text)
        exchange.fail(codes.RESOURCE_EXHAUSTED, text)


def _may_go_elsewhere(exchange: Exchange) -> bool:
    """Whether an attempt that did not run is replaced by another at once. Not beside one that still runs."""
    return exchange.replayable and (exchange.recourse is None or exchange.recourse.alone)


def give_up(attempt: Attempt, outcome: int, status: int, why: str, what: str) -> None:
    """It failed, and the RPC with it, unless the policy of its method allows another attempt."""
    exchange = attempt.exchange
    recourse = exchange.recourse if exchange.state == ATTEMPTING and why != FINISHED else None
    exchange.close_attempt(attempt, outcome, status, what)
    if recourse is None or not recourse.on_failure(why, status):
        exchange.fail(status, f"{exchange.dispatch.name}: {attempt.endpoint.address} {what}")
