"""Heads as a proxy reads them and writes them: GR-01, GR-04, GR-20, GR-24, GR-42, H2-33, H2-34."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.http2.interface import Field, HeaderBlock
from sidecar.rpc import status
from sidecar.rpc.metadata import (
    NO_STATUS,
    build_request,
    build_trailers,
    build_trailers_only,
    is_grpc,
    read_request,
    read_response,
)

BASE: tuple[Field, ...] = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/pkg.Greeter/Hello"),
    (b":authority", b"orders"),
    (b"content-type", b"application/grpc+proto"),
    (b"te", b"trailers"),
)


def request(*more: Field, without: tuple[bytes, ...] = ()) -> HeaderBlock:
    return HeaderBlock(
        [field for field in BASE if field[0] not in without] + list(more), frozenset((b"authorization",))
    )


# === recognition ===


@pytest.mark.parametrize(
    "value", [b"application/grpc", b"application/grpc+proto", b"application/grpc+json", b"application/grpc;charset=x"]
)
def test_grpc_is_the_bare_word_or_followed_by_plus_or_semicolon(value: bytes) -> None:
    assert is_grpc(value)


OTHERS = (
    b"|application/grpc-web|application/grpc-web+proto|application/grpcx|application/grpc |xapplication/grpc|text/x"
)


@pytest.mark.parametrize("value", OTHERS.split(b"|"))
def test_anything_else_is_not_grpc(value: bytes) -> None:
    assert not is_grpc(value)


def test_a_request_head_is_read_once_per_block() -> None:
    block = request((b"grpc-timeout", b"250m"), (b"grpc-previous-rpc-attempts", b"2"))
    head = read_request(block)
    assert (head.method, head.path, head.authority) == (b"POST", b"/pkg.Greeter/Hello", b"orders")
    assert head.is_grpc and head.timeout == 0.25 and head.previous_attempts == 2
    assert read_request(block) is head


# === what is forwarded ===


def forwarded(block: HeaderBlock, remaining: float | None, attempts: int) -> HeaderBlock:
    return build_request(read_request(block), block, remaining, attempts)


def test_a_head_that_needs_no_change_is_forwarded_as_the_same_block() -> None:
    block = request((b"x-user", b"7"), (b"x-user", b"8"), (b"trace-bin", b"AA=="))
    assert forwarded(block, None, 0) is block


def test_te_is_added_for_grpc_and_only_for_grpc() -> None:
    assert forwarded(request(without=(b"te",)), None, 0).get(b"te") == b"trailers"
    plain = request((b"content-type", b"text/plain"), without=(b"te", b"content-type"))
    assert forwarded(plain, None, 0) is plain


def test_authority_is_built_from_host_and_stands_first() -> None:
    built = forwarded(request((b"host", b"shop"), without=(b":authority",)), None, 0)
    assert built.fields[0] == (b":authority", b"shop")
    pseudo = [name.startswith(b":") for name, _ in built.fields]
    assert pseudo == sorted(pseudo, reverse=True)


def test_authority_wins_over_host_and_both_pass() -> None:
    block = request((b"host", b"orders"))
    assert forwarded(block, None, 0) is block


def test_the_timeout_sent_is_what_is_left_and_stands_once() -> None:
    built = forwarded(request((b"grpc-timeout", b"1S")), 0.25, 0)
    assert [value for name, value in built.fields if name == b"grpc-timeout"] == [b"250000u"]


def test_a_malformed_timeout_passes_untouched_and_sets_no_deadline() -> None:
    block = request((b"grpc-timeout", b"soon"))
    assert read_request(block).timeout is None
    assert forwarded(block, None, 0) is block


def test_the_attempt_count_adds_to_what_the_app_said() -> None:
    built = forwarded(request((b"grpc-previous-rpc-attempts", b"2")), None, 1)
    assert [value for name, value in built.fields if name == b"grpc-previous-rpc-attempts"] == [b"3"]


def test_the_first_attempt_says_nothing_of_attempts() -> None:
    assert forwarded(request(), None, 0).get(b"grpc-previous-rpc-attempts") is None


def test_names_that_were_never_indexed_stay_so_in_every_rewriting() -> None:
    secret = (b"authorization", b"Bearer x")
    for block, remaining, attempts in (
        (request(secret, (b"grpc-timeout", b"1S")), 0.5, 2),
        (request(secret, without=(b"te",)), None, 0),
        (request(secret), None, 1),
    ):
        assert forwarded(block, remaining, attempts).never_indexed == frozenset((b"authorization",))


OWNED = (b"grpc-timeout", b"grpc-previous-rpc-attempts", b"te")
NAMES = st.sampled_from((b"x-a", b"cookie", b"grpc-encoding", b"grpc-foo", b"k-bin", *OWNED))
VALUES = st.sampled_from((b"", b"1", b"trailers", b"5S", b"soon", b"\xff\xfe", b"a,b"))


@given(st.lists(st.tuples(NAMES, VALUES), max_size=8), st.none() | st.floats(0.001, 1e6), st.integers(0, 3))
def test_no_field_but_the_owned_ones_is_changed_dropped_or_moved(
    more: list[Field], remaining: float | None, attempts: int
) -> None:
    block = request(*more)
    built = forwarded(block, remaining if read_request(block).timeout is not None else None, attempts)
    others = [field for field in built.fields if field[0] not in OWNED]
    assert others == [field for field in block.fields if field[0] not in OWNED]


# === responses ===


def test_a_response_head_is_read_once_per_block() -> None:
    block = HeaderBlock([(b":status", b"200"), (b"content-type", b"application/grpc"), (b"grpc-status", b"5")])
    head = read_response(block)
    assert (head.http_status, head.is_grpc, head.grpc_status) == (200, True, status.NOT_FOUND)
    assert read_response(block) is head


def test_trailers_without_a_status_say_so() -> None:
    head = read_response(HeaderBlock([(b"x-a", b"b")]))
    assert (head.http_status, head.grpc_status) == (0, NO_STATUS)


@pytest.mark.parametrize("value", [b"", b"abc", b"20", b"2000", b"+20", b" 200", b"2_0", b"9" * 5000, b"\xb2\xb2\xb2"])
def test_a_status_that_is_no_number_of_three_digits_reads_as_none(value: bytes) -> None:
    assert read_response(HeaderBlock([(b":status", value)])).http_status == 0


@given(
    st.lists(st.tuples(st.sampled_from((b":status", b"grpc-status", b"grpc-message", b"content-type")), st.binary()))
)
def test_no_response_head_makes_the_reader_raise(fields: list[Field]) -> None:
    head = read_response(HeaderBlock(fields))
    assert head.grpc_status == NO_STATUS or 0 <= head.grpc_status <= 16


# === answers that the sidecar makes ===


def test_an_answer_is_one_head_with_status_200_and_the_callers_content_type() -> None:
    built = build_trailers_only(read_request(request()), status.UNAVAILABLE, "orders: 100% gone\n")
    assert built.fields == (
        (b":status", b"200"),
        (b"content-type", b"application/grpc+proto"),
        (b"grpc-status", b"14"),
        (b"grpc-message", b"orders: 100%25 gone%0A"),
        (b"x-sidecar-error", b"true"),
    )


def test_an_answer_to_a_plain_request_is_plain_http() -> None:
    head = read_request(request((b"content-type", b"text/plain"), without=(b"content-type",)))
    built = build_trailers_only(head, status.UNAVAILABLE, "orders: gone")
    assert built.fields == ((b":status", b"503"), (b"x-sidecar-error", b"orders: gone"))
    assert build_trailers_only(head, status.DATA_LOSS, "x").get(b":status") == b"502"


def test_trailers_that_the_sidecar_makes_hold_no_pseudo_field() -> None:
    built = build_trailers(status.UNAVAILABLE, "the connection was lost")
    assert built.get(b"grpc-status") == b"14"
    assert built.get(b"x-sidecar-error") == b"true"
    assert not any(name.startswith(b":") for name, _ in built.fields)


@given(st.text(max_size=50), st.integers(0, 16))
def test_what_the_sidecar_makes_it_reads_back_itself(message: str, number: int) -> None:
    head = read_response(build_trailers_only(read_request(request()), number, message))
    assert (head.http_status, head.grpc_status, head.is_grpc) == (200, number, True)
    assert read_response(build_trailers(number, message)).grpc_status == number
