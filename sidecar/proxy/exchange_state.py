"""The states of an exchange, what may happen to it, and which of these goes with which.

A module of its own, since compiled modules that import each other in a circle cannot take constants from one another.
"""

from __future__ import annotations

from typing import Final

WAITING: Final = 0  # no attempt: just opened, queued, or between two attempts
ATTEMPTING: Final = 1  # an attempt is on the wire and nothing of its response was forwarded
RESPONDING: Final = 2  # committed: the response head went to the app
DONE: Final = 3
STATE_NAMES: Final = ("waiting", "attempting", "responding", "done")

SEND: Final = 0  # an attempt starts
RETRY: Final = 1  # the attempt failed and another may follow
HEAD: Final = 2  # a response head is forwarded
END: Final = 3  # the app has its answer, or is gone

ILLEGAL: Final = -1
#                       SEND        RETRY    HEAD        END
TABLE: Final = (
    (ATTEMPTING, ILLEGAL, ILLEGAL, DONE),  # WAITING
    (ILLEGAL, WAITING, RESPONDING, DONE),  # ATTEMPTING
    (ILLEGAL, ILLEGAL, ILLEGAL, DONE),  # RESPONDING
    (ILLEGAL, ILLEGAL, ILLEGAL, ILLEGAL),  # DONE
)
