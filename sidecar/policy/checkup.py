"""What active health checks say of one endpoint: a verdict out of findings, damped by thresholds.

The checks themselves are made in `proxy`; `Cluster.set_checkup` puts the verdict in force. It stands beside ejection's
(`Endpoint.state`), and neither overrules the other: an endpoint is healthy when both say so. Nothing here knows time.
"""

from __future__ import annotations

from typing import Final

from sidecar.policy.endpoint import AWAITED, FAILED, PASSED

# Findings of one check.
PASS: Final = 0
DENIED: Final = 1  # the endpoint answered, and says that it does not serve
MISSED: Final = 2  # it did not answer, or not in a way that says anything

# How many findings that speak against the present verdict, in a row, change it.
ONCE: Final = "once"
RISE: Final = "rise"
FALL: Final = "fall"

# The first finding on a new connection decides alone, and so does the endpoint's own word against itself (Envoy's rules
# for gRPC checks, GR-52); silence and coming back are damped.
_TABLE: Final = {
    (AWAITED, PASS): (PASSED, ONCE),
    (AWAITED, DENIED): (FAILED, ONCE),
    (AWAITED, MISSED): (FAILED, ONCE),
    (PASSED, PASS): (PASSED, ONCE),
    (PASSED, DENIED): (FAILED, ONCE),
    (PASSED, MISSED): (FAILED, FALL),
    (FAILED, PASS): (PASSED, RISE),
    (FAILED, DENIED): (FAILED, ONCE),
    (FAILED, MISSED): (FAILED, ONCE),
}


class Checkup:
    """The findings on one endpoint. `rise` passes in a row bring it back, `fall` misses in a row put it out."""

    def __init__(self, rise: int, fall: int) -> None:
        self._needed = {ONCE: 1, RISE: rise, FALL: fall}
        self.verdict: int = AWAITED
        self.against: int = 0  # findings in a row that speak against the verdict

    def record(self, finding: int) -> bool:
        """Count one finding. Whether it changed the verdict."""
        verdict, threshold = _TABLE[self.verdict, finding]
        if verdict == self.verdict:
            self.against = 0
            return False
        self.against += 1
        if self.against < self._needed[threshold]:
            return False
        self.verdict = verdict
        self.against = 0
        return True

    def restart(self) -> None:
        """What was found no longer holds, as after the loss of every connection: the next finding decides."""
        self.verdict = AWAITED
        self.against = 0

    def __repr__(self) -> str:
        return f"<Checkup {self.verdict} against={self.against}>"
