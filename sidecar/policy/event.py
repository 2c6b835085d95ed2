"""What became of an endpoint, and why: the entries of an upstream's event log (E15).

Policy makes them, the proxy logs and counts them, `GET /events` shows the newest. Nothing here decides.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

# Kinds.
EJECTED: Final = "ejected"
WITHHELD: Final = "withheld"  # an ejection that was not carried out; `withheld` says why
PROBATION: Final = "probation"
RETURNED: Final = "returned"
UNREACHABLE: Final = "unreachable"
REACHABLE: Final = "reachable"
CHECK_FAILED: Final = "check_failed"
CHECK_PASSED: Final = "check_passed"

KEPT: Final = 64  # of each upstream


class Event(Struct, frozen=True, kw_only=True):
    """One change of one endpoint. `reason` and `withheld` are metric labels, `text` is a sentence."""

    at: float  # loop clock
    endpoint: str
    kind: str
    reason: str
    text: str
    withheld: str = ""
