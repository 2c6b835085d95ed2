"""gRPC's frame around a message: one octet that says whether it is compressed, four of length, then the message.

For RPCs that the sidecar makes itself; those of the apps are forwarded without a look. Nothing here knows streams.
"""

from __future__ import annotations

from typing import Final

PREFIX: Final = 5  # octets (gRPC over HTTP/2, Length-Prefixed-Message)
LARGEST: Final = 65_536  # octets of one message; gRPC 4 MiB, but what we ask for is answered in a few hundred at most


class MessageUnreadable(Exception):
    """The endpoint's messages cannot be read; the sentence says why."""


class MessageReader:
    """DATA in, whole messages out."""

    def __init__(self) -> None:
        self._held = b""

    def read(self, data: bytes) -> list[bytes]:
        """The messages that `data` completes, in order. Raises MessageUnreadable; nothing can be read after that."""
        held = self._held + data
        messages: list[bytes] = []
        at = 0
        while len(held) - at >= PREFIX:
            length = int.from_bytes(held[at + 1 : at + PREFIX], "big")
            if held[at] != 0:
                raise MessageUnreadable("a compressed message, although no compression was offered")
            if length > LARGEST:
                raise MessageUnreadable(f"a message of {length} octets; at most {LARGEST} are taken")
            end = at + PREFIX + length
            if end > len(held):
                break
            messages.append(held[at + PREFIX : end])
            at = end
        self._held = held[at:]
        return messages


def build_message(message: bytes) -> bytes:
    """`message` with its frame, not compressed."""
    return b"\0" + len(message).to_bytes(4, "big") + message
