"""Credit, both levels and both ways (H2-40 to H2-51)."""

from __future__ import annotations

import pytest

from sidecar.http2 import constants as c
from sidecar.http2.errors import LocalProtocolError
from sidecar.http2.interface import Stream
from tests import frames
from tests.http2.conftest import MakeScript
from tests.http2.script import REQUEST, TRAILERS, Script

WINDOW = c.SETTINGS_INITIAL_WINDOW_SIZE


def _updates(script: Script) -> list[tuple[int, int]]:
    """(stream, increment) of each WINDOW_UPDATE written since the last call."""
    return [(one.stream_id, one.increment) for one in script.sent("WindowUpdate")]


# -- what we may send -----------------------------------------------------------------------------------


def _sending(client: MakeScript, *settings: tuple[int, int]) -> tuple[Script, Stream]:
    script = client()
    script.receive(frames.settings(*settings))
    stream = script.open()
    script.sent()
    script.heard()
    return script, stream


def test_data_beyond_the_stream_window_stays_with_the_caller(client: MakeScript) -> None:
    script, stream = _sending(client, (WINDOW, 10))
    assert script.codec.send_data(stream, b"0123456789abc", True) == 10
    assert [(one.data, one.end_stream) for one in script.sent()] == [(b"0123456789", False)]
    script.receive(frames.window_update(1, 100))
    assert script.heard() == [("window", 1)]
    assert script.codec.send_data(stream, b"0123456789abc", True, 10) == 3
    assert [(one.data, one.end_stream) for one in script.sent()] == [(b"abc", True)]


def test_progress_is_made_octet_by_octet(client: MakeScript) -> None:
    script, stream = _sending(client, (WINDOW, 0))
    sent = script.codec.send_data(stream, b"slow", True)
    for _ in range(4):
        script.receive(frames.window_update(1, 1))
        assert script.heard() == [("window", 1)]
        sent += script.codec.send_data(stream, b"slow", True, sent)
    assert [(one.data, one.end_stream) for one in script.sent()] == [
        (b"s", False),
        (b"l", False),
        (b"o", False),
        (b"w", True),
    ]


def test_the_connection_window_binds_all_streams(client: MakeScript) -> None:
    script, first = _sending(client, (WINDOW, 1_000_000))
    second = script.open()
    assert script.codec.send_data(first, bytes(60_000), False) == 60_000
    assert script.codec.send_data(second, bytes(60_000), False) == 5_535
    script.receive(frames.window_update(3, 1000))
    assert script.heard() == [], "the stream's window was not what held it"
    script.receive(frames.window_update(0, 1000))
    assert script.heard() == [("window", 0)]
    assert script.codec.send_data(second, bytes(60_000), False) == 1000


def test_nobody_is_told_of_windows_that_hold_nothing_up(client: MakeScript) -> None:
    script, stream = _sending(client)
    script.codec.send_data(stream, b"little", False)
    script.receive(frames.window_update(1, 10), frames.window_update(0, 10))
    assert script.heard() == []


def test_settings_change_the_windows_of_open_streams(client: MakeScript) -> None:
    script, stream = _sending(client, (WINDOW, 10))
    assert script.codec.send_data(stream, bytes(30), False) == 10
    script.receive(frames.settings((WINDOW, 4)), frames.window_update(1, 6))
    assert script.heard("window") == [], "4 - 10 + 6 is nothing yet"
    assert script.codec.send_data(stream, bytes(20), False) == 0
    script.receive(frames.settings((WINDOW, 9)))
    assert script.heard() == [("settings",), ("window", 0)]
    assert script.codec.send_data(stream, bytes(20), False) == 5


def test_an_empty_end_needs_no_window(client: MakeScript) -> None:
    script, stream = _sending(client, (WINDOW, 10))
    script.codec.send_data(stream, bytes(10), False)
    script.receive(frames.settings((WINDOW, 0)))
    script.sent()
    assert script.codec.send_data(stream, b"", True) == 0
    assert [(one.kind, one.data, one.end_stream) for one in script.sent()] == [("Data", b"", True)]
    assert stream.local_closed


def test_end_stream_waits_for_the_last_octet(client: MakeScript) -> None:
    script, stream = _sending(client, (WINDOW, 4))
    script.codec.send_data(stream, b"12345", True)
    assert [one.end_stream for one in script.sent()] == [False]
    assert not stream.local_closed


@pytest.mark.parametrize(("peer_size", "largest"), [(16_384, 16_384), (50_000, 16_384)])
def test_data_frames_are_of_a_size_that_shares_well(client: MakeScript, peer_size: int, largest: int) -> None:
    script, stream = _sending(client, (c.SETTINGS_MAX_FRAME_SIZE, peer_size))
    assert script.codec.send_data(stream, bytes(40_000), True) == 40_000
    sent = script.sent()
    assert [len(one.data) for one in sent] == [largest, largest, 40_000 - 2 * largest]
    assert [one.end_stream for one in sent] == [False, False, True]


