"""The log: set-up, and the two ways in which a line is written. Other rooms use `logging` and nothing of this.

A line is one JSON object in a container and text on a terminal. Extra fields come through `extra={...}`. Lines go to
standard error by a plain write, which waits when the reader of a pipe is slow, and the event loop with it: so
lines are short, and what comes in floods is counted instead of written (see `flood` and `access`).
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import IO, Final

from sidecar.admin.flood import FloodGuard
from sidecar.admin.settings import LogSettings
from sidecar.admin.text import printable

LEVELS: Final[dict[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
# Everything of ours is below this logger; libraries speak from `warning` on.
OURS: Final = "sidecar"
# RPCs have their own switch (`log.access`), so that `log.level: error` does not hide failed ones.
ACCESS: Final = "sidecar.access"

_LONGEST_MESSAGE: Final = 2_000
_LONGEST_STACK: Final = 6_000
_LONGEST_FIELD: Final = 1_000
_MOST_ITEMS: Final = 50  # of a list or of a mapping among the extra fields
_DEEPEST: Final = 4

# What every LogRecord has; the rest came through `extra`.
_OWN_ATTRIBUTES: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def configure(settings: LogSettings, stream: IO[str] | None = None) -> None:
    """Send all logging to `stream`, standard error if None. Replaces what was set up before."""
    target = sys.stderr if stream is None else stream
    as_text = settings.format == "text" or (settings.format == "auto" and target.isatty())
    handler = logging.StreamHandler(target)
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter())
    handler.addFilter(FloodGuard(exempt=ACCESS))
    root = logging.getLogger()
    for former in list(root.handlers):
        root.removeHandler(former)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger(ACCESS).setLevel(logging.INFO)
    set_level(settings.level)


def set_level(level: str) -> None:
    """Change the least important line that is written. Raises ValueError for a word that is no level."""
    if level not in LEVELS:
        raise ValueError(f"'{printable(level, 40)}' is no log level; there are {', '.join(LEVELS)}.")
    logging.getLogger(OURS).setLevel(LEVELS[level])


# === one JSON object per line ===


class JsonFormatter(logging.Formatter):
    """Names after the Elastic Common Schema: @timestamp, log.level, logger, message, error.*, and the extra ones."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of ASCII."""
        line: dict[str, object] = {
            "@timestamp": _timestamp(record),
            "log.level": record.levelname.lower(),
            "logger": record.name,
            "message": printable(record.getMessage(), _LONGEST_MESSAGE),
        }
        for name, value in extra_fields(record).items():
            line.setdefault(printable(name, 100), _plain(value, _DEEPEST))
        if record.exc_info and record.exc_info[0] is not None:
            kind, error, _ = record.exc_info
            line["error.type"] = kind.__name__
            line["error.message"] = printable(str(error), _LONGEST_FIELD)
            line["error.stack_trace"] = _well_formed(self.formatException(record.exc_info))[-_LONGEST_STACK:]
        return json.dumps(line, allow_nan=False, separators=(",", ":"))


def extra_fields(record: logging.LogRecord) -> dict[str, object]:
    """What was given as `extra={...}`."""
    return {name: value for name, value in record.__dict__.items() if name not in _OWN_ATTRIBUTES}


def _plain(value: object, depth: int) -> object:
    """`value` as JSON can say it: bounded in length, number and depth."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else str(value)
    if isinstance(value, float):
        return value if value - value == 0 else str(value)  # not a number, or infinite
    if isinstance(value, str | bytes):
        return printable(value, _LONGEST_FIELD)
    if depth and isinstance(value, dict):
        items = list(value.items())[:_MOST_ITEMS]
        return {printable(str(name), 100): _plain(item, depth - 1) for name, item in items}
    if depth and isinstance(value, list | tuple):
        return [_plain(item, depth - 1) for item in value[:_MOST_ITEMS]]
    return printable(str(value), _LONGEST_FIELD)


def _well_formed(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _timestamp(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


# === text ===


class TextFormatter(logging.Formatter):
    """`20:15:04.123 WARNING proxy.pool: message  key=value`; a stack trace follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the stack trace if there is one."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        name = record.name.removeprefix(f"{OURS}.")
        message = printable(record.getMessage(), _LONGEST_MESSAGE)
        line = f"{clock}.{int(record.msecs):03d} {record.levelname:<7} {name}: {message}"
        fields = extra_fields(record)
        if fields:
            line += "  " + " ".join(f"{printable(key, 100)}={_shown(value)}" for key, value in fields.items())
        if record.exc_info:
            line += "\n" + _well_formed(self.formatException(record.exc_info))[-_LONGEST_STACK:]
        return line


def _shown(value: object) -> str:
    plain = _plain(value, _DEEPEST)
    return plain if isinstance(plain, str) and " " not in plain and plain else json.dumps(plain, allow_nan=False)
