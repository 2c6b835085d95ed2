"""Whether somebody is still at the other end of a connection: asked by PING, judged by silence.

The connection sends the PINGs, owns the timer and says what is an answer; this is the judge. `ring` is to be called at
`due_at`. A judge that was asleep judges nobody: when it is called late, because the
machine was suspended or the event loop stood still, what the peer said meanwhile may still lie unread (RL-45).
"""

from __future__ import annotations

from typing import Final

# States.
TRUSTED: Final = 0  # nothing is asked
ASKED: Final = 1  # a PING is out
DOUBTED: Final = 2  # for half its time already: the connection is not used any more
LOST: Final = 3
STATE_NAMES: Final = ("trusted", "asked", "doubted", "lost")

# Inputs.
ASK: Final = 0
ANSWER: Final = 1
SILENCE: Final = 2

_TABLE: Final = {
    (TRUSTED, ASK): ASKED,
    (ASKED, ANSWER): TRUSTED,
    (ASKED, SILENCE): DOUBTED,
    (DOUBTED, ANSWER): TRUSTED,
    (DOUBTED, SILENCE): LOST,
}

LATE: Final = 0.25  # seconds; the event loop's own lag stays far below, and no limit is that short


class Pulse:
    """The question that is open, if one is. It ends when it is LOST."""

    def __init__(self) -> None:
        self.state: int = TRUSTED
        self.asked_at: float = 0.0
        self.limit: float = 0.0  # seconds for the answer
        self.due_at: float = 0.0  # when to look again
        self._asked_again = False

    def ask(self, limit: float, now: float) -> None:
        """A PING leaves now; its answer must be here within `limit` seconds."""
        self._move(ASK)
        self._asked_again = False
        self._begin(limit, now)

    def answer(self) -> None:
        """It came."""
        self._move(ANSWER)

    def ring(self, now: float) -> bool:
        """It is `due_at`, and there is no answer. Whether to ask again: we are late, and so the silence proves nothing.

        Only once in a row: a process that is always late must come to a verdict, too.
        """
        if now - self.due_at > LATE and not self._asked_again:
            self._asked_again = True
            self._begin(self.limit, now)
            return True
        self._move(SILENCE)
        self.due_at = self.asked_at + self.limit
        return False

    def hurry(self, limit: float, now: float) -> None:
        """The open question has become urgent: from now on `limit` seconds are enough."""
        if now + limit < self.asked_at + self.limit:
            self.limit = now + limit - self.asked_at
            self.due_at = min(self.due_at, now + limit / 2)

    def _begin(self, limit: float, now: float) -> None:
        self.asked_at = now
        self.limit = limit
        self.due_at = now + (limit / 2 if self.state == ASKED else limit)

    def _move(self, event: int) -> None:
        """The one door. An input without an entry is an error."""
        self.state = _TABLE[self.state, event]

    def __repr__(self) -> str:
        return f"<Pulse {STATE_NAMES[self.state]}>"
