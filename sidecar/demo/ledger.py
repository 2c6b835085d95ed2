"""The books of the demo: how many RPCs were sent, what became of each, and which failures have an excuse.

Only one thing excuses a failure: the instance was killed while the RPC was on it. Then the failure names that instance,
the RPC lived in the moments between the kill and the end of picks, and there are no more of them than RPCs could have
been there. No clock inside; instants are seconds on the caller's.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

NOTICE = 1.0  # seconds that the caller, on a busy machine, may take to hear of a failure after the fact


class Failure(NamedTuple):
    """An RPC that did not end with OK. `text` is the gRPC message that the caller got."""

    sent_at: float
    ended_at: float
    status: str
    text: str


@dataclass
class Kill:
    """An instance that was killed: `in_flight` RPCs were on it when its sidecar was last asked."""

    name: str
    address: str
    at: float
    in_flight: int
    out_at: float = float("inf")  # until this instant RPCs may have been sent to it
    sent_during: int = 0  # RPCs sent, to anybody, between the question and `out_at`

    @property
    def bound(self) -> int:
        """The most RPCs that can have been on it."""
        return self.in_flight + self.sent_during

    def excuses(self, failure: Failure) -> bool:
        """Whether the failed RPC was on this instance when it died."""
        return (
            failure.status == "UNAVAILABLE"
            and re.search(rf"(?<!\d){re.escape(self.address)}(?!\d)", failure.text) is not None
            and failure.sent_at <= self.out_at
            and self.at <= failure.ended_at <= self.out_at + NOTICE
        )


class Mark(NamedTuple):
    """The counts at one moment, to tell what happened since."""

    sent: int
    failed: int


class Verdict(NamedTuple):
    """`excused` failures by the name of the killed instance, and every sentence that speaks against a clean record."""

    excused: dict[str, int]
    complaints: list[str]

    @property
    def clean(self) -> bool:
        """Whether every RPC is accounted for."""
        return not self.complaints


@dataclass
class Ledger:
    """What the caller has seen."""

    sent: int = 0
    answered: int = 0
    failures: list[Failure] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)

    def mark(self) -> Mark:
        """The counts now."""
        return Mark(self.sent, len(self.failures))

    def since(self, mark: Mark) -> Mark:
        """What was added since."""
        return Mark(self.sent - mark.sent, len(self.failures) - mark.failed)

    def lost_to(self, kill: Kill) -> int:
        """The failures that `kill` excuses."""
        return sum(map(kill.excuses, self.failures))

    def judge(self, counted: int | None = None) -> Verdict:
        """The record as a whole. `counted` RPCs ended in the client's sidecar; None: it could not be asked."""
        excused: dict[str, int] = {}
        unexcused: Counter[str] = Counter()
        for failure in self.failures:
            kill = next((kill for kill in self.kills if kill.excuses(failure)), None)
            if kill is not None:
                excused[kill.name] = excused.get(kill.name, 0) + 1
            else:
                unexcused[f"{failure.status}: {failure.text}"] += 1
        complaints = [f"nothing excuses {count} x {what}" for what, count in unexcused.items()]
        for kill in self.kills:
            if excused.get(kill.name, 0) > kill.bound:
                complaints.append(
                    f"{excused[kill.name]} failures are blamed on the kill of {kill.name},"
                    f" where at most {kill.bound} RPCs can have been in flight"
                )
        missing = self.sent - self.answered - len(self.failures)
        if missing:
            complaints.append(f"{missing} RPCs were sent and neither answered nor failed")
        if counted is not None and counted < self.sent:
            complaints.append(f"the client's sidecar has seen only {counted} of {self.sent} RPCs")
        return Verdict(excused, complaints)
