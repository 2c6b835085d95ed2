"""Status codes and messages: GR-21, GR-22 and the tables for resets and HTTP statuses."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.http2 import constants as h2
from sidecar.rpc import outcome, status

# Every error code of RFC 9113 and the status that gRPC's protocol text (and grpc-go, where it is silent) gives it.
RESETS = {
    h2.NO_ERROR: status.INTERNAL,
    h2.PROTOCOL_ERROR: status.INTERNAL,
    h2.INTERNAL_ERROR: status.INTERNAL,
    h2.FLOW_CONTROL_ERROR: status.INTERNAL,
    h2.SETTINGS_TIMEOUT: status.INTERNAL,
    h2.STREAM_CLOSED: status.INTERNAL,
    h2.FRAME_SIZE_ERROR: status.INTERNAL,
    h2.REFUSED_STREAM: status.UNAVAILABLE,
    h2.CANCEL: status.CANCELLED,
    h2.COMPRESSION_ERROR: status.INTERNAL,
    h2.CONNECT_ERROR: status.INTERNAL,
    h2.ENHANCE_YOUR_CALM: status.RESOURCE_EXHAUSTED,
    h2.INADEQUATE_SECURITY: status.PERMISSION_DENIED,
    h2.HTTP_1_1_REQUIRED: status.INTERNAL,
}

HTTP = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 431: 13, 502: 14, 503: 14, 504: 14}


@pytest.mark.parametrize("code", RESETS)
def test_each_reset_has_the_status_of_the_protocol_text(code: int) -> None:
    assert status.status_of_reset(code, deadline_passed=False) == RESETS[code]


def test_every_error_code_of_the_rfc_is_in_that_test() -> None:
    assert set(RESETS) == set(h2.ERROR_NAMES)


@given(st.integers(min_value=0x0E, max_value=2**32 - 1))
def test_an_unknown_reset_is_internal_as_the_rfc_takes_it(code: int) -> None:
    assert status.status_of_reset(code, deadline_passed=False) == status.INTERNAL


def test_a_cancel_after_the_deadline_is_the_deadline() -> None:
    assert status.status_of_reset(h2.CANCEL, deadline_passed=True) == status.DEADLINE_EXCEEDED


@pytest.mark.parametrize("code", sorted(set(RESETS) - {h2.CANCEL}))
def test_no_other_reset_becomes_the_deadline(code: int) -> None:
    assert status.status_of_reset(code, deadline_passed=True) == RESETS[code]


def test_an_http_status_without_grpc_status_maps_by_the_published_table() -> None:
    mapped = {code: status.status_of_http(code) for code in range(1000)}
    assert mapped == {code: HTTP.get(code, status.UNKNOWN) for code in range(1000)}


@pytest.mark.parametrize("number", range(17))
def test_a_status_on_the_wire_reads_back(number: int) -> None:
    assert status.parse_status(b"%d" % number) == number
    assert status.status_name(number) == status.STATUS_NAMES[number]


@pytest.mark.parametrize(
    "value", [b"", b"17", b"99", b"-1", b"+1", b" 0", b"0 ", b"OK", b"1.0", b"000", b"\xb2", b"9" * 5000]
)
def test_what_is_no_status_reads_as_unknown(value: bytes) -> None:
    assert status.parse_status(value) == status.UNKNOWN


def test_a_status_that_nobody_defined_shows_as_its_number() -> None:
    assert status.status_name(42) == "42"
    assert status.status_name(-1) == "-1"


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        ("plain words, 'quoted' ~", b"plain words, 'quoted' ~"),
        ("100%", b"100%25"),
        ("two\nlines\ttab", b"two%0Alines%09tab"),
        ("\x7f", b"%7F"),
        ("é", b"%C3%A9"),
        ("日", b"%E6%97%A5"),
        ("", b""),
    ],
)
def test_a_message_is_percent_encoded_utf8(text: str, wire: bytes) -> None:
    assert status.encode_message(text) == wire


@given(st.text())
def test_a_message_decodes_to_itself_and_is_a_legal_field_value(text: str) -> None:
    wire = status.encode_message(text)
    assert all(0x20 <= byte <= 0x7E for byte in wire)
    assert unquote_to_bytes(wire) == text.encode("utf-8", "replace")


@given(st.characters(categories=["Cs"]))
def test_a_message_that_is_no_unicode_does_not_fail(text: str) -> None:
    assert status.encode_message(text) == b"?"


# === outcomes ===

AGAINST_THE_ENDPOINT = {status.UNKNOWN, status.INTERNAL, status.UNAVAILABLE, status.DATA_LOSS}


@pytest.mark.parametrize("number", range(17))
def test_only_statuses_that_speak_against_the_endpoint_count_as_its_failure(number: int) -> None:
    if number == status.DEADLINE_EXCEEDED:
        expected = outcome.TIMEOUT
    else:
        expected = outcome.FAILURE if number in AGAINST_THE_ENDPOINT else outcome.SUCCESS
    assert outcome.outcome_of_status(number) == expected


def test_every_outcome_has_a_name() -> None:
    numbers = (
        outcome.SUCCESS,
        outcome.FAILURE,
        outcome.TIMEOUT,
        outcome.RESET,
        outcome.REFUSED,
        outcome.CANCELLED,
    )
    names = ("success", "failure", "timeout", "reset", "refused", "cancelled")
    assert [outcome.OUTCOME_NAMES[number] for number in numbers] == list(names)


@pytest.mark.parametrize("number", status.PLAIN_STATUS)
def test_what_the_sidecar_makes_itself_has_an_http_error_for_plain_callers(number: int) -> None:
    assert 400 <= status.PLAIN_STATUS[number] < 600
