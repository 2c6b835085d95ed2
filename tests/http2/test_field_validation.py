"""The field rules as pure functions: the oracle that the codecs are measured by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.http2.field_validation import content_length, malformed_request, malformed_response, malformed_trailers
from tests.http2 import corpus
from tests.http2.script import REQUEST, TRAILERS

LEGAL_VALUE = st.binary(max_size=40).filter(lambda value: not set(value) & {0, 10, 13} and value == value.strip(b" \t"))


@pytest.mark.parametrize("name", corpus.MALFORMED_REQUESTS)
def test_malformed_requests_are_refused_with_a_reason(name: str) -> None:
    assert malformed_request(corpus.MALFORMED_REQUESTS[name])


@pytest.mark.parametrize("name", corpus.MALFORMED_RESPONSES)
def test_malformed_responses_are_refused_with_a_reason(name: str) -> None:
    assert malformed_response(corpus.MALFORMED_RESPONSES[name])


@pytest.mark.parametrize("name", corpus.MALFORMED_TRAILERS)
def test_malformed_trailers_are_refused_with_a_reason(name: str) -> None:
    assert malformed_trailers(corpus.MALFORMED_TRAILERS[name])


@pytest.mark.parametrize("name", corpus.ODD_REQUESTS)
def test_odd_but_legal_requests_pass(name: str) -> None:
    assert malformed_request(corpus.ODD_REQUESTS[name]) is None


@pytest.mark.parametrize("name", corpus.ODD_RESPONSES)
def test_odd_but_legal_responses_pass(name: str) -> None:
    assert malformed_response(corpus.ODD_RESPONSES[name]) is None


def test_no_reason_repeats_a_value() -> None:
    for fields in corpus.MALFORMED_REQUESTS.values():
        reason = malformed_request(fields)
        assert reason is not None
        assert "evil" not in reason


@given(LEGAL_VALUE)
def test_any_legal_value_passes_everywhere(value: bytes) -> None:
    assert malformed_request((*REQUEST, (b"x-any", value))) is None
    assert malformed_trailers((*TRAILERS, (b"x-any", value))) is None


@given(st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=12)), max_size=8))
def test_any_octets_get_an_answer(fields: list[tuple[bytes, bytes]]) -> None:
    for rule in (malformed_request, malformed_response, malformed_trailers):
        assert rule(fields) is None or rule(fields)


def test_content_length_is_read_where_it_is_given() -> None:
    assert content_length(corpus.ODD_REQUESTS["content-length"]) == 5
    assert content_length(REQUEST) is None
