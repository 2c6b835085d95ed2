"""What one attempt came to, in the six words that balancers, ejection and retries understand."""

from __future__ import annotations

from typing import Final

from sidecar.rpc import status as codes

SUCCESS: Final = 0
FAILURE: Final = 1
TIMEOUT: Final = 2
RESET: Final = 3
REFUSED: Final = 4
CANCELLED: Final = 5
OUTCOME_NAMES: Final = ("success", "failure", "timeout", "reset", "refused", "cancelled")

# Whose doing an outcome is. What the app did, or the sidecar, or what certainly did not run, speaks against nobody.
NOBODY: Final = 0
REMOTE: Final = 1  # the endpoint answered, or reset the stream, or did not answer in time
LOCAL: Final = 2  # the connection was lost, or the endpoint broke the rules of HTTP/2 on it
OURS: Final = 3  # its time passed while this process or its machine slept

# Statuses that speak against the endpoint, not against the call (OD-07 without 8: decision 2 of the acceptance list).
ENDPOINT_FAILURES: Final = frozenset((codes.UNKNOWN, codes.INTERNAL, codes.UNAVAILABLE, codes.DATA_LOSS))


def outcome_of_status(status: int) -> int:
    """The outcome of an attempt that ended with a grpc-status of the endpoint's own."""
    if status == codes.OK:
        return SUCCESS
    if status == codes.DEADLINE_EXCEEDED:
        return TIMEOUT
    if status in ENDPOINT_FAILURES:
        return FAILURE
    # The app's own mistakes (NOT_FOUND, INVALID_ARGUMENT, ...) are answers of an endpoint that works.
    return SUCCESS
