"""The commands of the native codec: what we send, and the credit that we give.

Every command checks before it changes anything. A pointer into a buffer lives within one statement; a pointer into
a bytes object only while the object is an argument of the running function, or held as a part.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcpy

from sidecar.http2 import constants as c
from sidecar.http2.buffer cimport buffer_clear, buffer_extend, buffer_take
from sidecar.http2.errors import HeaderListTooLarge, LocalProtocolError, StreamsExhausted
from sidecar.http2.frame cimport (
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    TYPE_CONTINUATION,
    TYPE_DATA,
    TYPE_GOAWAY,
    TYPE_HEADERS,
    TYPE_PING,
    TYPE_RST_STREAM,
    TYPE_SETTINGS,
    TYPE_WINDOW_UPDATE,
    queue_frame,
    queue_word,
    write_32,
    write_frame_header,
)
from sidecar.http2.hpack_encoder cimport HpackEncoder
from sidecar.http2.interface cimport Codec, HeaderBlock, Sink, Stream, StreamSink
from sidecar.http2.native_block cimport NativeBlock
from sidecar.http2.native_limits cimport NativeFloodGuard
from sidecar.http2.native_stream cimport ClosedStreams, NativeStream, StreamTable
from sidecar.http2.parts cimport MOST_PARTS, iovec, parts_add, parts_clear, parts_gather, parts_join, parts_reserve

cdef enum:
    CLIENT = 0
    LARGEST_ID = 0x7FFF_FFFF
    DEFAULT_WINDOW = 65535
    INITIAL_STREAMS = 100  # before the peer's SETTINGS (H2-02)
    LARGEST_DATA_FRAME = 16384  # so that no stream holds the connection for long (H2-50)

cdef int64_t UNLIMITED = 0x7FFF_FFFF_FFFF_FFFF
cdef int64_t _codecs_made = 0


cdef class SendingHalf(Codec):
    """Commands and shared state."""

    def __init__(self, int role, object settings, Sink sink not None):
        global _codecs_made
        Codec.__init__(self, role, settings, sink)
        _codecs_made += 1
        self.serial = _codecs_made
        self.guard = NativeFloodGuard(settings)
        self.goaway_sent = LARGEST_ID
        self.goaway_received = -1
        self.streams = StreamTable()
        self.closed = ClosedStreams()
        self.next_id = max(settings.first_stream_id, 1)
        self.peer_max_streams = c.UNLIMITED_STREAMS
        self.peer_stream_window = c.DEFAULT_WINDOW
        self.peer_max_frame_size = c.DEFAULT_MAX_FRAME_SIZE
        self.peer_max_list_size = -1
        self.encoder = HpackEncoder()
        self.send_window = c.DEFAULT_WINDOW
        self.output_allowance = UNLIMITED
        self.stream_window = settings.stream_window
        self.connection_window = max(settings.connection_window, c.DEFAULT_WINDOW)
        self.receive_window_left = self.connection_window

    def __dealloc__(self):
        buffer_clear(&self.urgent)
        buffer_clear(&self.out)
        parts_clear(&self.parts)

    def __repr__(self):
        role = "CLIENT" if self.role == CLIENT else "SERVER"
        state = "dead" if self.dead else f"{self.streams.count} streams, receive window {self.receive_window}"
        return f"<{type(self).__name__} {role} {state}>"

    # -- bytes ------------------------------------------------------------------------------------------

    cpdef object initiate_connection(self):
        settings = self.settings
        announced = [
            (c.SETTINGS_INITIAL_WINDOW_SIZE, settings.stream_window),
            (c.SETTINGS_MAX_FRAME_SIZE, settings.max_frame_size),
            (c.SETTINGS_MAX_HEADER_LIST_SIZE, settings.max_header_list_size),
        ]
        preface = b""
        if self.role == CLIENT:
            preface = c.PREFACE
            announced.append((c.SETTINGS_ENABLE_PUSH, 0))
        else:
            announced.append((c.SETTINGS_MAX_CONCURRENT_STREAMS, settings.max_concurrent_streams))
        memcpy(buffer_extend(&self.urgent, len(preface)), PyBytes_AS_STRING(preface), len(preface))
        payload = b"".join([key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in announced])
        memcpy(
            queue_frame(&self.urgent, len(payload), TYPE_SETTINGS, 0, 0), PyBytes_AS_STRING(payload), len(payload)
        )
        if self.connection_window > DEFAULT_WINDOW:
            queue_word(&self.urgent, TYPE_WINDOW_UPDATE, 0, <uint32_t> (self.connection_window - DEFAULT_WINDOW))

    cpdef bytes data_to_send(self):
        cdef bytes data
        if self.parts.count > 0 or (self.urgent.length > 0 and self.out.length > 0):
            data = parts_join(&self.parts, &self.urgent, &self.out)
            self.forget_queued()
            return data
        self.guard.queued_replies = 0
        return buffer_take(&self.urgent) if self.out.length == 0 else buffer_take(&self.out)

    cdef int gather(self, iovec* into) noexcept:
        return parts_gather(&self.parts, &self.urgent, &self.out, into)

    cdef int forget_queued(self) except -1:
        self.guard.queued_replies = 0
        buffer_clear(&self.urgent)
        buffer_clear(&self.out)
        parts_clear(&self.parts)
        return 0

    cpdef bint has_data_to_send(self) except -1:
        return self.urgent.length > 0 or self.out.length > 0

    # -- streams ----------------------------------------------------------------------------------------

    cpdef bint has_slot(self) except -1:
        return self.streams.count < self._streams_allowed()

    cpdef Stream open_stream(self, StreamSink sink):
        if self.next_id > LARGEST_ID:
            raise StreamsExhausted("no stream id is left on this connection")
        if self.goaway_received >= 0:
            raise StreamsExhausted("the peer takes no new streams after its GOAWAY")
        if not self.has_slot():
            raise StreamsExhausted(f"the peer allows {self._streams_allowed()} streams at a time")
        return self._new_stream(self.next_id, sink)

    cpdef object send_informational(self, Stream stream, HeaderBlock block):
        if self.role == CLIENT or self._own(stream).sent_head:
            raise LocalProtocolError(f"stream {stream.id} cannot send an informational head here")
        self._send_head(stream, block, False)

    cpdef object send_headers(self, Stream stream, HeaderBlock block, bint end_stream):
        cdef NativeStream state = self._own(stream)
        if state.sent_head:
            raise LocalProtocolError(f"stream {stream.id} has sent its head already")
        if self.dead:
            return
        self._send_head(state, block, end_stream)
        state.sent_head = True
        if self.role == CLIENT:
            state.head_only = (<NativeBlock> block).to_head if type(block) is NativeBlock else _to_head(block)

    cpdef Py_ssize_t send_data(self, Stream stream, object data, bint end_stream, Py_ssize_t offset=0) except -1:
        cdef NativeStream state
        cdef bytes octets = data if type(data) is bytes else bytes(data)
        cdef int64_t rest = PyBytes_GET_SIZE(octets) - offset
        cdef int64_t allowed
        cdef bint ends
        if self.dead:
            return 0
        state = self._sendable(stream)
        if not state.sent_head:
            raise LocalProtocolError(f"stream {stream.id} sends data before its head")
        if offset < 0 or rest < 0:
            raise LocalProtocolError(f"there is no octet {offset} in {len(octets)}")
        allowed = max(min(rest, state.send_window, self.send_window, self.output_allowance), 0)
        ends = end_stream and allowed == rest
        self._queue_data(state.id, <const uint8_t*> PyBytes_AS_STRING(octets) + offset, allowed, ends)
        state.send_window -= allowed
        self.send_window -= allowed
        if self.output_allowance != UNLIMITED:
            self.output_allowance -= allowed
        state.cut_short = allowed < rest
        if state.cut_short:
            self.cut_short = True
        if ends:
            self._close_local(state)
        return allowed

    cpdef bint send_part(
        self, Stream stream, bytes whole, Py_ssize_t offset, Py_ssize_t size, bint end_stream
    ) except -1:
        cdef NativeStream state
        if self.dead:
            return False
        state = self._sendable(stream)
        if whole is None or offset < 0 or size <= 0 or size > PyBytes_GET_SIZE(whole) - offset:
            raise LocalProtocolError(f"there are no {size} octets from {offset} on")
        if not state.sent_head:
            raise LocalProtocolError(f"stream {stream.id} sends data before its head")
        if size > min(state.send_window, self.send_window, self.output_allowance):
            return False
        if self.parts.count + (size + LARGEST_DATA_FRAME - 1) // LARGEST_DATA_FRAME > MOST_PARTS:
            return False
        self._queue_part(state.id, whole, <const uint8_t*> PyBytes_AS_STRING(whole) + offset, size, end_stream)
        state.send_window -= size
        self.send_window -= size
        if self.output_allowance != UNLIMITED:
            self.output_allowance -= size
        if end_stream:
            self._close_local(state)
        return True

    cpdef object send_trailers(self, Stream stream, HeaderBlock block):
        cdef NativeStream state
        if self.dead:
            return
        state = self._sendable(stream)
        if not state.sent_head:
            raise LocalProtocolError(f"stream {stream.id} sends trailers before its head")
        self._check_list_size(block)
        self._queue_block(state.id, block, True)
        self._close_local(state)

    cpdef object reset_stream(self, Stream stream, unsigned int error_code):
        cdef NativeStream state = self._own(stream)
        if not self.dead and state.live:
            queue_word(&self.out, TYPE_RST_STREAM, state.id, error_code)
            self._close_both(state, False)
        state.local_closed = True
        state.remote_closed = True

    cpdef object acknowledge_received_data(self, Stream stream, Py_ssize_t size):
        cdef NativeStream state = self._own(stream)
        cdef int64_t held = min(size, self.held)
        if size < 0 or size > state.unacknowledged:
            raise LocalProtocolError(f"stream {stream.id} gives back {size} of {state.unacknowledged} octets")
        state.unacknowledged -= size
        if held > 0:
            self.held -= held
            self._credit_connection(held)
        if not state.remote_closed:
            self._credit_stream(state, size)

    # -- connection -------------------------------------------------------------------------------------

    cpdef object hold_credit(self, bint hold):
        cdef int64_t held = self.held
        self.hold = hold
        if not hold:
            self.held = 0
            self._credit_connection(held)

    cpdef object limit_output(self, Py_ssize_t octets):
        self.output_allowance = max(octets, 0)

    cpdef object send_ping(self, bytes payload):
        if payload is None or len(payload) != 8:
            raise LocalProtocolError("a PING carries 8 octets")
        if self.dead:
            return
        if self.pings is None:
            self.pings = []
        self.pings.append(payload)
        memcpy(queue_frame(&self.out, 8, TYPE_PING, 0, 0), PyBytes_AS_STRING(payload), 8)

    cpdef object send_goaway(self, unsigned int last_stream_id, unsigned int error_code, bytes debug=b""):
        if debug is None:
            raise TypeError("the debug data of a GOAWAY is bytes")
        self.goaway_sent = min(self.goaway_sent, last_stream_id)
        if not self.dead:
            self._queue_goaway(self.goaway_sent, error_code, debug)

    cpdef object refill(self, double now):
        self.guard.refill(now)

    @property
    def remote_max_concurrent_streams(self):
        return self._streams_allowed()

    @property
    def open_streams(self):
        return self.streams.count

    @property
    def highest_remote_stream_id(self):
        return self.highest_served

    @property
    def next_stream_id(self):
        return self.next_id

    @property
    def receive_window(self):
        return self.receive_window_left + self.receive_due

    cdef uint32_t _streams_allowed(self) noexcept:
        return self.peer_max_streams if self.settings_received else INITIAL_STREAMS

    # -- checks -----------------------------------------------------------------------------------------

    cdef NativeStream _own(self, Stream stream):
        """The stream as ours, whatever its state."""
        if type(stream) is not NativeStream or (<NativeStream> stream).connection != self.serial:
            raise LocalProtocolError("the stream belongs to another connection")
        return <NativeStream> stream

    cdef NativeStream _sendable(self, Stream stream):
        """The stream as ours and open for sending."""
        cdef NativeStream state = self._own(stream)
        if state.local_closed or not state.live:
            raise LocalProtocolError(f"stream {stream.id} cannot send any more")
        return state

    cdef int _check_list_size(self, HeaderBlock block) except -1:
        if block is None:
            raise TypeError("there is no field block to send")
        if self.peer_max_list_size >= 0 and block.size > self.peer_max_list_size:
            raise HeaderListTooLarge(
                f"a field list of {block.size} octets where the peer takes {self.peer_max_list_size}"
            )
        return 0

    # -- frames -----------------------------------------------------------------------------------------

    cdef int _send_head(self, Stream stream, HeaderBlock block, bint end_stream) except -1:
        cdef NativeStream state = self._own(stream)
        cdef bint opening = self.role == CLIENT and state.id == self.next_id and not state.local_closed
        if self.dead:
            return 0
        if not opening:
            state = self._sendable(stream)
        self._check_list_size(block)
        self._queue_block(state.id, block, end_stream)
        if opening:
            self.next_id += 2
            state.send_window = self.peer_stream_window
            self.streams.add(state)
            self.guard.streams += 1
        if end_stream:
            self._close_local(state)
        return 0

    cdef int _queue_block(self, uint32_t stream_id, HeaderBlock block, bint end_stream) except -1:
        """HEADERS, and CONTINUATION right behind it where the peer's frames are too small (H2-25)."""
        cdef const uint8_t* at
        cdef Py_ssize_t left
        cdef Py_ssize_t part
        cdef int kind = TYPE_HEADERS
        cdef int flags = END_STREAM if end_stream else 0
        self.encoder.encode(block)
        at = self.encoder.octets
        left = self.encoder.length
        part = min(left, self.peer_max_frame_size)
        while True:
            if part == left:
                flags |= END_HEADERS
            memcpy(queue_frame(&self.out, part, kind, flags, stream_id), at, part)
            at += part
            left -= part
            if left == 0:
                return 0
            part = min(left, self.peer_max_frame_size)
            kind = TYPE_CONTINUATION
            flags = 0

    cdef int _queue_data(
        self, uint32_t stream_id, const uint8_t* data, Py_ssize_t length, bint end_stream
    ) except -1:
        """All of it; END_STREAM on the last frame, which is empty if there is nothing."""
        cdef Py_ssize_t part
        if length == 0 and not end_stream:
            return 0
        while True:
            part = min(length, LARGEST_DATA_FRAME)
            length -= part
            memcpy(
                queue_frame(&self.out, part, TYPE_DATA, END_STREAM if end_stream and length == 0 else 0, stream_id),
                data,
                part,
            )
            self.guard.data_frames_sent += 1
            data += part
            if length == 0:
                return 0

    cdef int _queue_part(
        self, uint32_t stream_id, bytes whole, const uint8_t* at, Py_ssize_t size, bint end_stream
    ) except -1:
        """All of it, in frames whose payload stays where it is. No header is queued that could stay without it."""
        cdef Py_ssize_t length
        cdef int flags = 0
        parts_reserve(&self.parts)
        while size > 0:
            length = min(size, LARGEST_DATA_FRAME)
            if end_stream and length == size:
                flags = END_STREAM
            write_frame_header(buffer_extend(&self.out, FRAME_HEADER), length, TYPE_DATA, flags, stream_id)
            self.guard.data_frames_sent += 1
            parts_add(&self.parts, whole, at, length, self.out.length)
            at += length
            size -= length
        return 0

    cdef int _queue_goaway(self, uint32_t last_stream_id, uint32_t error_code, bytes debug) except -1:
        cdef Py_ssize_t length = PyBytes_GET_SIZE(debug)
        cdef uint8_t* at = queue_frame(&self.out, 8 + length, TYPE_GOAWAY, 0, 0)
        write_32(at, last_stream_id)
        write_32(at + 4, error_code)
        memcpy(at + 8, PyBytes_AS_STRING(debug), length)
        return 0

    # -- stream life ------------------------------------------------------------------------------------

    cdef NativeStream _new_stream(self, uint32_t stream_id, StreamSink sink):
        cdef NativeStream stream = NativeStream.__new__(NativeStream)
        stream.id = stream_id
        stream.sink = sink
        stream.connection = self.serial
        stream.receive_window = self.stream_window
        if not self.settings_acknowledged and stream.receive_window < DEFAULT_WINDOW:
            stream.receive_window = DEFAULT_WINDOW  # what the peer may assume before it knows (H2-03)
        stream.send_window = self.peer_stream_window
        return stream

    cdef int _close_local(self, NativeStream stream) except -1:
        stream.local_closed = True
        return self._forget(stream, True) if stream.remote_closed else 0

    cdef int _close_remote(self, NativeStream stream) except -1:
        stream.remote_closed = True
        return self._forget(stream, True) if stream.local_closed else 0

    cdef int _close_both(self, NativeStream stream, bint peer_knows) except -1:
        stream.local_closed = True
        stream.remote_closed = True
        return self._forget(stream, peer_knows)

    cdef int _forget(self, NativeStream stream, bint peer_knows) except -1:
        """The stream is over. Its sink stays: whoever set it lets it go."""
        self.closed.remember(stream.id, peer_knows)
        return self.streams.remove(stream.id)

    # -- credit -----------------------------------------------------------------------------------------

    cdef int _credit_connection(self, int64_t size) except -1:
        """Lazily: a WINDOW_UPDATE leaves at half a window (nghttp2, rust h2; H2-48)."""
        self.receive_due += size
        if self.receive_due == 0 or self.receive_due < self.connection_window // 2:
            return 0
        self.receive_window_left += self.receive_due
        if not self.dead:
            queue_word(&self.urgent, TYPE_WINDOW_UPDATE, 0, <uint32_t> self.receive_due)
        self.receive_due = 0
        return 0

    cdef int _credit_stream(self, NativeStream stream, int64_t size) except -1:
        stream.receive_due += size
        if stream.receive_due == 0 or stream.receive_due < self.stream_window // 2:
            return 0
        stream.receive_window += stream.receive_due
        if not self.dead:
            queue_word(&self.urgent, TYPE_WINDOW_UPDATE, stream.id, <uint32_t> stream.receive_due)
        stream.receive_due = 0
        return 0


cdef bint _to_head(HeaderBlock block):
    return block.get(b":method") == b"HEAD"
