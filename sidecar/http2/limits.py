"""What a peer may do before it counts as an attack: the counters of SE-01 to SE-14 that outlive a frame.

Each method notes one thing the peer did and raises `RemoteProtocolError` ENHANCE_YOUR_CALM when it was one too many.
The clock comes in through `refill`. Limits on a single block of fields live in `field_compression`.
"""

from __future__ import annotations

from typing import Final

from sidecar.http2.constants import ENHANCE_YOUR_CALM
from sidecar.http2.errors import RemoteProtocolError
from sidecar.http2.interface import CodecSettings

# Envoy: inbound WINDOW_UPDATE frames <= 5 + 2 * (streams + 10 * DATA frames sent) (SE-06).
WINDOW_UPDATES_FREE: Final = 5
WINDOW_UPDATES_PER_STREAM: Final = 2
WINDOW_UPDATES_PER_DATA_FRAME: Final = 20
PRIORITIES_PER_STREAM: Final = 10  # Envoy 100, nginx 128 (SE-10)


class FloodGuard:
    """The counters of one connection."""

    def __init__(self, settings: CodecSettings) -> None:
        self._settings = settings
        self._tokens = float(settings.reset_burst)
        self._refilled_at: float | None = None
        self._queued_replies = 0
        self._empty_data = 0
        self._priorities = 0
        self._window_updates = 0
        self._streams = 0
        self._streams_this_read = 0
        self._data_frames_sent = 0

    def refill(self, now: float) -> None:
        """Time has passed: tokens come back."""
        if self._refilled_at is not None:
            gained = (now - self._refilled_at) * self._settings.reset_rate
            self._tokens = min(float(self._settings.reset_burst), self._tokens + max(gained, 0.0))
        self._refilled_at = now

    def read_started(self) -> None:
        """A `receive_data` begins."""
        self._streams_this_read = 0

    def output_drained(self) -> None:
        """The replies that were queued have left."""
        self._queued_replies = 0

    def data_frame_sent(self) -> None:
        """Our DATA frames are what WINDOW_UPDATE frames answer."""
        self._data_frames_sent += 1

    def stream_opened(self) -> None:
        """By either side."""
        self._streams += 1

    def may_open_in_this_read(self) -> bool:
        """SE-04: one more new stream in this `receive_data`, or one too many."""
        self._streams_this_read += 1
        return self._streams_this_read <= self._settings.max_streams_per_read

    def reset_caused(self) -> None:
        """SE-04, SE-12: the peer reset an unanswered stream, or made us reset one."""
        if self._tokens < 1:
            raise _too_many("resets caused by the peer")
        self._tokens -= 1

    def reply_queued(self) -> None:
        """SE-05: an ACK or a RST_STREAM waits for `data_to_send`."""
        self._queued_replies += 1
        if self._queued_replies > self._settings.max_queued_control_frames:
            raise _too_many("frames that ask for an answer")

    def data_received(self, empty: bool) -> None:
        """SE-08: `empty` means no payload and no END_STREAM."""
        self._empty_data = self._empty_data + 1 if empty else 0
        if self._empty_data > self._settings.max_empty_data_frames:
            raise _too_many("empty DATA frames in a row")

    def priority_received(self) -> None:
        """SE-10."""
        self._priorities += 1
        if self._priorities > self._settings.max_priority_frames + PRIORITIES_PER_STREAM * self._streams:
            raise _too_many("PRIORITY frames")

    def window_update_received(self) -> None:
        """SE-06."""
        self._window_updates += 1
        allowed = (
            WINDOW_UPDATES_FREE
            + WINDOW_UPDATES_PER_STREAM * self._streams
            + WINDOW_UPDATES_PER_DATA_FRAME * self._data_frames_sent
        )
        if self._window_updates > allowed:
            raise _too_many("WINDOW_UPDATE frames for what was sent")

    def settings_received(self, entries: int) -> None:
        """SE-05: the entries of one SETTINGS frame."""
        if entries > self._settings.max_settings_per_frame:
            raise _too_many("entries in a SETTINGS frame")

    def block_grew(self, frames: int, size: int) -> None:
        """SE-03: a block so far, in frames and encoded octets."""
        if frames > self._settings.max_header_block_frames:
            raise _too_many("CONTINUATION frames in a field block")
        if size > self._settings.max_header_block_size:
            raise _too_many("octets in a field block")


def _too_many(what: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"too many {what}", ENHANCE_YOUR_CALM)
