"""Durations and sizes: what operators write, and that it comes back as it was written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.quantity import (
    MAX_DURATION,
    MAX_SIZE,
    build_duration,
    build_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("1.5s", 1.5),
        ("2m", 120.0),
        ("1h", 3600.0),
        ("5", 5.0),
        ("0.25", 0.25),
        ("0", 0.0),
        ("9ms", 0.009),
    ],
)
def test_a_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("16KiB", 16_384),
        ("4MiB", 4_194_304),
        ("1GB", 10**9),
        ("1.5KiB", 1536),
        ("65535", 65_535),
        ("12B", 12),
        ("3KB", 3000),
    ],
)
def test_a_size_is_read_in_octets(text: str, octets: int) -> None:
    assert parse_size(text) == octets


@pytest.mark.parametrize(
    "text", ["", "-1s", "1 s", "1d", "s", "1e3", "1.s", ".5s", "1m30s", "٣s", "1s\n", "9" * 50, "1_000"]
)
def test_what_is_not_a_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "-1", "1.5B", "0.1KiB", "4Mi", "1 MiB", "٣", "MiB", "9" * 30])
def test_what_is_not_a_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_size(text)


def test_the_unit_of_another_program_is_answered_with_ours() -> None:
    with pytest.raises(ValueError, match="did you mean 4MiB"):
        parse_size("4Mi")


def test_a_duration_beyond_ten_years_is_refused() -> None:
    with pytest.raises(ValueError, match="must be at most 87600h"):
        parse_duration("87601h")


@given(st.floats(min_value=0, max_value=MAX_DURATION, allow_nan=False))
def test_every_duration_is_written_so_that_it_reads_the_same(seconds: float) -> None:
    text = build_duration(seconds)
    if len(text) <= 40:  # the denormals of a float are longer than any text that is accepted
        assert parse_duration(text) == seconds


@given(st.integers(min_value=0, max_value=10**7))
def test_every_millisecond_is_exact(count: int) -> None:
    assert parse_duration(f"{count}ms") == count / 1000


@given(st.integers(min_value=0, max_value=MAX_SIZE))
def test_every_size_is_written_so_that_it_reads_the_same(octets: int) -> None:
    assert parse_size(build_size(octets)) == octets


@given(st.text(max_size=60))
def test_any_text_is_a_quantity_or_a_value_error(text: str) -> None:
    for parse, ceiling in ((parse_duration, MAX_DURATION), (parse_size, MAX_SIZE)):
        try:
            value = parse(text)
        except ValueError as error:
            assert str(error)
        else:
            assert 0 <= value <= ceiling
