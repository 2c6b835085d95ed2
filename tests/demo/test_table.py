"""The table and the screen with fixed input: what stands where, what is added up, what is cut off, what is redrawn."""

from __future__ import annotations

import io

import pytest
from msgspec.structs import replace

from sidecar.demo.admin import Endpoint
from sidecar.demo.screen import Screen, wants_color
from sidecar.demo.table import Board

READY = Endpoint("127.0.0.1:1", "greeter-1", "healthy", True, "ready", 2, 1200, 0, 0.0205, 0.0389, 9.0)
DEAD = Endpoint(
    "127.0.0.1:2", "greeter-2", "healthy", False, "not connected: connection refused", 0, 3, 1, 0.02, 0.03, 9.0
)


def life(name: str = "greeter-1", successes: int = 0, failures: int = 0, age: float = 1.0) -> Endpoint:
    return Endpoint("127.0.0.1:1", name, "healthy", True, "ready", 0, successes, failures, 0.02, 0.03, age)


def board_of(*endpoints: Endpoint) -> Board:
    board = Board()
    board.update({endpoint.id: endpoint for endpoint in endpoints})
    return board


def test_every_instance_has_a_line_with_its_state_and_the_reason() -> None:
    assert board_of(READY, DEAD).lines(color=False, width=200) == [
        "INSTANCE   ADDRESS      RPCS  ERRORS  IN FLIGHT      P50      P99  STATE    WHY",
        "greeter-1  127.0.0.1:1  1200       0          2  20.5 ms  38.9 ms  serving  ready",
        "greeter-2  127.0.0.1:2     4       1          0    20 ms    30 ms  out      not connected: connection refused",
    ]


def test_only_the_state_is_colored() -> None:
    _, serving, out = board_of(READY, DEAD).lines(color=True, width=200)
    assert serving.endswith("\x1b[32mserving\x1b[0m  ready")
    assert "\x1b[31mout\x1b[0m      not connected" in out
    assert serving.count("\x1b") == out.count("\x1b") == 2


@pytest.mark.parametrize("width", [10, 70, 76, 80])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    assert max(map(len, board_of(READY, DEAD).lines(color=False, width=width))) <= width


def test_a_cut_through_the_state_leaves_no_color_open() -> None:
    for width in range(10, 120):
        for line in board_of(READY, DEAD).lines(color=True, width=width)[1:]:
            assert line.count("\x1b[") in (0, 2)


def test_the_lives_of_an_instance_are_added_up() -> None:
    board = board_of(life(successes=100, failures=1, age=50.0))
    board.update({"greeter-1": life(successes=10, age=0.5)})
    board.update({"greeter-1": life(successes=20, age=1.5)})
    assert (board.rows["greeter-1"].rpcs, board.rows["greeter-1"].errors) == (121, 1)


def test_an_instance_that_left_is_shown_as_gone_until_others_have_left_after_it() -> None:
    board = board_of(*(life(f"greeter-{number}") for number in (1, 2, 3, 10)))
    board.update({"greeter-10": life("greeter-10")})
    assert [(row.name, row.state) for row in board.rows.values()] == [
        ("greeter-2", "gone"),
        ("greeter-3", "gone"),
        ("greeter-10", "serving"),
    ]


def test_an_ejected_instance_is_called_so() -> None:
    board = board_of(replace(READY, state="ejected"))
    assert [row.state for row in board.rows.values()] == ["ejected"]


# === the screen ===


def test_a_pipe_gets_plain_lines_only() -> None:
    out = io.StringIO()
    screen = Screen(out, live=False, color=False)
    screen.say("One.\nTwo.", strong=True)
    screen.draw(["table"])
    screen.show_table(["table"])
    screen.leave(["table"])
    first, second, table = out.getvalue().splitlines()
    assert first.endswith(" s] One.")
    assert second == " " * first.index("One.") + "Two."
    assert table.strip() == "table"
    assert "\x1b" not in out.getvalue()


def test_a_terminal_gets_the_table_drawn_over_itself() -> None:
    out = io.StringIO()
    screen = Screen(out, live=True, color=False)
    screen.draw(["heading", "row"])
    assert out.getvalue() == "\nheading\nrow\n"
    screen.draw(["heading", "other"])
    assert out.getvalue() == "\nheading\nrow\n\x1b[3A\r\x1b[J\nheading\nother\n"


def test_a_sentence_goes_where_the_table_was() -> None:
    out = io.StringIO()
    screen = Screen(out, live=True, color=False)
    screen.draw(["table"])
    screen.say("One.")
    assert out.getvalue().startswith("\ntable\n\x1b[2A\r\x1b[J[")


def test_the_last_table_stays_above_what_is_said_after_it() -> None:
    out = io.StringIO()
    screen = Screen(out, live=True, color=False)
    screen.leave(["table"])
    screen.say("The end.")
    assert out.getvalue().startswith("\ntable\n[")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("out", "refused", "environment", "wanted"),
    [
        (Terminal(), False, {"TERM": "xterm"}, True),
        (Terminal(), True, {"TERM": "xterm"}, False),
        (Terminal(), False, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (Terminal(), False, {"TERM": "xterm", "NO_COLOR": ""}, True),
        (Terminal(), False, {"TERM": "dumb"}, False),
        (Terminal(), False, {}, False),
        (io.StringIO(), False, {"TERM": "xterm"}, False),
    ],
)
def test_color_needs_a_terminal_and_nobody_against_it(
    out: io.StringIO, refused: bool, environment: dict[str, str], wanted: bool
) -> None:
    assert wants_color(out, refused, environment) == wanted
