"""Log lines: one each, readable by machines whatever was put into them, and few in an outage."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.admin.access import FAILURES_PER_SECOND, AccessLog
from sidecar.admin.flood import LINES_PER_SECOND, FloodGuard
from sidecar.admin.log import ACCESS, JsonFormatter, TextFormatter, configure, extra_fields, set_level
from sidecar.admin.settings import LogSettings
from sidecar.admin.text import LONGEST, printable
from sidecar.telemetry.record import AttemptRecord, RpcRecord

log = logging.getLogger("sidecar.proxy.pool")


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """Give the process its logging back."""
    loggers = [logging.getLogger(name) for name in (None, "sidecar", ACCESS)]
    levels = [logger.level for logger in loggers]
    handlers = list(loggers[0].handlers)
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    loggers[0].handlers[:] = handlers


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines_of(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def formatted(record: logging.LogRecord) -> dict[str, Any]:
    line = JsonFormatter().format(record)
    assert "\n" not in line and line.isascii() and line.isprintable()
    value = json.loads(line, parse_constant=pytest.fail)  # no NaN, no Infinity
    assert isinstance(value, dict)
    return value


def record_of(message: object, *args: object, **extra: object) -> logging.LogRecord:
    return log.makeRecord(log.name, logging.WARNING, "file.py", 1, message, args, None, extra=extra)


# === JSON ===


def test_a_line_has_time_level_logger_message_and_the_extra_fields() -> None:
    line = formatted(record_of("connect to %s failed", "10.0.0.1:80", upstream="orders", attempt=2))
    assert line.pop("@timestamp").endswith("Z")
    assert line == {
        "log.level": "warning",
        "logger": "sidecar.proxy.pool",
        "message": "connect to 10.0.0.1:80 failed",
        "upstream": "orders",
        "attempt": 2,
    }


def test_the_time_is_utc_with_milliseconds() -> None:
    record = record_of("x")
    record.created, record.msecs = 1.25, 250.0
    assert formatted(record)["@timestamp"] == "1970-01-01T00:00:01.250Z"


def test_an_exception_is_told_by_type_message_and_stack() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = log.makeRecord(log.name, logging.ERROR, "f", 1, "it broke", (), sys.exc_info())
    line = formatted(record)
    assert (line["error.type"], line["error.message"]) == ("ValueError", "two\\nlines")
    assert line["error.stack_trace"].startswith("Traceback") and line["error.stack_trace"].endswith("two\nlines")


def test_an_extra_field_cannot_replace_one_of_ours() -> None:
    record = record_of("true")
    record.__dict__["log.level"] = "debug"
    assert formatted(record)["log.level"] == "warning"


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.builds(object)
    | st.builds(ValueError, st.text()),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=10,
)


@given(st.text(st.characters()), ANYTHING)
def test_a_line_is_one_line_of_json_whatever_is_put_in(message: str, extra: object) -> None:
    line = formatted(record_of("%s", message, anything=extra))
    assert line["message"] == printable(message, 2000)
    assert "anything" in line


def test_a_line_is_bounded_however_much_is_put_in() -> None:
    huge = "x" * 10**6
    line = JsonFormatter().format(record_of(huge, one=huge, many=[huge] * 3, deep=[[[[[[huge]]]]]]))
    assert len(line) < 10_000


# === text ===


def test_text_is_one_line_with_the_fields_at_its_end() -> None:
    line = TextFormatter().format(record_of("two\nlines \x1b[31m", upstream="orders", note="two words", attempts=[1]))
    assert line.partition(" ")[2] == (
        'WARNING proxy.pool: two\\nlines \\x1b[31m  upstream=orders note="two words" attempts=[1]'
    )


@given(st.text(st.characters()), st.text(st.characters()))
def test_text_is_one_printable_line_whatever_is_put_in(message: str, field: str) -> None:
    assert TextFormatter().format(record_of("%s", message, field=field)).isprintable()


# === set-up ===


def test_a_terminal_gets_text_and_a_pipe_gets_json() -> None:
    for stream, is_json in ((Terminal(), False), (io.StringIO(), True)):
        configure(LogSettings(), stream)
        log.warning("hello")
        assert stream.getvalue().startswith("{") == is_json
        assert stream.getvalue().count("\n") == 1


def test_a_chosen_format_wins_over_what_the_stream_is() -> None:
    terminal = Terminal()
    configure(LogSettings(format="json"), terminal)
    log.warning("hello")
    assert lines_of(terminal)[0]["message"] == "hello"


def test_setting_up_twice_writes_each_line_once() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure(LogSettings(), first)
    configure(LogSettings(), second)
    log.warning("hello")
    assert (first.getvalue(), len(lines_of(second))) == ("", 1)


def test_the_level_can_change_while_it_runs_and_libraries_stay_quiet() -> None:
    stream = io.StringIO()
    configure(LogSettings(level="info"), stream)
    log.debug("one")
    set_level("debug")
    log.debug("two")
    logging.getLogger("aiohttp.access").info("three")
    logging.getLogger("aiohttp.server").warning("four")
    assert [line["message"] for line in lines_of(stream)] == ["two", "four"]


def test_an_unknown_level_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'loud' is no log level; there are debug, info, warning, error"):
        set_level("loud")


# === floods ===


def passed(guard: FloodGuard, created: float, *messages: str) -> list[dict[str, object]]:
    """The extra fields of the lines that pass."""
    records = [record_of(message) for message in messages]
    for record in records:
        record.created = created
    return [extra_fields(record) for record in records if guard.filter(record)]


def test_a_flood_of_one_kind_is_cut_and_says_so_on_its_last_line() -> None:
    fields = passed(FloodGuard(ACCESS), 7.5, *["not HTTP/2: %s"] * 100)
    assert len(fields) == LINES_PER_SECOND
    assert [bool(extra) for extra in fields] == [False] * (LINES_PER_SECOND - 1) + [True]
    assert "left out" in str(fields[-1]["flood"])


def test_another_kind_of_line_passes_through_a_flood() -> None:
    assert len(passed(FloodGuard(ACCESS), 7.5, *["one"] * 100, "two")) == LINES_PER_SECOND + 1


def test_what_is_no_warning_is_never_left_out() -> None:
    guard = FloodGuard(ACCESS)
    records = [log.makeRecord(log.name, logging.INFO, "f", 1, "the app dials", (), None) for _ in range(200)]
    assert all(guard.filter(record) for record in records)


def test_the_first_line_after_a_flood_says_how_many_were_left_out_once() -> None:
    guard = FloodGuard(ACCESS)
    passed(guard, 7.5, *["one"] * 100)
    passed(guard, 8.5, "two")
    assert passed(guard, 9.5, "one", "one") == [{"left_out": 100 - LINES_PER_SECOND}, {}]


def test_the_guard_counts_kinds_and_not_lines_that_differ_in_their_arguments() -> None:
    stream = io.StringIO()
    configure(LogSettings(), stream)
    guard = logging.getLogger().handlers[0].filters[0]
    assert isinstance(guard, FloodGuard)
    for number in range(100):
        record = record_of("port %d", number)
        record.created = 7.5
        logging.getLogger().handlers[0].handle(record)
    assert len(lines_of(stream)) == LINES_PER_SECOND


def test_kinds_that_never_come_again_do_not_pile_up() -> None:
    guard = FloodGuard(ACCESS)
    for second in range(300):
        passed(guard, float(second), *[f"kind {second}"] * (LINES_PER_SECOND + 1))
    assert len(guard._seen) + len(guard._left_out) <= 201


# === the access log ===


class Clock:
    """A clock that stands still, and the one timer that was asked for."""

    def __init__(self) -> None:
        self.time = 100.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def now(self) -> float:
        return self.time

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        self.due.append((self.time + delay, callback))


def rpc(
    status: int = 14, *, upstream: str = "orders", path: bytes = b"/pkg.Greeter/Hello", message: str = ""
) -> RpcRecord:
    attempts = (
        AttemptRecord(
            endpoint="10.0.0.1:80", status=14, outcome="refused", reason="first", detail="GOAWAY", seconds=0.001
        ),
        AttemptRecord(
            endpoint="10.0.0.2:80", status=status, outcome="failure", reason="goaway", detail="", seconds=0.002
        ),
    )
    return RpcRecord(
        upstream=upstream,
        path=path,
        status=status,
        message=message,
        seconds=0.0034,
        bytes_up=5,
        bytes_down=7,
        attempts=attempts,
    )


def opened_log(access: str, level: str = "info") -> tuple[AccessLog, io.StringIO, Clock]:
    stream, clock = io.StringIO(), Clock()
    values = LogSettings(access=access, level=level)  # type: ignore[arg-type]
    configure(values, stream)
    return AccessLog(values, clock.now, clock.call_later), stream, clock


@pytest.mark.parametrize(("access", "lowest"), [("all", 0), ("failures", 1), ("off", 17)])
def test_one_comparison_says_whether_an_rpc_gets_a_line(access: str, lowest: int) -> None:
    written, _, _ = opened_log(access)
    assert written.lowest == lowest
    assert [written.enabled_for(status) for status in (0, 1, 16)] == [status >= lowest for status in (0, 1, 16)]
    assert written.every_rpc == (access == "all")


def test_a_failed_rpc_tells_every_attempt() -> None:
    written, stream, _ = opened_log("failures")
    written.rpc(rpc(message="the server is going away"))
    (line,) = lines_of(stream)
    del line["@timestamp"]
    assert line == {
        "log.level": "warning",
        "logger": "sidecar.access",
        "message": "orders /pkg.Greeter/Hello UNAVAILABLE in 3.4 ms, 2 attempts: the server is going away",
        "event": "rpc",
        "upstream": "orders",
        "path": "/pkg.Greeter/Hello",
        "grpc_status": "UNAVAILABLE",
        "grpc_status_code": 14,
        "grpc_message": "the server is going away",
        "duration_ms": 3.4,
        "bytes_up": 5,
        "bytes_down": 7,
        "attempts": [
            {
                "endpoint": "10.0.0.1:80",
                "status": "UNAVAILABLE",
                "outcome": "refused",
                "reason": "first",
                "detail": "GOAWAY",
                "ms": 1.0,
            },
            {
                "endpoint": "10.0.0.2:80",
                "status": "UNAVAILABLE",
                "outcome": "failure",
                "reason": "goaway",
                "detail": "",
                "ms": 2.0,
            },
        ],
    }


def test_failures_are_written_even_when_only_errors_are() -> None:
    written, stream, _ = opened_log("failures", level="error")
    written.rpc(rpc())
    assert len(lines_of(stream)) == 1


def test_successes_are_written_only_when_all_are() -> None:
    for access, count in (("all", 1), ("failures", 0), ("off", 0)):
        written, stream, _ = opened_log(access)
        written.rpc(rpc(0))
        assert len(lines_of(stream)) == count


def test_an_outage_writes_some_lines_and_counts_the_rest_by_upstream_and_status() -> None:
    written, stream, clock = opened_log("failures")
    for _ in range(FAILURES_PER_SECOND + 30):
        written.rpc(rpc(14))
    for _ in range(12):
        written.rpc(rpc(4, upstream="prices"))
    assert len(lines_of(stream)) == FAILURES_PER_SECOND
    ((due, flush),) = clock.due
    assert due == 101.0
    clock.time = due
    flush()
    summary = lines_of(stream)[-1]
    assert summary["message"].startswith("42 more RPCs failed within a second")
    assert summary["suppressed"] == [
        {"upstream": "orders", "grpc_status": "UNAVAILABLE", "rpcs": 30},
        {"upstream": "prices", "grpc_status": "DEADLINE_EXCEEDED", "rpcs": 12},
    ]


def test_the_next_second_starts_afresh_and_brings_the_summary_first() -> None:
    written, stream, clock = opened_log("failures")
    for _ in range(FAILURES_PER_SECOND + 1):
        written.rpc(rpc())
    clock.time += 1.5
    written.rpc(rpc())
    events = [line["event"] for line in lines_of(stream)]
    assert events == ["rpc"] * FAILURES_PER_SECOND + ["rpcs_suppressed", "rpc"]
    clock.due[0][1]()
    assert len(lines_of(stream)) == len(events)  # nothing was left for the timer


@given(st.lists(st.floats(0, 0.5), max_size=300))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_written_and_counted_lines_together_are_all_failures(pauses: list[float]) -> None:
    written, stream, clock = opened_log("failures")
    for pause in pauses:
        clock.time += pause / 10
        written.rpc(rpc())
    written.flush()
    lines = lines_of(stream)
    counted = sum(item["rpcs"] for line in lines for item in line.get("suppressed", []))
    assert sum(line["event"] == "rpc" for line in lines) + counted == len(pauses)


def test_whoever_asks_for_all_lines_gets_all() -> None:
    written, stream, clock = opened_log("all")
    for _ in range(FAILURES_PER_SECOND * 2):
        written.rpc(rpc())
    assert len(lines_of(stream)) == FAILURES_PER_SECOND * 2 and not clock.due


@given(st.binary(max_size=600), st.text(st.characters(), max_size=600))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_path_and_no_message_breaks_the_line(path: bytes, message: str) -> None:
    written, stream, _ = opened_log("failures")
    written.rpc(rpc(path=path, message=message))
    assert stream.getvalue().count("\n") == 1
    (line,) = lines_of(stream)
    assert len(line["path"]) <= 200 and line["path"].isprintable()
    assert len(line["grpc_message"]) <= 300


# === printable ===


@given(st.text(st.characters()) | st.binary(), st.integers(10, 100))
def test_what_is_printable_is_one_bounded_line(value: str | bytes, longest: int) -> None:
    text = printable(value, longest)
    assert text.isprintable() and len(text) <= longest
    assert printable(text, longest) == text


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=LONGEST))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text
    assert printable(text.encode()) == text
