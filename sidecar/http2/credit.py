"""What the peer may still send us, for the reference codec: one account per stream and one per connection.

Octets are charged when they arrive and given back when somebody says so; a WINDOW_UPDATE leaves lazily, at half a
window (RFC 9113 section 6.9, H2-41, H2-44, H2-48). Nothing here writes frames.
"""

from __future__ import annotations


class ReceiveCredit:
    """The account of one window."""

    __slots__ = ("_due", "_target", "_window")

    def __init__(self, target: int, window: int | None = None) -> None:
        self._target = target  # what the window is when nothing is owed
        self._window = target if window is None else window  # what the peer may send without an update
        self._due = 0  # given back, not announced yet

    @property
    def available(self) -> int:
        """The window with what is due counted in."""
        return self._window + self._due

    def charge(self, size: int) -> bool:
        """Octets arrived. False if the peer had no right to send them."""
        if size and size > self._window:  # an empty frame is legal at any window
            return False
        self._window -= size
        return True

    def give_back(self, size: int) -> int:
        """Octets are free again. Answers the increment to announce now, or 0."""
        self._due += size
        if self._due == 0 or self._due < self._target // 2:  # nghttp2 and rust h2: half a window
            return 0
        increment, self._due = self._due, 0
        self._window += increment
        return increment

    def shrink(self, size: int) -> None:
        """The peer has acknowledged that the window is smaller than what it assumed before our SETTINGS."""
        self._window -= size
