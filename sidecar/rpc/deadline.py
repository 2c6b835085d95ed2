"""grpc-timeout on the wire <-> seconds. When the clock starts, and what is left, is the caller's affair."""

from __future__ import annotations

from typing import Final

_UNIT_SECONDS: Final[dict[int, float]] = {
    ord("H"): 3600.0,
    ord("M"): 60.0,
    ord("S"): 1.0,
    ord("m"): 1e-3,
    ord("u"): 1e-6,
    ord("n"): 1e-9,
}

# Largest first-fitting unit for eight digits, finest first.
_ENCODINGS: Final[tuple[tuple[float, str], ...]] = (
    (1e-9, "n"),
    (1e-6, "u"),
    (1e-3, "m"),
    (1.0, "S"),
    (60.0, "M"),
    (3600.0, "H"),
)
_MOST: Final = 99_999_999

# Longer than any process lives: an hour count that overflows is clamped (GR-40).
LONGEST: Final = _MOST * 3600.0


def parse_timeout(value: bytes) -> float | None:
    """Seconds, or None when the field is malformed: it is then forwarded untouched and sets no deadline (GR-41)."""
    if not 2 <= len(value) <= 9:
        return None
    digits = value[:-1]
    unit = _UNIT_SECONDS.get(value[-1])
    if unit is None or not digits.isdigit():
        return None
    return int(digits) * unit


def encode_timeout(seconds: float) -> bytes:
    """The finest unit that fits eight digits, rounded down, so that upstream never has longer than the app (GR-42).

    Nothing left becomes `1n`: zero would be legal but servers differ on it.
    """
    for unit, letter in _ENCODINGS:
        scaled = seconds / unit
        if scaled < _MOST + 1.0:
            count = int(scaled)
            return f"{count if count > 0 else 1}{letter}".encode()
    return b"%dH" % _MOST
