"""Durations and sizes as operators write them: `250ms` and `4MiB` to numbers and back. Pure text and arithmetic."""

from __future__ import annotations

import re
from decimal import Decimal

DURATION_PATTERN = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h)?$"
SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)?(B|KB|KiB|MB|MiB|GB|GiB)?$"

DURATION_UNITS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)}
SIZE_UNITS = {
    "B": 1,
    "KB": 10**3,
    "KiB": 2**10,
    "MB": 10**6,
    "MiB": 2**20,
    "GB": 10**9,
    "GiB": 2**30,
}
MAX_DURATION = 87_600 * 3600.0  # ten years; a timer beyond that is a slip of the keyboard
MAX_SIZE = 2**50  # 1 PiB, likewise
MAX_LENGTH = 40  # characters; more digits than that say nothing

_SPLIT = re.compile(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]*)", re.ASCII)


def parse_duration(text: str) -> float:
    """Seconds. Raises ValueError with what was expected."""
    number, unit = _split(text, DURATION_UNITS, "a duration such as 250ms, 1.5s, 2m or 1h")
    seconds = float(number * DURATION_UNITS[unit or "s"])
    if seconds > MAX_DURATION:
        raise ValueError(f"must be at most {build_duration(MAX_DURATION)}, not {text}")
    return seconds


def parse_size(text: str) -> int:
    """Octets. Raises ValueError with what was expected."""
    number, unit = _split(text, SIZE_UNITS, "a size such as 16KiB, 4MiB or 1GB")
    octets = number * SIZE_UNITS[unit or "B"]
    if octets != int(octets):
        raise ValueError(f"must be a whole number of octets, and {text} is not")
    if octets > MAX_SIZE:
        raise ValueError(f"must be at most {build_size(MAX_SIZE)}, not {text}")
    return int(octets)


def build_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` turns back into `seconds`."""
    exact = Decimal(repr(seconds))
    for unit in ("h", "m"):
        if exact and exact % DURATION_UNITS[unit] == 0:
            return f"{_plain(exact / DURATION_UNITS[unit])}{unit}"
    if 0 < exact < 1:
        return f"{_plain(exact * 1000)}ms"
    return f"{_plain(exact)}s"


def build_size(octets: int) -> str:
    """The shortest text that `parse_size` turns back into `octets`."""
    for unit in ("GiB", "MiB", "KiB"):
        if octets and octets % SIZE_UNITS[unit] == 0:
            return f"{octets // SIZE_UNITS[unit]}{unit}"
    return f"{octets}B"


def _split(text: str, units: dict[str, Decimal] | dict[str, int], expected: str) -> tuple[Decimal, str]:
    found = _SPLIT.fullmatch(text) if len(text) <= MAX_LENGTH else None
    if found is None:
        raise ValueError(f"must be {expected}, not {text[:MAX_LENGTH]!r}")
    number, unit = found.groups()
    if unit and unit not in units:
        alike = [each for each in units if each.lower().startswith(unit.lower())]
        hint = f", did you mean {number}{alike[-1]}?" if alike else f"; units are {', '.join(units)}"
        raise ValueError(f"has the unknown unit {unit!r} in {text!r}{hint}")
    return Decimal(number), unit


def _plain(number: Decimal) -> str:
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
