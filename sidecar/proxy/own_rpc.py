"""RPCs that the sidecar itself makes on an upstream connection: health checks, reports of load.

They are streams among those of the apps and count against the endpoint's stream limit, but not as RPCs: no metric, no
budget, no balancer and no ejection hears of them (GR-53). They end with the connection, also when it begins to drain.
There is no task behind them: whoever makes one derives a class from it and is told.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from sidecar.http2.constants import CANCEL, NO_ERROR, error_name
from sidecar.http2.errors import HeaderListTooLarge, StreamsExhausted
from sidecar.http2.interface import DEAF, Field, HeaderBlock, Stream, StreamSink
from sidecar.rpc import status as codes
from sidecar.rpc.deadline import encode_timeout
from sidecar.rpc.message import MessageReader, MessageUnreadable, build_message
from sidecar.rpc.metadata import NO_STATUS, ResponseHead, read_response

if TYPE_CHECKING:
    from sidecar.proxy.upstream import UpstreamConnection

log = logging.getLogger("sidecar.proxy")


class OwnStream(StreamSink):
    """One request of the sidecar's own, sent whole. Subclasses hear the answer; `on_broken` is its other end.

    It is over with `close`, which the subclass calls once it has heard enough, or with `on_broken`; never with both.
    """

    __slots__ = ("connection", "done", "stream", "unsent")

    def __init__(self, connection: UpstreamConnection) -> None:
        self.connection = connection
        self.stream: Stream | None = None
        self.unsent: bytes = b""  # of the request's body: what has not fitted into the windows yet
        self.done = False

    # === done ===

    def open(self, fields: list[Field], body: bytes = b"") -> bool:
        """Send the request. False: the connection takes no stream now, and nothing was sent."""
        connection = self.connection
        if self.done or not connection.ready or connection.closing or not connection.has_slot():
            return False
        codec = connection.codec
        try:
            stream = codec.open_stream(self)
            codec.send_headers(stream, HeaderBlock(fields), not body)
        except (StreamsExhausted, HeaderListTooLarge):
            return False
        self.stream = stream
        connection.own.add(self)
        if body:
            self.unsent = body
            if not self.send_chunk():
                connection.block(self)
        connection.touch()
        return True

    def close(self) -> None:
        """Nothing more is wanted of it: the peer is told to stop if it has not, and nothing more is heard."""
        stream = self.stream
        if self.done:
            return
        self.done = True
        if stream is None:
            return
        stream.sink = DEAF
        if not (stream.local_closed and stream.remote_closed):
            self.connection.codec.reset_stream(stream, NO_ERROR if stream.remote_closed else CANCEL)
            self.connection.touch()
        self.connection.remove_own(self)

    def send_chunk(self) -> bool:
        """Send of the body what fits now. Whether any of it did; called again while the connection has us blocked."""
        stream, connection = self.stream, self.connection
        if stream is None or not self.unsent or stream.local_closed:
            connection.unblock(self)
            return False
        taken = connection.codec.send_data(stream, self.unsent, True)
        connection.touch()
        self.unsent = self.unsent[taken:]
        if not self.unsent:
            connection.unblock(self)
        elif taken:
            connection.block(self)
        return taken > 0

    # === heard ===

    def on_window(self) -> None:
        self.send_chunk()

    def on_headers(self, block: HeaderBlock, end_stream: bool) -> None:
        self._hear(self.take_head, block, end_stream)

    def on_data(self, data: bytes, end_stream: bool) -> None:
        if self.stream is not None:
            self.connection.codec.acknowledge_received_data(self.stream, len(data))
            self.connection.touch()
        self._hear(self.take_data, data, end_stream)

    def on_trailers(self, block: HeaderBlock) -> None:
        self._hear(self.take_trailers, block)

    def on_reset(self, error_code: int, remote: bool) -> None:
        what = "reset the stream" if remote else "broke the rules of HTTP/2"
        self.on_connection_lost(f"{self.connection.peer} {what}: {error_name(error_code)}")

    def on_connection_lost(self, detail: str) -> None:
        """There will be no answer, or no more of it."""
        if not self.done:
            self.close()
            self._hear(self.on_broken, detail)

    def _hear(self, hear: Callable[..., None], *told: object) -> None:
        """A mistake in what listens costs this request, never the connection that the apps' RPCs share."""
        try:
            hear(*told)
        except Exception:
            log.exception("%r: internal error; giving it up", self)
            self.close()

    # === for subclasses ===

    def take_head(self, block: HeaderBlock, end_stream: bool) -> None:
        """The response head."""
        raise NotImplementedError

    def take_data(self, data: bytes, end_stream: bool) -> None:
        """Payload, already credited."""
        raise NotImplementedError

    def take_trailers(self, block: HeaderBlock) -> None:
        """The trailing block."""
        raise NotImplementedError

    def on_broken(self, detail: str) -> None:
        """The stream or its connection is gone, why in words. The last call."""
        raise NotImplementedError


class OwnRpc(OwnStream):
    """One gRPC call with one request message; the endpoint may answer with any number. It ends with `on_end`."""

    __slots__ = ("_messages",)

    def __init__(self, connection: UpstreamConnection) -> None:
        super().__init__(connection)
        self._messages = MessageReader()

    def start(self, path: bytes, message: bytes, timeout: float | None = None) -> bool:
        """Send it. False: the connection takes no stream now. `timeout` in seconds is told to the endpoint only."""
        fields: list[Field] = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path),
            (b":authority", self.connection.pool.name.encode()),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        ]
        if timeout is not None:
            fields.append((b"grpc-timeout", encode_timeout(timeout)))
        return self.open(fields, build_message(message))

    def take_head(self, block: HeaderBlock, end_stream: bool) -> None:
        head = read_response(block)
        if end_stream:
            self._take_status(head)
        elif not head.is_grpc or head.http_status != codes.HTTP_OK:
            self._end(codes.status_of_http(head.http_status), f"HTTP status {head.http_status}, not an answer in gRPC")

    def take_data(self, data: bytes, end_stream: bool) -> None:
        try:
            messages = self._messages.read(data)
        except MessageUnreadable as error:
            self._end(codes.INTERNAL, str(error))
            return
        for message in messages:
            if not self.done:
                self.on_message(message)
        if end_stream:
            self._end(codes.UNKNOWN, "the answer ended without a status")

    def take_trailers(self, block: HeaderBlock) -> None:
        self._take_status(read_response(block))

    def on_broken(self, detail: str) -> None:
        self.on_end(codes.UNAVAILABLE, detail)

    def _take_status(self, head: ResponseHead) -> None:
        if head.grpc_status == NO_STATUS:
            self._end(codes.status_of_http(head.http_status), f"HTTP status {head.http_status}, no grpc-status")
        else:
            self._end(head.grpc_status, head.message.decode("ascii", "replace"))

    def _end(self, status: int, text: str) -> None:
        if not self.done:
            self.close()
            self.on_end(status, text)

    # === for subclasses ===

    def on_message(self, message: bytes) -> None:
        """One message of the answer, without its frame."""
        raise NotImplementedError

    def on_end(self, status: int, text: str) -> None:
        """The endpoint's grpc-status and message, or why there is none. The last call; not made after `close`."""
        raise NotImplementedError
