"""The seam between the protocol and everything above it: Codec, Stream, HeaderBlock and the two sinks.

Two codecs implement it: `reference` (on the h2 package) and `native` (ours). Callers hold a `Stream`, not a
number, so that no event and no command pays for a look-up. Calls in are commands and keep h2's names; calls
out go to a sink, while `receive_data` runs, in the order of the frames. No sink call is ever made after the
stream's last one (`end_stream`, `on_trailers` or `on_reset`), except that a reset may follow a completed
remote half (RST_STREAM after END_STREAM) and `on_window` goes on until the local half is closed. A connection
error is not told to the sinks: `receive_data` raises, and the caller ends the streams that it holds.

A sink may call any command of any codec from inside a callback, including `reset_stream` on the very stream;
`receive_data` is not a command.

Whose job is what. The codec judges field blocks (section 8 of the RFC) and reports them unchanged: it adds no
`:authority` from Host and removes nothing. A block it finds malformed is a stream error PROTOCOL_ERROR that costs
that stream alone; a request head so refused, or refused by a limit, is never heard of. A field list over
`max_header_list_size` or `max_header_fields` is a stream error ENHANCE_YOUR_CALM, over four times either a connection
error. A flood is a connection error ENHANCE_YOUR_CALM. Blocks to be sent are the caller's responsibility.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sidecar.http2.constants import CLIENT, DEFAULT_MAX_FRAME_SIZE, DEFAULT_WINDOW

Field = tuple[bytes, bytes]


class HeaderBlock:
    """An immutable list of header fields, in wire order, pseudo fields first.

    A codec may hand out the same object again for the same block (interning), so that what a caller derives
    from it is derived once: `meaning` is the caller's own place for that; the codec never looks at it.
    `never_indexed` holds the names that arrived as never-indexed literals; they leave the same way (H2-24).
    `base` is the block that this one repeats but for its last field, if it is one that `extend_block` made.
    """

    __slots__ = ("base", "fields", "meaning", "never_indexed", "size")

    def __init__(self, fields: Sequence[Field], never_indexed: frozenset[bytes] = frozenset()) -> None:
        self.fields: tuple[Field, ...] = tuple(fields)
        self.never_indexed = never_indexed
        size = 0
        for name, value in self.fields:
            size += len(name) + len(value) + 32
        self.size: int = size  # RFC 9113 section 6.5.2: octets of names and values plus 32 each
        self.meaning: object = None
        self.base: HeaderBlock | None = None

    def get(self, name: bytes) -> bytes | None:
        """The first value of `name`, or None."""
        for key, value in self.fields:
            if key == name:
                return value
        return None

    def __repr__(self) -> str:
        return f"<HeaderBlock {list(self.fields)!r}>"


def extend_block(base: HeaderBlock, name: bytes, value: bytes) -> HeaderBlock:
    """`base` with one more field. A codec that knows the octets of `base` by heart has only that one to encode."""
    block = HeaderBlock.__new__(HeaderBlock)
    block.fields = base.fields + ((name, value),)  # noqa: RUF005 (compiled, this is one allocation)
    block.never_indexed = base.never_indexed
    block.size = base.size + len(name) + len(value) + 32
    block.meaning = None
    block.base = base
    return block


class StreamSink:
    """Hears what the peer does on one stream. Subclasses override what they need to know."""

    __slots__ = ()

    def on_informational(self, block: HeaderBlock) -> None:
        """A 1xx response head (CLIENT only)."""

    def on_headers(self, block: HeaderBlock, end_stream: bool) -> None:
        """The final response head (CLIENT only; a request head goes to `Sink.on_request`)."""

    def on_data(self, data: bytes, end_stream: bool) -> None:
        """Payload without padding. `len(data)` is owed back through `acknowledge_received_data`.

        Padding is given back by the codec. An empty frame is reported only if it ends the stream.
        """

    def on_part(self, whole: bytes, offset: int, size: int, end_stream: bool) -> bool:
        """Much payload, in place in what was received: `whole[offset:offset+size]`.

        Whoever takes it answers true and owes it back like that of `on_data`, which is called with a copy otherwise.
        """
        return False

    def on_trailers(self, block: HeaderBlock) -> None:
        """The trailing block; it ends the remote half."""

    def on_reset(self, error_code: int, remote: bool) -> None:
        """The stream is gone: the peer's RST_STREAM (`remote`), or ours for the peer's stream error, already queued.

        Never called for a `reset_stream` that the caller made itself. An unknown code is INTERNAL_ERROR (H2-16).
        """

    def on_window(self) -> None:
        """This stream can take data again after `send_data` accepted less than it was given.

        Only for a WINDOW_UPDATE of this stream; what opens for all streams is told once, to `Sink.on_window`.
        """


# For a stream that nobody listens to any more. It also lets go of the listener, which holds the stream.
DEAF = StreamSink()


class Sink:
    """Hears what the peer does on the connection."""

    __slots__ = ()

    def on_request(self, stream: Stream, block: HeaderBlock, end_stream: bool) -> None:
        """A valid request head opened `stream` (SERVER only). Set `stream.sink` before returning."""

    def on_settings(self) -> None:
        """The peer's SETTINGS were applied (and the ACK queued)."""

    def on_goaway(self, last_stream_id: int, error_code: int, debug: bytes) -> None:
        """The peer will serve no stream above `last_stream_id`.

        Streams above it hear `on_reset(REFUSED_STREAM, True)` first.
        """

    def on_ping_ack(self, payload: bytes) -> None:
        """The peer answered our PING (8 octets). An ACK of a PING that we did not send is ignored."""

    def on_window(self) -> None:
        """The connection can take data again: its window opened, or every stream's did (SETTINGS).

        Called only if some `send_data` was cut short since the last call. Streams whose own window was what cut
        them short are tried again here too, or on their own `on_window`.
        """


