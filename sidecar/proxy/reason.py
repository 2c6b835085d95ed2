"""Why an attempt is made: the words that logs and the retry counters use. A module of its own, since many import it."""

from __future__ import annotations

from typing import Final

from sidecar.rpc.status import STATUS_NAMES

FIRST: Final = "first"
# Transparent retries: the RPC certainly did not run (RT-06).
NOT_SENT: Final = "not_sent"
REFUSED: Final = "refused_stream"
GOAWAY: Final = "goaway"
# Retries that the method's policy allows: the RPC may have run.
CONNECTION_LOST: Final = "connection_lost"
RESET: Final = "reset"
FINISHED: Final = "finished"  # a reset without an error, which is never tried again (RT-13)
TRY_TIMEOUT: Final = "try_timeout"
HEDGE: Final = "hedge"  # beside one that was slow to answer
STATUS: Final = tuple(name.lower() for name in STATUS_NAMES)  # of the answer that was turned down