def test_data_before_the_offset_is_not_sent(client: MakeScript) -> None:
    script, stream = _sending(client)
    assert script.codec.send_data(stream, b"0123456789", True, 5) == 5
    assert [one.data for one in script.sent()] == [b"56789"]


def test_limited_output_takes_no_more_than_allowed(client: MakeScript) -> None:
    script, stream = _sending(client)
    script.codec.limit_output(10)
    assert script.codec.send_data(stream, b"12345678", False) == 8
    assert script.codec.send_data(stream, b"12345678", False) == 2
    assert script.codec.send_data(stream, b"12345678", False) == 0
    assert script.codec.send_data(stream, b"", True) == 0
    assert stream.local_closed, "an empty end is always taken"
    script.codec.limit_output(100)
    other = script.open()
    assert script.codec.send_data(other, b"12345678", True) == 8


def test_window_updates_do_not_overflow_a_stream(client: MakeScript) -> None:
    script, _ = _sending(client)
    script.receive(frames.window_update(1, 2**31 - 1))
    assert script.heard() == [("reset", 1, c.FLOW_CONTROL_ERROR, False)]
    assert script.resets() == [(1, c.FLOW_CONTROL_ERROR)]


def test_window_updates_do_not_overflow_the_connection(client: MakeScript) -> None:
    assert client().breaks(frames.window_update(0, 2**31 - 1)) == c.FLOW_CONTROL_ERROR


def test_settings_do_not_overflow_a_stream(client: MakeScript) -> None:
    script, _ = _sending(client)
    script.receive(frames.window_update(1, 1000))
    assert script.breaks(frames.settings((WINDOW, 2**31 - 1))) == c.FLOW_CONTROL_ERROR


def test_settings_cannot_overflow_a_stream_that_is_gone(client: MakeScript) -> None:
    script, stream = _sending(client)
    script.receive(frames.window_update(1, 2**31 - 1 - 65_535))
    script.codec.reset_stream(stream, c.CANCEL)
    script.receive(frames.settings((WINDOW, 1_000_000)))
    assert script.heard() == [("settings",)]


def test_a_window_update_by_zero_resets_the_stream(client: MakeScript) -> None:
    script, _ = _sending(client)
    script.receive(frames.window_update(1, 0))
    assert script.heard() == [("reset", 1, c.PROTOCOL_ERROR, False)]


def test_a_window_update_by_zero_breaks_the_connection(client: MakeScript) -> None:
    assert client().breaks(frames.window_update(0, 0)) == c.PROTOCOL_ERROR


def test_a_window_update_on_a_closed_stream_is_nothing(server: MakeScript) -> None:
    script = server()
    script.answer(script.request(1, end_stream=True), end_stream=True)
    script.sent()
    script.heard()
    script.receive(frames.window_update(1, 10))
    assert (script.heard(), script.sent()) == ([], [])


# -- what the peer may send -----------------------------------------------------------------------------


def _receiving(server: MakeScript) -> tuple[Script, Stream]:
    script = server(stream_window=100_000, connection_window=200_000)
    stream = script.request(1)
    script.heard()
    return script, stream


def test_more_than_the_stream_window_resets_the_stream(server: MakeScript) -> None:
    script, _ = _receiving(server)
    for _ in range(10):
        script.receive(frames.data(1, bytes(10_000)))
    script.receive(frames.data(1, b"x"))
    assert script.heard()[10:] == [("reset", 1, c.FLOW_CONTROL_ERROR, False)]
    assert script.resets() == [(1, c.FLOW_CONTROL_ERROR)]


def test_more_than_the_connection_window_breaks_the_connection(server: MakeScript) -> None:
    script, _ = _receiving(server)
    script.codec.hold_credit(True)
    script.request(3)
    script.request(5)
    full = b"".join(frames.data(1, bytes(10_000)) + frames.data(3, bytes(10_000)) for _ in range(10))
    script.receive(full)
    assert script.breaks(frames.data(5, b"x")) == c.FLOW_CONTROL_ERROR


def test_stream_credit_comes_only_from_acknowledgement_and_lazily(server: MakeScript) -> None:
    script, stream = _receiving(server)
    script.receive(frames.data(1, bytes(10_000)) * 6)
    assert _updates(script) == []
    script.codec.acknowledge_received_data(stream, 49_999)
    assert _updates(script) == []
    script.codec.acknowledge_received_data(stream, 1)
    assert _updates(script) == [(1, 50_000)]


def test_connection_credit_comes_on_receipt_and_lazily(server: MakeScript) -> None:
    script, _ = _receiving(server)
    script.receive(frames.data(1, bytes(10_000)) * 9)
    assert script.codec.receive_window == 200_000
    script.request(3)
    script.sent()
    script.receive(frames.data(3, bytes(9_999)))
    assert _updates(script) == []
    script.receive(frames.data(3, b"x"))
    assert _updates(script) == [(0, 100_000)]