class Stream:
    """One stream as its codec sees it. The caller may set `sink`; everything else belongs to the codec."""

    __slots__ = ("id", "local_closed", "remote_closed", "sink")

    def __init__(self, stream_id: int, sink: StreamSink) -> None:
        self.id: int = stream_id
        self.sink: StreamSink = sink
        self.local_closed: bool = False  # we sent END_STREAM; or the stream was reset by either side
        self.remote_closed: bool = False  # the peer sent END_STREAM; or the stream was reset by either side

    def __repr__(self) -> str:
        halves = {(False, False): "open", (True, False): "half-closed(local)", (False, True): "half-closed(remote)"}
        return f"<Stream {self.id} {halves.get((self.local_closed, self.remote_closed), 'closed')}>"


class CodecSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What one side of a connection announces and enforces. Counts and octets; limits of SE-01..SE-14.

    What costs a token of `reset_burst`: every stream error of the peer. SERVER: also the peer's RST_STREAM before our
    response head, and a stream above `max_concurrent_streams` once the peer acknowledged our SETTINGS. Not settable:
    WINDOW_UPDATE frames <= 5 + 2 per stream + 20 per DATA frame sent (SE-06), 2 table size updates per block (SE-14).
    """

    max_concurrent_streams: int = 1000  # Envoy 1024, HAProxy 100
    stream_window: int = 1_048_576  # Envoy 16 MiB, linkerd 64 KiB
    connection_window: int = 4_194_304  # Envoy 24 MiB, linkerd 1 MiB
    max_frame_size: int = DEFAULT_MAX_FRAME_SIZE
    max_header_list_size: int = 16_384  # Envoy 60 KiB, HAProxy 16 KiB
    max_header_fields: int = 128  # Envoy 100, HAProxy 101 (SE-01)
    max_header_block_frames: int = 9  # HEADERS + 8 CONTINUATION; nghttp2 8 (SE-03)
    max_header_block_size: int = 32_768  # encoded octets (SE-03)
    max_settings_per_frame: int = 32  # nghttp2 32 (SE-05)
    max_queued_control_frames: int = 1000  # ACKs and RSTs since `data_to_send`; Envoy 1000, nghttp2 1000 (SE-05)
    max_empty_data_frames: int = 100  # consecutive, without END_STREAM; rust h2 100 (SE-08)
    max_streams_per_read: int = 1000  # new streams taken from one receive_data; the rest is refused (SE-04)
    reset_burst: int = 200  # token bucket of peer-caused resets before a response head (SE-04, SE-12)
    reset_rate: float = 100.0  # tokens a second; the caller refills through `refill(now)`
    max_priority_frames: int = 100  # plus 10 per stream (SE-10)
    max_informational: int = 16  # 1xx heads per response (H2-37)
    first_stream_id: int = 0  # CLIENT: 0 means 1; tests of exhaustion start near the end (H2-74)


class Codec:
    """The protocol state of one connection.

    `receive_data` raises `RemoteProtocolError` or nothing. Anything else that it raises is our bug, and
    costs this connection only. After a `RemoteProtocolError` the codec is dead but for `data_to_send`: further input
    is dropped, commands do nothing.
    """

    __slots__ = ("role", "settings", "sink")

    def __init__(self, role: int, settings: CodecSettings, sink: Sink) -> None:
        self.role: int = role
        self.settings: CodecSettings = settings
        self.sink: Sink = sink

    # -- bytes ----------------------------------------------------------------------------------------

    def initiate_connection(self) -> None:
        """Queue the preface (CLIENT), SETTINGS, and the WINDOW_UPDATE that widens the connection (H2-47)."""
        raise NotImplementedError

    def receive_data(self, data: bytes) -> None:
        """Parse what the peer sent and call the sinks."""
        raise NotImplementedError

    def data_to_send(self) -> bytes:
        """Everything queued since the last call, `b""` if nothing."""
        raise NotImplementedError

    def has_data_to_send(self) -> bool:
        """Whether `data_to_send` would return something."""
        raise NotImplementedError

    # -- streams --------------------------------------------------------------------------------------

    def has_slot(self) -> bool:
        """CLIENT: whether fewer streams are open than the peer allows at a time (H2-71)."""
        return self.open_streams < self.remote_max_concurrent_streams

    def open_stream(self, sink: StreamSink) -> Stream:
        """CLIENT: take the next stream id. The id is used by the next `send_headers` on it, which must follow before

        any other `open_stream` of this codec; until then the stream does not count. Raises `StreamsExhausted` when
        no id is left, when the peer's MAX_CONCURRENT_STREAMS are open, and after the peer's GOAWAY.
        """
        raise NotImplementedError

    def send_informational(self, stream: Stream, block: HeaderBlock) -> None:
        """SERVER: a 1xx head."""
        raise NotImplementedError

    def send_headers(self, stream: Stream, block: HeaderBlock, end_stream: bool) -> None:
        """The request head (CLIENT) or the final response head (SERVER). Raises `HeaderListTooLarge`."""
        raise NotImplementedError

    def send_data(self, stream: Stream, data: bytes, end_stream: bool, offset: int = 0) -> int:
        """Queue `data[offset:]` as DATA frames as far as both windows allow and the output is below its limit.

        Returns how many octets were taken; the rest is the caller's to keep until `on_window`. END_STREAM goes
        out only with the last octet. Empty data with `end_stream` is always taken (H2-40). A frame carries at most
        16384 octets, or the peer's MAX_FRAME_SIZE if that is less.
        """
        raise NotImplementedError

    def send_part(self, stream: Stream, whole: bytes, offset: int, size: int, end_stream: bool) -> bool:
        """Queue `whole[offset:offset+size]` without copying it, if all of it may leave now; else nothing, and False.

        END_STREAM goes out with the last octet. `whole` is held until the octets are taken. Not every codec can.
        """
        return False

    def send_trailers(self, stream: Stream, block: HeaderBlock) -> None:
        """The trailing block with END_STREAM. The caller has sent all DATA before. Raises `HeaderListTooLarge`."""
        raise NotImplementedError

    def reset_stream(self, stream: Stream, error_code: int) -> None:
        """Queue RST_STREAM once; later calls, and calls on a fully closed stream, do nothing (H2-14).

        The stream's sink hears nothing more. What the peer still sends on it is counted, credited and dropped.
        """
        raise NotImplementedError

    def acknowledge_received_data(self, stream: Stream, size: int) -> None:
        """Give `size` octets of stream credit back, lazily: a WINDOW_UPDATE leaves at half a window (H2-44, H2-48).

        Legal in every state of the stream: on a closed one only the connection's share counts, and once the remote half
        is closed no stream WINDOW_UPDATE leaves. More than was delivered is a `LocalProtocolError`.
        """
        raise NotImplementedError

    # -- connection -----------------------------------------------------------------------------------

    def hold_credit(self, hold: bool) -> None:
        """While held, the connection window is credited with `acknowledge_received_data` instead of on receipt (H2-45).

        Letting go credits at once what was held. Octets that no sink heard (padding, dropped streams) are never held.
        """
        raise NotImplementedError

    def limit_output(self, octets: int) -> None:
        """How many octets of DATA may still be queued before `send_data` takes none. 0 pauses (SE-07).

        The allowance shrinks with every `send_data` and stays so until the next call of this; without a first call
        there is no limit. The codec never calls `on_window` for it: who sets it knows when it grew.
        """
        raise NotImplementedError

    def send_ping(self, payload: bytes) -> None:
        """Queue a PING with 8 octets."""
        raise NotImplementedError

    def send_goaway(self, last_stream_id: int, error_code: int, debug: bytes = b"") -> None:
        """Queue a GOAWAY. SERVER: requests above `last_stream_id` are ignored from now on (H2-83, H2-85).

        Their blocks are still decoded and their DATA credited. A later call cannot raise the last id again.
        """
        raise NotImplementedError

    def refill(self, now: float) -> None:
        """Tell the codec the time (loop clock, seconds) for its token bucket of resets (SE-04)."""
        raise NotImplementedError

    @property
    def remote_max_concurrent_streams(self) -> int:
        """What the peer allows us to open; `INITIAL_MAX_CONCURRENT_STREAMS` before its SETTINGS."""
        raise NotImplementedError

    @property
    def open_streams(self) -> int:
        """Streams that count against MAX_CONCURRENT_STREAMS: opened and not closed on both halves."""
        raise NotImplementedError

    @property
    def highest_remote_stream_id(self) -> int:
        """The highest id that the peer opened (the last id of a final GOAWAY)."""
        raise NotImplementedError

    @property
    def next_stream_id(self) -> int:
        """CLIENT: the id that `open_stream` would take (H2-74)."""
        raise NotImplementedError

    @property
    def receive_window(self) -> int:
        """The configured connection window less the octets received and not given back (H2-41).

        Credit that is given back and waits for its WINDOW_UPDATE (half a window) counts as given back, so the value
        equals the configured one when the connection is quiescent.
        """
        raise NotImplementedError


__all__ = [
    "CLIENT",
    "DEAF",
    "DEFAULT_WINDOW",
    "Codec",
    "CodecSettings",
    "Field",
    "HeaderBlock",
    "Sink",
    "Stream",
    "StreamSink",
]
