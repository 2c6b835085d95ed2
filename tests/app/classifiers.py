"""Classifiers as users might write them, with their mistakes."""

from __future__ import annotations

NOT_A_FUNCTION = 1


def by_status(status: int, seconds: float, path: bytes) -> bool | None:
    """NOT_FOUND is a failure here, but for one method; what is slow is one too."""
    if path.endswith(b"/Ignore"):
        return None
    return status == 5 or seconds > 1.0


def fails(status: int, seconds: float, path: bytes) -> bool | None:
    """Raises."""
    raise ZeroDivisionError("judge")
