"""`${VAR}` in a value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.variable import fill, has_variable

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
VALUES = st.text(max_size=20)


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("${HOST}:${PORT}", "mesh:8500"),
        ("${NONE:-127.0.0.1}:1", "127.0.0.1:1"),
        ("${EMPTY:-fallback}", "fallback"),
        ("${EMPTY}", ""),
        ("${NONE:-}", ""),
        ("${NONE:-a:-b}", "a:-b"),
        ("$${HOST}", "${HOST}"),
        ("$HOST $ {HOST}", "$HOST $ {HOST}"),
    ],
)
def test_references_are_replaced(text: str, filled: str) -> None:
    assert fill(text, {"HOST": "mesh", "PORT": "8500", "EMPTY": ""}) == (filled, [])


def test_an_unset_variable_without_a_default_is_named() -> None:
    assert fill("${A}${B}", {"B": "b"})[1] == ["the environment variable A is not set; set it, or write ${A:-default}"]


@pytest.mark.parametrize("text", ["${}", "${1A}", "${A", "${A:?x}", "${ A }", "a${"])
def test_what_is_no_reference_is_explained(text: str) -> None:
    (sentence,) = fill(text, {"A": "a"})[1]
    assert "write ${NAME}" in sentence


@given(VALUES)
def test_a_value_is_not_filled_a_second_time(value: str) -> None:
    assert fill("${A}", {"A": value, "HOST": "never"}) == (value, [])


@given(NAMES, VALUES, VALUES)
def test_the_environment_wins_over_the_default(name: str, value: str, default: str) -> None:
    default = default.replace("}", "")
    filled, sentences = fill(f"<${{{name}:-{default}}}>", {name: value})
    assert (filled, sentences) == (f"<{value or default}>", [])


@given(st.text(alphabet="${}:-AB_\n ", max_size=30))
def test_any_text_is_filled_or_explained(text: str) -> None:
    filled, sentences = fill(text, {"A": "a"})
    if not has_variable(text):
        assert (filled, sentences) == (text, [])
