"""The messages of grpc.health.v1, against what Google's own library makes of them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from grpc_health.v1 import health_pb2
from hypothesis import given
from hypothesis import strategies as st

from sidecar.rpc.health import build_health_request, parse_health_response, serving_status_name


@given(st.text(max_size=300))
def test_request_reads_as_protobuf_reads_it(service: str) -> None:
    assert health_pb2.HealthCheckRequest.FromString(build_health_request(service)).service == service


@pytest.mark.parametrize("status", health_pb2.HealthCheckResponse.ServingStatus.values())
def test_response_of_protobuf_is_read(status: int) -> None:
    message = health_pb2.HealthCheckResponse(status=status).SerializeToString()  # type: ignore[arg-type]
    assert parse_health_response(message) == status
    assert serving_status_name(status) == health_pb2.HealthCheckResponse.ServingStatus.Name(status)  # type: ignore[arg-type]


def test_status_that_is_not_known_shows_as_its_number() -> None:
    assert serving_status_name(parse_health_response(b"\x08\x2a")) == "42"


def test_fields_that_are_not_known_are_skipped() -> None:
    unknown = b"\x12\x03abc" + b"\x19" + bytes(8) + b"\x25" + bytes(4) + b"\x30\x96\x01"
    assert parse_health_response(unknown + b"\x08\x01") == 1


@pytest.mark.parametrize("message", [b"\x08", b"\x08\xff", b"\x12\x05ab", b"\x0b", b"\x08" + b"\xff" * 11, b"\x19\x00"])
def test_message_that_is_cut_or_makes_no_sense_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError):
        parse_health_response(message)


@given(st.binary(max_size=40))
def test_any_octets_are_read_or_refused(message: bytes) -> None:
    with suppress(ValueError):
        assert parse_health_response(message) >= 0