def test_held_credit_waits_for_acknowledgement(server: MakeScript) -> None:
    script, stream = _receiving(server)
    script.codec.hold_credit(True)
    script.receive(frames.data(1, bytes(10_000)) * 3)
    assert script.codec.receive_window == 170_000
    script.codec.acknowledge_received_data(stream, 10_000)
    assert script.codec.receive_window == 180_000
    script.codec.reset_stream(stream, c.CANCEL)
    script.codec.acknowledge_received_data(stream, 20_000)
    assert script.codec.receive_window == 200_000


def test_letting_go_of_held_credit_gives_it_back_once(server: MakeScript) -> None:
    script, stream = _receiving(server)
    script.codec.hold_credit(True)
    script.receive(frames.data(1, bytes(16_000)))
    script.codec.hold_credit(False)
    assert script.codec.receive_window == 200_000
    script.codec.acknowledge_received_data(stream, 16_000)
    assert script.codec.receive_window == 200_000


def test_octets_credited_before_the_hold_are_not_credited_again(server: MakeScript) -> None:
    script, stream = _receiving(server)
    script.receive(frames.data(1, bytes(10_000)))
    script.codec.hold_credit(True)
    script.receive(frames.data(1, bytes(10_000)))
    script.codec.acknowledge_received_data(stream, 20_000)
    assert script.codec.receive_window == 200_000


def test_acknowledging_more_than_was_delivered_is_our_bug(server: MakeScript) -> None:
    script, stream = _receiving(server)
    script.receive(frames.data(1, b"abc", padding=200))
    with pytest.raises(LocalProtocolError):
        script.codec.acknowledge_received_data(stream, 4)


def test_no_stream_credit_is_sent_to_who_has_finished(server: MakeScript) -> None:
    script, stream = _receiving(server)
    script.receive(frames.data(1, bytes(10_000)) * 6, frames.data(1, b"", end_stream=True))
    script.sent()
    script.codec.acknowledge_received_data(stream, 60_000)
    assert script.sent() == []


def test_padding_is_credited_without_anybody_asking(server: MakeScript) -> None:
    script, stream = _receiving(server)
    script.codec.hold_credit(True)
    script.receive(frames.data(1, b"", padding=255) * 100)
    script.receive(frames.data(1, b"x" * 16_000, padding=255) * 2)
    script.codec.acknowledge_received_data(stream, 32_000)
    assert script.codec.receive_window == 200_000
    script.receive(frames.data(1, bytes(16_000)) * 5)
    assert script.heard("reset") == []


@pytest.mark.parametrize("hold", [False, True])
def test_data_for_streams_that_are_gone_is_credited(server: MakeScript, hold: bool) -> None:
    script, stream = _receiving(server)
    script.codec.hold_credit(hold)
    script.codec.reset_stream(stream, c.CANCEL)
    script.receive(frames.data(1, bytes(16_000), padding=100) * 30)
    assert script.codec.receive_window == 200_000
    assert sum(increment for _, increment in _updates(script)) >= 30 * 16_101 - 100_000


def test_data_that_is_a_stream_error_is_credited(server: MakeScript) -> None:
    script, _ = _receiving(server)
    script.codec.hold_credit(True)
    script.request(3, end_stream=True)
    script.request(5, fields=(*REQUEST, (b"content-length", b"1")))
    script.receive(frames.data(3, bytes(9000)), frames.data(5, bytes(9000), padding=9))
    assert len(script.resets()) == 2
    assert script.codec.receive_window == 200_000


def test_data_after_our_goaway_is_credited(server: MakeScript) -> None:
    script, _ = _receiving(server)
    script.codec.send_goaway(1, c.NO_ERROR)
    script.receive(script.peer.headers(3, REQUEST), frames.data(3, bytes(16_000)) * 20)
    script.receive(script.peer.headers(3, TRAILERS, end_stream=True))
    assert script.heard() == []
    assert script.codec.receive_window == 200_000


def test_a_reset_returns_what_the_caller_had_not_acknowledged(server: MakeScript) -> None:
    script, stream = _receiving(server)
    script.codec.hold_credit(True)
    script.receive(frames.data(1, bytes(16_000)), frames.rst_stream(1, c.CANCEL))
    assert script.codec.receive_window == 184_000, "the caller still holds the octets"
    script.codec.acknowledge_received_data(stream, 16_000)
    assert script.codec.receive_window == 200_000


def test_a_window_of_one_octet_makes_progress(server: MakeScript) -> None:
    script = server(stream_window=1, connection_window=65_535)
    stream = script.request(1)
    for octet in (b"a", b"b", b"c"):
        script.receive(frames.data(1, octet))
        script.codec.acknowledge_received_data(stream, 1)
        assert (1, 1) in _updates(script)
