"""OrcaLoadReport by hand against google.protobuf on a descriptor made here, and what comes of bad trailers (LB-10)."""

from __future__ import annotations

import base64
import math
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, message_factory
from hypothesis import given
from hypothesis import strategies as st

from sidecar.rpc.load_report import (
    MALFORMED,
    REPEATED,
    TAKEN,
    TRAILER,
    LoadReport,
    build_interval,
    find_report,
    parse_report,
)
from sidecar.rpc.protobuf import Malformed

DOUBLE, UINT64 = descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE, descriptor_pb2.FieldDescriptorProto.TYPE_UINT64
PLAIN = {
    "cpu_utilization": (1, DOUBLE),
    "mem_utilization": (2, DOUBLE),
    "rps": (3, UINT64),
    "rps_fractional": (6, DOUBLE),
    "eps": (7, DOUBLE),
    "application_utilization": (9, DOUBLE),
}
MAPS = {"request_cost": 4, "utilization": 5, "named_metrics": 8}


def report_class() -> Any:
    """The message, described field by field as xds.data.orca.v3 publishes it."""
    file = descriptor_pb2.FileDescriptorProto(name="orca.proto", package="orca", syntax="proto3")
    message = file.message_type.add(name="OrcaLoadReport")
    for name, (number, kind) in PLAIN.items():
        message.field.add(name=name, number=number, type=kind, label=1)
    for name, number in MAPS.items():
        entry = "".join(word.title() for word in name.split("_")) + "Entry"
        nested = message.nested_type.add(name=entry)
        nested.options.map_entry = True
        nested.field.add(name="key", number=1, type=9, label=1)
        nested.field.add(name="value", number=2, type=1, label=1)
        message.field.add(name=name, number=number, type=11, label=3, type_name=f".orca.OrcaLoadReport.{entry}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("orca.OrcaLoadReport"))


OrcaLoadReport = report_class()
AMOUNTS = st.floats(allow_nan=False)
GROUPS = st.dictionaries(st.text(max_size=8), AMOUNTS, max_size=4)


@given(AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, GROUPS, GROUPS, GROUPS, st.integers(0, 2**64 - 1))
def test_what_protobuf_writes_is_read_as_it_was_meant(
    cpu: float,
    memory: float,
    application: float,
    rps: float,
    eps: float,
    utilization: dict[str, float],
    named: dict[str, float],
    cost: dict[str, float],
    old_rps: int,
) -> None:
    written = OrcaLoadReport(
        cpu_utilization=cpu,
        mem_utilization=memory,
        application_utilization=application,
        rps_fractional=rps,
        eps=eps,
        utilization=utilization,
        named_metrics=named,
        request_cost=cost,
        rps=old_rps,
    )
    assert parse_report(written.SerializeToString()) == LoadReport(
        cpu=cpu, memory=memory, application=application, rps=rps, eps=eps, utilization=utilization, named=named
    )


@given(st.binary(max_size=40))
def test_any_octets_are_read_as_protobuf_reads_them_or_refused(octets: bytes) -> None:
    try:
        theirs = OrcaLoadReport.FromString(octets)
    except Exception:
        return  # protobuf refuses more than we do, such as a bad request_cost that we do not look into
    try:
        ours = parse_report(octets)
    except Malformed as error:
        assert "unknown kind" in str(error)  # groups, which protobuf still skips and nobody sends
        return
    assert ours.cpu == theirs.cpu_utilization or math.isnan(ours.cpu)
    assert ours.utilization.keys() == theirs.utilization.keys()


WHOLE = OrcaLoadReport(cpu_utilization=0.5, rps_fractional=100, named_metrics={"queue": 0.25}).SerializeToString()


@pytest.mark.parametrize("size", range(1, len(WHOLE)))
def test_a_report_that_is_cut_off_is_refused_or_shorter_never_a_crash(size: int) -> None:
    try:
        report = parse_report(WHOLE[:size])
    except Malformed:
        return
    assert (report.cpu, report.rps) in ((0.5, 0.0), (0.5, 100.0))


@pytest.mark.parametrize("strip", [b"", b"="])
def test_the_trailer_may_be_padded_or_not(strip: bytes) -> None:
    value = base64.b64encode(WHOLE).rstrip(strip or None) if strip else base64.b64encode(WHOLE)
    came, report = find_report([(b"grpc-status", b"0"), (TRAILER, value)])
    assert came == TAKEN and report is not None
    assert (report.cpu, report.rps, report.metric("named_metrics.queue")) == (0.5, 100.0, 0.25)


@pytest.mark.parametrize(
    ("fields", "came"),
    [
        ([], ""),
        ([(TRAILER, b"!!!!")], MALFORMED),
        ([(TRAILER, b"A")], MALFORMED),
        ([(TRAILER, base64.b64encode(b"\x09\x00"))], MALFORMED),
        ([(TRAILER, base64.b64encode(b"\x2a\x04\x0a\x02\xff\xfe"))], MALFORMED),
        ([(TRAILER, base64.b64encode(WHOLE)), (TRAILER, base64.b64encode(WHOLE))], REPEATED),
        ([(TRAILER, base64.b64encode(WHOLE) + b"," + base64.b64encode(WHOLE))], REPEATED),
    ],
)
def test_what_is_absent_unreadable_or_said_twice_is_no_report(fields: list[tuple[bytes, bytes]], came: str) -> None:
    assert find_report(fields) == (came, None)


def test_an_empty_report_says_nothing() -> None:
    assert find_report([(TRAILER, b"")]) == (TAKEN, LoadReport())


@pytest.mark.parametrize("seconds", [0.001, 0.5, 1.0, 10.0, 300.25, 86_400.0])
def test_the_interval_that_is_asked_for_is_a_duration(seconds: float) -> None:
    asked = build_interval(seconds)
    assert asked[:1] == b"\x0a" and asked[1] == len(asked) - 2
    duration = duration_pb2.Duration.FromString(asked[2:])
    assert duration.ToMilliseconds() == round(seconds * 1000)


def test_the_values_have_the_names_that_grpc_gives_them() -> None:
    report = LoadReport(cpu=0.1, memory=0.2, application=0.3, utilization={"disk": 0.4}, named={"queue": 0.5})
    names = ("cpu_utilization", "mem_utilization", "application_utilization", "utilization.disk", "named_metrics.queue")
    assert [report.metric(name) for name in names] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert [report.metric(name) for name in ("disk", "utilization.none", "other.disk")] == [0.0, 0.0, 0.0]
