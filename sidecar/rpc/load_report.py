"""What an endpoint says of its own load: `xds.data.orca.v3.OrcaLoadReport`, in a trailer or as a message (gRFC A51).

The trailer is read and forwarded all the same: the app may want it, too. What cannot be read counts as not said.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from sidecar.http2.interface import Field
from sidecar.rpc.protobuf import BYTES, FIXED64, Malformed, read_double, read_fields, read_text

TRAILER: Final = b"endpoint-load-metrics-bin"
# Out of band: a stream of reports, one per interval.
STREAM_PATH: Final = b"/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics"

# What came of a trailer, as the metric calls it.
TAKEN: Final = "taken"
REPEATED: Final = "repeated"
MALFORMED: Final = "malformed"

_BASE64: Final = re.compile(rb"[A-Za-z0-9+/]*={0,2}")
# Numbers of the message's fields; 3 is the deprecated count of requests, 4 their costs.
_DOUBLES: Final = {1: "cpu", 2: "memory", 6: "rps", 7: "eps", 9: "application"}
_MAPS: Final = {5: "utilization", 8: "named"}


class LoadReport(Struct, kw_only=True):
    """Utilizations are shares, 1.0 for all of it, and may exceed it; `rps` and `eps` are per second. 0: not said."""

    cpu: float = 0.0
    memory: float = 0.0
    application: float = 0.0
    rps: float = 0.0
    eps: float = 0.0
    utilization: dict[str, float] = {}
    named: dict[str, float] = {}

    def metric(self, name: str) -> float:
        """The value that gRFC A114 calls `name`, such as `cpu_utilization` or `named_metrics.queue`; 0: not said."""
        group, _, key = name.partition(".")
        if key:
            return {"utilization": self.utilization, "named_metrics": self.named}.get(group, {}).get(key, 0.0)
        plain = {
            "cpu_utilization": self.cpu,
            "mem_utilization": self.memory,
            "application_utilization": self.application,
        }
        return plain.get(name, 0.0)


def find_report(fields: Iterable[Field]) -> tuple[str, LoadReport | None]:
    """The report in a trailing block, and what came of it; the empty word when there is none."""
    values = [value for name, value in fields if name == TRAILER]
    if not values:
        return "", None
    if len(values) > 1 or b"," in values[0]:
        return REPEATED, None
    try:
        return TAKEN, parse_report(decode_binary(values[0]))
    except Malformed:
        return MALFORMED, None


def decode_binary(value: bytes) -> bytes:
    """The octets of a `-bin` field: base64, padded or not. Raises Malformed."""
    if not _BASE64.fullmatch(value):
        raise Malformed("not base64")
    bare = value.rstrip(b"=")
    try:
        return binascii.a2b_base64(bare + b"=" * (-len(bare) % 4))
    except binascii.Error as error:
        raise Malformed(f"not base64: {error}") from None


def parse_report(message: bytes) -> LoadReport:
    """An OrcaLoadReport. Raises Malformed."""
    report = LoadReport()
    for number, kind, value in read_fields(message):
        if kind == FIXED64 and number in _DOUBLES and isinstance(value, bytes):
            setattr(report, _DOUBLES[number], read_double(value))
        elif kind == BYTES and number in _MAPS and isinstance(value, bytes):
            key, amount = _entry(value)
            getattr(report, _MAPS[number])[key] = amount
    return report


def build_interval(seconds: float) -> bytes:
    """An OrcaLoadReportRequest: how often reports are wanted. Whole milliseconds; its one field is a Duration."""
    whole, rest = divmod(round(seconds * 1000), 1000)
    duration = _number(1, whole) + _number(2, rest * 1_000_000)
    return b"\x0a" + _varint(len(duration)) + duration


def _entry(message: bytes) -> tuple[str, float]:
    """An entry of a map from names to doubles."""
    name, amount = "", 0.0
    for number, kind, value in read_fields(message):
        if number == 1 and kind == BYTES and isinstance(value, bytes):
            name = read_text(value)
        elif number == 2 and kind == FIXED64 and isinstance(value, bytes):
            amount = read_double(value)
    return name, amount


def _number(field: int, value: int) -> bytes:
    """A VARINT field; nothing for 0, as proto3 has it."""
    return bytes((field << 3,)) + _varint(value) if value else b""


def _varint(value: int) -> bytes:
    octets = bytearray()
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)
