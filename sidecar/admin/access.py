"""The access log: a line for an RPC, with every attempt made for it. Failures always, all RPCs when asked for.

The data path asks `enabled_for` (one comparison) before it makes a record. In an outage every RPC fails: beyond
`FAILURES_PER_SECOND` lines in one second the rest is counted, and a summary line says how many they were.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from sidecar.admin.log import ACCESS
from sidecar.admin.settings import LogSettings
from sidecar.admin.text import printable
from sidecar.rpc.status import OK, STATUS_NAMES, status_name
from sidecar.telemetry.record import AttemptRecord, RpcRecord

# A failed RPC's line is about 600 octets, so this is at most 30 kB a second (Envoy, linkerd: no guard).
FAILURES_PER_SECOND: Final = 50
# An attempt list is bounded by max_attempts; hedges and transparent retries stay well below this.
_MOST_ATTEMPTS: Final = 20
_LONGEST_PATH: Final = 200
_LONGEST_MESSAGE: Final = 300
_WINDOW: Final = 1.0

_LOWEST: Final = {"all": OK, "failures": OK + 1, "off": len(STATUS_NAMES)}

CallLater = Callable[[float, Callable[[], None]], object]


class AccessLog:
    """Writes RPC records. `call_later` runs the summary; the running loop's if None."""

    def __init__(
        self,
        settings: LogSettings,
        now: Callable[[], float] = time.monotonic,
        call_later: CallLater | None = None,
    ) -> None:
        self.lowest: int = _LOWEST[settings.access]  # the lowest grpc-status that gets a line
        self._guarded = settings.access != "all"
        self._now = now
        self._call_later = call_later
        self._log = logging.getLogger(ACCESS)
        self._window_at = -_WINDOW
        self._written = 0
        self._suppressed: dict[tuple[str, str], int] = {}  # by upstream and status

    @property
    def every_rpc(self) -> bool:
        """Whether successes get a line, too."""
        return self.lowest == OK

    def enabled_for(self, status: int) -> bool:
        """Whether an RPC that ended with `status` gets a line."""
        return status >= self.lowest

    def rpc(self, record: RpcRecord) -> None:
        """Write one RPC, or count it when too many failed in this second."""
        if not self.enabled_for(record.status):
            return
        if self._guarded and not self._admit(record):
            return
        level = logging.INFO if record.status == OK else logging.WARNING
        self._log.log(level, _sentence(record), extra=_fields(record))

    def _admit(self, record: RpcRecord) -> bool:
        now = self._now()
        if now - self._window_at >= _WINDOW:
            self.flush()
            self._window_at = now
            self._written = 0
        self._written += 1
        if self._written <= FAILURES_PER_SECOND:
            return True
        if not self._suppressed:
            call_later = self._call_later or asyncio.get_running_loop().call_later
            call_later(self._window_at + _WINDOW - now, self.flush)
        key = (record.upstream, status_name(record.status))
        self._suppressed[key] = self._suppressed.get(key, 0) + 1
        return False

    def flush(self) -> None:
        """Write the summary of what was only counted. Called when its second is over, and before the process ends."""
        suppressed, self._suppressed = self._suppressed, {}
        if not suppressed:
            return
        total = sum(suppressed.values())
        counts = [{"upstream": name, "grpc_status": status, "rpcs": n} for (name, status), n in suppressed.items()]
        self._log.warning(
            "%d more RPCs failed within a second and got no line of their own; the metrics count them all",
            total,
            extra={"event": "rpcs_suppressed", "suppressed": counts},
        )


def _sentence(record: RpcRecord) -> str:
    tries = len(record.attempts)
    count = "no attempt" if not tries else "1 attempt" if tries == 1 else f"{tries} attempts"
    detail = f": {printable(record.message, _LONGEST_MESSAGE)}" if record.message else ""
    path = printable(record.path, _LONGEST_PATH)
    name = status_name(record.status)
    return f"{record.upstream} {path} {name} in {record.seconds * 1e3:.1f} ms, {count}{detail}"


def _fields(record: RpcRecord) -> dict[str, object]:
    return {
        "event": "rpc",
        "upstream": record.upstream,
        "path": printable(record.path, _LONGEST_PATH),
        "grpc_status": status_name(record.status),
        "grpc_status_code": record.status,
        "grpc_message": printable(record.message, _LONGEST_MESSAGE),
        "duration_ms": _milliseconds(record.seconds),
        "bytes_up": record.bytes_up,
        "bytes_down": record.bytes_down,
        "attempts": [_attempt(attempt) for attempt in record.attempts[:_MOST_ATTEMPTS]],
    }


def _attempt(attempt: AttemptRecord) -> dict[str, object]:
    return {
        "endpoint": attempt.endpoint,
        "status": status_name(attempt.status),
        "outcome": attempt.outcome,
        "reason": attempt.reason,
        "detail": printable(attempt.detail, _LONGEST_MESSAGE),
        "ms": _milliseconds(attempt.seconds),
    }


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1e3, 3)
