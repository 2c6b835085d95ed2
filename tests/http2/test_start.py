"""Connection start and SETTINGS (H2-01 to H2-07)."""

from __future__ import annotations

import pytest

from sidecar.http2 import constants as c
from sidecar.http2.errors import RemoteProtocolError
from tests import frames
from tests.http2.conftest import MakeScript
from tests.http2.script import REQUEST


def test_a_client_starts_with_the_preface_and_settings(client: MakeScript) -> None:
    script = client(started=False)
    wire = script.codec.data_to_send()
    assert wire.startswith(frames.PREFACE)
    first = script.peer.read(wire)[0]
    assert first.kind == "Settings"
    assert first.settings[c.SETTINGS_ENABLE_PUSH] == 0
    assert first.settings[c.SETTINGS_INITIAL_WINDOW_SIZE] == script.codec.settings.stream_window


def test_a_server_states_its_limits_first(server: MakeScript) -> None:
    script = server(started=False, max_concurrent_streams=7, max_header_list_size=9000)
    first = script.sent()[0]
    assert first.kind == "Settings"
    assert first.settings[c.SETTINGS_MAX_CONCURRENT_STREAMS] == 7
    assert first.settings[c.SETTINGS_MAX_HEADER_LIST_SIZE] == 9000


def test_the_connection_window_is_widened_right_after_settings(server: MakeScript) -> None:
    second = server(started=False, connection_window=1_000_000).sent()[1]
    assert (second.kind, second.stream_id, second.increment) == ("WindowUpdate", 0, 1_000_000 - 65_535)


@pytest.mark.parametrize("wrong", [b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", b"\x16\x03\x01"])
def test_a_wrong_preface_breaks_the_connection(server: MakeScript, wrong: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        server(started=False).receive(wrong)


def test_the_first_frame_must_be_settings(server: MakeScript) -> None:
    assert server(started=False).breaks(frames.PREFACE, frames.ping()) == c.PROTOCOL_ERROR


def test_a_settings_ack_is_not_a_first_frame(client: MakeScript) -> None:
    assert client(started=False).breaks(frames.settings(ack=True)) == c.PROTOCOL_ERROR


def test_settings_are_acknowledged_at_once_and_told(server: MakeScript) -> None:
    script = server(started=False)
    script.sent()
    script.receive(frames.PREFACE, frames.settings((c.SETTINGS_INITIAL_WINDOW_SIZE, 10)))
    assert [(one.kind, one.ack) for one in script.sent()] == [("Settings", True)]
    assert script.heard() == [("settings",)]


def test_a_second_settings_ack_is_nothing(server: MakeScript) -> None:
    script = server()
    script.receive(frames.settings(ack=True))
    assert (script.heard(), script.sent()) == ([], [])


def test_the_last_of_several_values_wins(client: MakeScript) -> None:
    script = client()
    limit = c.SETTINGS_MAX_CONCURRENT_STREAMS
    script.receive(frames.settings((limit, 5), (limit, 9)))
    assert script.codec.remote_max_concurrent_streams == 9


def test_unknown_settings_are_ignored(client: MakeScript) -> None:
    script = client()
    script.receive(frames.settings((0x99, 1), (0x8, 77)))
    assert script.heard() == [("settings",)]


@pytest.mark.parametrize(
    ("frame", "error_code"),
    [
        (frames.raw(c.SETTINGS, frames.ACK, 0, b"123456"), c.FRAME_SIZE_ERROR),
        (frames.raw(c.SETTINGS, 0, 0, b"12345"), c.FRAME_SIZE_ERROR),
        (frames.raw(c.SETTINGS, 0, 1), c.PROTOCOL_ERROR),
        (frames.settings((c.SETTINGS_ENABLE_PUSH, 2)), c.PROTOCOL_ERROR),
        (frames.settings((c.SETTINGS_ENABLE_PUSH, 2), (c.SETTINGS_ENABLE_PUSH, 0)), c.PROTOCOL_ERROR),
        (frames.settings((c.SETTINGS_INITIAL_WINDOW_SIZE, 2**31)), c.FLOW_CONTROL_ERROR),
        (frames.settings((c.SETTINGS_MAX_FRAME_SIZE, 16_383)), c.PROTOCOL_ERROR),
        (frames.settings((c.SETTINGS_MAX_FRAME_SIZE, 2**24)), c.PROTOCOL_ERROR),
    ],
    ids=["ack-length", "length", "stream", "push", "push-overridden", "window", "frame-small", "frame-large"],
)
def test_illegal_settings_break_the_connection(server: MakeScript, frame: bytes, error_code: int) -> None:
    assert server().breaks(frame) == error_code


def test_a_server_that_enables_push_breaks_the_connection(client: MakeScript) -> None:
    assert client().breaks(frames.settings((c.SETTINGS_ENABLE_PUSH, 1))) == c.PROTOCOL_ERROR


def test_a_client_may_enable_push_in_vain(server: MakeScript) -> None:
    script = server()
    script.receive(frames.settings((c.SETTINGS_ENABLE_PUSH, 1)))
    assert script.heard() == [("settings",)]


def test_before_the_peers_settings_a_hundred_streams_are_assumed(client: MakeScript) -> None:
    script = client(started=False)
    assert script.codec.remote_max_concurrent_streams == c.INITIAL_MAX_CONCURRENT_STREAMS
    script.receive(frames.settings())
    assert script.codec.remote_max_concurrent_streams == c.UNLIMITED_STREAMS


def test_before_the_peers_settings_data_stays_within_the_default_window(client: MakeScript) -> None:
    script = client(started=False)
    stream = script.open()
    assert script.codec.send_data(stream, bytes(100_000), False) == 65_535


def test_a_smaller_stream_window_binds_the_peer_only_after_its_ack(server: MakeScript) -> None:
    script = server(started=False, stream_window=1000)
    script.receive(frames.PREFACE, frames.settings())
    script.request(1)
    script.receive(frames.data(1, bytes(5000)))
    assert [one[0] for one in script.heard()] == ["settings", "request", "data"]
    script.receive(frames.settings(ack=True), script.peer.headers(3, REQUEST), frames.data(3, bytes(1001)))
    assert script.resets() == [(3, c.FLOW_CONTROL_ERROR)]


@pytest.mark.parametrize("promised", [2, 4])
def test_push_promise_breaks_either_side(client: MakeScript, promised: int) -> None:
    script = client()
    script.open(end_stream=True)
    payload = promised.to_bytes(4, "big") + script.peer.block(REQUEST)
    assert script.breaks(frames.raw(c.PUSH_PROMISE, frames.END_HEADERS, 1, payload)) == c.PROTOCOL_ERROR


def test_push_promise_from_a_client_breaks_the_connection(server: MakeScript) -> None:
    script = server()
    script.request(1)
    payload = (2).to_bytes(4, "big") + script.peer.block(REQUEST)
    assert script.breaks(frames.raw(c.PUSH_PROMISE, frames.END_HEADERS, 1, payload)) == c.PROTOCOL_ERROR
