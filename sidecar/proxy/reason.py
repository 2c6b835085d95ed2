"""Why an attempt is made: the words that logs and the retry counters use. A module of its own, since many import it."""

from __future__ import annotations

from typing import Final

FIRST: Final = "first"
# Transparent retries: the RPC certainly did not run (RT-06).
NOT_SENT: Final = "not_sent"
REFUSED: Final = "refused_stream"
GOAWAY: Final = "goaway"
