"""grpc-timeout on the wire: GR-40 to GR-42."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.rpc.deadline import LONGEST, encode_timeout, parse_timeout

# The slack of a float that was multiplied by a unit once.
CLOSE = 1e-9


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"1H", 3600.0),
        (b"2M", 120.0),
        (b"3S", 3.0),
        (b"250m", 0.25),
        (b"500u", 0.0005),
        (b"7n", 7e-9),
        (b"0S", 0.0),
        (b"00000001S", 1.0),
        (b"99999999H", 99_999_999 * 3600.0),
    ],
)
def test_a_timeout_is_one_to_eight_digits_and_a_unit(value: bytes, seconds: float) -> None:
    assert parse_timeout(value) == pytest.approx(seconds)


MALFORMED = b"|S|1|123456789S|-1S|+1S| 1S|1 S|1S |1s|1h|1.5S|1e3S|SS|1SS|\xd9\xa3S|0x1S|1_0S|\x001S".split(b"|")


@pytest.mark.parametrize("value", MALFORMED)
def test_anything_else_is_malformed_and_sets_no_deadline(value: bytes) -> None:
    assert parse_timeout(value) is None


@given(st.binary(max_size=12))
def test_no_octets_make_the_parser_raise(value: bytes) -> None:
    seconds = parse_timeout(value)
    assert seconds is None or 0.0 <= seconds <= LONGEST


@pytest.mark.parametrize(
    ("seconds", "value"),
    [
        (0.05, b"50000000n"),
        (0.25, b"250000u"),
        (99.0, b"99000000u"),
        (100.0, b"100000m"),
        (5e5, b"500000S"),
        (2e8, b"3333333M"),
        (1e10, b"2777777H"),
        (0.0, b"1n"),
        (-5.0, b"1n"),
        (1e30, b"99999999H"),
    ],
)
def test_what_is_left_is_written_in_the_finest_unit_of_eight_digits(seconds: float, value: bytes) -> None:
    assert encode_timeout(seconds) == value


@given(st.floats(min_value=1e-9, max_value=LONGEST))
def test_upstream_never_gets_longer_than_is_left_nor_less_by_more_than_one_unit(seconds: float) -> None:
    value = encode_timeout(seconds)
    sent = parse_timeout(value)
    assert sent is not None
    unit = parse_timeout(b"1" + value[-1:])
    assert unit is not None
    assert sent <= seconds * (1 + CLOSE)
    assert seconds - sent <= unit * (1 + CLOSE) + seconds * CLOSE


@given(st.integers(min_value=1, max_value=99_999_999), st.sampled_from(b"HMSmun"))
def test_a_timeout_that_nothing_was_taken_from_keeps_its_length_to_the_nanosecond(count: int, unit: int) -> None:
    seconds = parse_timeout(b"%d%c" % (count, unit))
    assert seconds is not None
    again = parse_timeout(encode_timeout(seconds))
    assert again == pytest.approx(seconds, rel=1e-6, abs=1.5e-9)
