"""gRPC's frame around a message, read at every split."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.rpc.message import LARGEST, MessageReader, MessageUnreadable, build_message


@given(st.lists(st.binary(max_size=40), max_size=6), st.data())
def test_messages_come_out_whole_however_they_were_cut(messages: list[bytes], data: st.DataObject) -> None:
    wire = b"".join(build_message(message) for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=5)))
    reader = MessageReader()
    read = []
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        read += reader.read(wire[start:end])
    assert read == messages


def test_compressed_message_is_refused() -> None:
    with pytest.raises(MessageUnreadable, match="compressed"):
        MessageReader().read(b"\1\0\0\0\1x")


def test_message_that_is_too_large_is_refused_before_it_is_here() -> None:
    with pytest.raises(MessageUnreadable, match=f"{LARGEST + 1} octets"):
        MessageReader().read(b"\0" + (LARGEST + 1).to_bytes(4, "big"))


def test_largest_message_is_taken() -> None:
    assert MessageReader().read(build_message(b"x" * LARGEST)) == [b"x" * LARGEST]
