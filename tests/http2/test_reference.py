"""What the reference codec alone promises."""

from __future__ import annotations

from sidecar.http2 import constants as c
from sidecar.http2.interface import CodecSettings, Sink
from sidecar.http2.reference import ReferenceCodec
from sidecar.http2.reference_state import CLOSED_STREAMS_REMEMBERED
from tests import frames
from tests.http2.script import REQUEST, Script, whole


def test_it_shows_its_role_its_streams_and_its_window() -> None:
    assert repr(ReferenceCodec(c.SERVER, CodecSettings(), Sink())) == (
        "<ReferenceCodec SERVER 0 streams, receive window 4194304>"
    )


def test_streams_that_are_gone_leave_a_bounded_memory() -> None:
    script = Script(ReferenceCodec, c.SERVER, CodecSettings(), whole)
    for number in range(CLOSED_STREAMS_REMEMBERED + 10):
        script.codec.reset_stream(script.request(2 * number + 1), c.CANCEL)
        script.sink.streams.clear()
    script.sent()
    assert isinstance(script.codec, ReferenceCodec)
    assert len(script.codec._closed) == CLOSED_STREAMS_REMEMBERED
    script.receive(frames.data(1, b"very late"))
    assert script.sent() == []
    script.request(2 * CLOSED_STREAMS_REMEMBERED + 101, fields=REQUEST)
