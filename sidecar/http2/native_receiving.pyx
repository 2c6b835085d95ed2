"""What arrives on streams: DATA and field blocks, and the verdicts on them. The native twin of `reference_receiving`.

Every method counts, judges, changes state, queues what must be answered, and calls a sink last. Where it differs from
its twin one of the two is wrong.
Rules for the pointers: what is pointed at is good until a sink is called, so a payload is copied and a block decoded
before. A sink may command anything, so no state is kept across its call: what is needed after or during it sits in
local variables. What a caller may set to None is checked.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcpy

from sidecar.http2 import interface
from sidecar.http2.buffer cimport buffer_clear, buffer_extend
from sidecar.http2.frame cimport *
from sidecar.http2.hpack_decoder cimport DECODED_ABUSIVE, DECODED_BROKEN, DECODED_WHOLE, Decoded, HpackDecoder
from sidecar.http2.interface cimport Sink, StreamSink
from sidecar.http2.native_block cimport AS_REQUEST, AS_RESPONSE, AS_TRAILERS, NativeBlock
from sidecar.http2.native_sending cimport SendingHalf
from sidecar.http2.native_stream cimport NOT_KNOWN, PEER_KNOWS, NativeStream

cdef enum:
    CLIENT = 0
    LEAST_PART = 4096  # octets of payload from which on it is offered in place: less is copied sooner than listed

cdef StreamSink DEAF = interface.DEAF
cdef Sink DEAF_CONNECTION = Sink()


cdef class ReceivingHalf(SendingHalf):
    """Takes DATA and field blocks."""

    def __init__(self, int role, object settings, Sink sink not None):
        SendingHalf.__init__(self, role, settings, sink)
        self.decoder = HpackDecoder(settings.max_header_fields, settings.max_header_list_size)
        self.max_block_frames = settings.max_header_block_frames
        self.max_block_size = settings.max_header_block_size
        self.max_streams = settings.max_concurrent_streams
        self.max_informational = settings.max_informational

    def __dealloc__(self):
        buffer_clear(&self.block)

    cdef StreamSink _listener(self, NativeStream stream):
        """Who hears of the stream; a caller that let go of it may have left None."""
        return stream.sink if stream.sink is not None else DEAF

    cdef Sink _connection_listener(self):
        return self.sink if self.sink is not None else DEAF_CONNECTION

    # -- DATA -------------------------------------------------------------------------------------------

    cdef int _data(self, const uint8_t* at, Py_ssize_t length, int flags, uint32_t stream_id) except -1:
        cdef NativeStream stream
        cdef StreamSink sink
        cdef int64_t size = length  # padding counts (H2-40)
        cdef bint end_stream = flags & END_STREAM
        cdef int error_code
        if flags & PADDED:
            if length == 0:
                return self._fail(E_FRAME_SIZE, "a padded frame without a pad length")
            if at[0] >= length:
                return self._fail(E_PROTOCOL, "padding longer than its frame")
            length -= 1 + at[0]
            at += 1
        stream = self.streams.get(stream_id)
        if stream is None and self._is_idle(stream_id):
            return self._fail(E_PROTOCOL, "DATA on stream 0 or an idle stream")
        if length > 0 or end_stream:
            self.guard.empty_data = 0
        elif self.guard.one_empty_data_too_many():
            return self._fail(E_ENHANCE_YOUR_CALM, "too many empty DATA frames in a row")
        if size > self.receive_window_left:
            return self._fail(E_FLOW_CONTROL, "DATA beyond the connection window")
        self.receive_window_left -= size
        if stream is None:
            if self.closed.how(stream_id) == PEER_KNOWS:
                return self._fail(E_STREAM_CLOSED, "a frame on a stream that the peer closed")
            return self._credit_connection(size)
        error_code = self._wrong_data(stream, size, length, end_stream)
        if error_code != NO_STREAM_ERROR:
            self._credit_connection(size)
            return self._stream_error(stream, error_code)
        sink = self._listener(stream)
        stream.unacknowledged += length
        if self.hold:
            self.held += length
            self._credit_connection(size - length)
        else:
            self._credit_connection(size)
        if end_stream:
            self._close_remote(stream)
        elif size > length:
            self._credit_stream(stream, size - length)
        if length >= LEAST_PART and self._offer_part(sink, at, length, end_stream):
            return FINE
        if length > 0 or end_stream:
            sink.on_data(PyBytes_FromStringAndSize(<const char*> at, length), end_stream)
        return FINE

    cdef bint _offer_part(self, StreamSink sink, const uint8_t* at, Py_ssize_t length, bint end_stream) except -1:
        """Whether `sink` took the octets where they are. Those that were carried over are not there any more soon."""
        cdef Py_ssize_t offset = at - <const uint8_t*> PyBytes_AS_STRING(self.whole)
        if offset < 0 or offset + length > PyBytes_GET_SIZE(self.whole):
            return False
        return sink.on_part(self.whole, offset, length, end_stream)

    cdef int _wrong_data(self, NativeStream stream, int64_t size, int64_t length, bint end_stream) noexcept:
        """The stream error that a DATA frame is, if it is one."""
        if stream.remote_closed:
            return E_STREAM_CLOSED
        if size > stream.receive_window:
            return E_FLOW_CONTROL
        stream.receive_window -= size
        if not stream.received_head:
            return E_PROTOCOL
        if stream.octets_left >= 0:
            if length > stream.octets_left or (end_stream and length < stream.octets_left):
                return E_PROTOCOL
            stream.octets_left -= length
        return NO_STREAM_ERROR

    # -- HEADERS and CONTINUATION -----------------------------------------------------------------------

    cdef int _headers(self, const uint8_t* at, Py_ssize_t length, int flags, uint32_t stream_id) except -1:
        self.block_depends_on_itself = False
        if flags & PADDED:
            if length == 0:
                return self._fail(E_FRAME_SIZE, "a padded frame without a pad length")
            if at[0] >= length:
                return self._fail(E_PROTOCOL, "padding longer than its frame")
            length -= 1 + at[0]
            at += 1
        if flags & HAS_PRIORITY:
            if length < 5:
                return self._fail(E_PROTOCOL if flags & PADDED else E_FRAME_SIZE, "HEADERS too short for its priority")
            self.block_depends_on_itself = read_31(at) == stream_id
            at += 5
            length -= 5
        if stream_id % 2 == 0:
            return self._fail(E_PROTOCOL, "HEADERS on a stream that the client cannot open")
        self.block_stream = stream_id
        self.block_ends_stream = flags & END_STREAM
        self.block_frames = 1
        if self.max_block_frames < 1 or length > self.max_block_size:
            return self._fail(E_ENHANCE_YOUR_CALM, "too many octets in a field block")
        if flags & END_HEADERS:
            return self._block_done(at, length)
        memcpy(buffer_extend(&self.block, length), at, length)
        return FINE

    cdef int _continuation(self, const uint8_t* at, Py_ssize_t length, int flags) except -1:
        if self.block_stream == 0:
            return self._fail(E_PROTOCOL, "CONTINUATION without an open field block")
        self.block_frames += 1
        if self.block_frames > self.max_block_frames:
            return self._fail(E_ENHANCE_YOUR_CALM, "too many CONTINUATION frames in a field block")
        if self.block.length + length > self.max_block_size:
            return self._fail(E_ENHANCE_YOUR_CALM, "too many octets in a field block")
        memcpy(buffer_extend(&self.block, length), at, length)
        if not flags & END_HEADERS:
            return FINE
        return self._block_done(self.block.start, self.block.length)

    cdef int _block_done(self, const uint8_t* at, Py_ssize_t length) except -1:
        """A complete block. It is decoded whatever becomes of it (H2-21)."""
        cdef uint32_t stream_id = self.block_stream
        cdef bint end_stream = self.block_ends_stream
        cdef bint self_dependent = self.block_depends_on_itself
        cdef Decoded decoded = self.decoder.decode(at, length)
        cdef NativeBlock block = self.decoder.block if decoded == DECODED_WHOLE else None
        cdef NativeStream stream
        cdef StreamSink sink
        cdef int error_code
        buffer_clear(&self.block)
        self.block_stream = 0
        if decoded == DECODED_BROKEN:
            return self._fail(E_COMPRESSION, "the field block cannot be decoded")
        if decoded == DECODED_ABUSIVE:
            return self._fail(E_ENHANCE_YOUR_CALM, "the field list is far over the limit")
        stream = self.streams.get(stream_id)
        if stream is None:
            if self.role != CLIENT and stream_id > self.highest_received:
                return self._request(stream_id, block, end_stream, self_dependent)
            return self._block_on_no_stream(stream_id)
        error_code = self._wrong_block(stream, block, end_stream, self_dependent)
        if error_code != NO_STREAM_ERROR:
            return self._stream_error(stream, error_code)
        sink = self._listener(stream)
        if stream.received_head:
            self._close_remote(stream)
            sink.on_trailers(block)
        elif block.status < 200:
            sink.on_informational(block)
        else:
            stream.received_head = True
            if end_stream:
                self._close_remote(stream)
            sink.on_headers(block, end_stream)
        return FINE

    cdef int _wrong_block(self, NativeStream stream, NativeBlock block, bint end_stream, bint self_dependent) noexcept:
        """The stream error that trailers or a response head are, if they are one; None is an oversized block."""
        if stream.remote_closed:
            return E_STREAM_CLOSED
        if block is None:
            return E_ENHANCE_YOUR_CALM
        if self_dependent:
            return E_PROTOCOL
        if stream.received_head:
            if not end_stream or not block.verdict & AS_TRAILERS or stream.octets_left > 0:
                return E_PROTOCOL
            return NO_STREAM_ERROR
        if not block.verdict & AS_RESPONSE:
            return E_PROTOCOL
        if block.status < 200:
            stream.informational += 1
            return E_PROTOCOL if end_stream or stream.informational > self.max_informational else NO_STREAM_ERROR
        if not stream.head_only and block.status != 204 and block.status != 304:
            stream.octets_left = block.content_length
        return E_PROTOCOL if end_stream and stream.octets_left > 0 else NO_STREAM_ERROR

    cdef int _request(self, uint32_t stream_id, NativeBlock block, bint end_stream, bint self_dependent) except -1:
        """A stream that the peer opens (SERVER)."""
        cdef NativeStream stream
        cdef Sink sink = self._connection_listener()
        cdef int error_code
        self.highest_received = stream_id
        if stream_id > self.goaway_sent:
            return FINE
        self.highest_served = stream_id
        error_code = self._refusal(block, end_stream, self_dependent)
        if error_code != NO_STREAM_ERROR:
            self.closed.remember(stream_id, False)
            # Before it has seen our limit the peer could not respect it.
            if error_code != E_REFUSED_STREAM or self.settings_acknowledged:
                if self.guard.one_reset_too_many():
                    return self._fail(E_ENHANCE_YOUR_CALM, "too many resets caused by the peer")
            queue_word(&self.out, TYPE_RST_STREAM, stream_id, error_code)
            return self._reply_queued()
        stream = self._new_stream(stream_id, DEAF)
        stream.received_head = True
        stream.octets_left = block.content_length
        stream.remote_closed = end_stream
        self.streams.add(stream)
        self.guard.streams += 1
        sink.on_request(stream, block, end_stream)
        return FINE

    cdef int _refusal(self, NativeBlock block, bint end_stream, bint self_dependent) noexcept:
        """Why a new stream is reset before anyone hears of it."""
        if self.guard.one_stream_too_many() or self.streams.count >= self.max_streams:
            return E_REFUSED_STREAM
        if block is None:
            return E_ENHANCE_YOUR_CALM
        if self_dependent or not block.verdict & AS_REQUEST or (end_stream and block.content_length > 0):
            return E_PROTOCOL
        return NO_STREAM_ERROR

    cdef int _block_on_no_stream(self, uint32_t stream_id) except -1:
        """Trailers or a response head for a stream that is gone or never was (H2-12, H2-13)."""
        cdef int how = self.closed.how(stream_id)
        if self._is_idle(stream_id):
            return self._fail(E_PROTOCOL, "a response on a stream that was never opened")
        if how == PEER_KNOWS:
            return self._fail(E_STREAM_CLOSED, "a frame on a stream that the peer closed")
        if self.role != CLIENT and stream_id <= self.goaway_sent and how == NOT_KNOWN:
            return self._fail(E_PROTOCOL, "a stream id is used again or out of order")
        return FINE

    # -- verdicts ---------------------------------------------------------------------------------------

    cdef bint _is_idle(self, uint32_t stream_id) noexcept:
        """Never opened by the one who may. Stream 0 is even, too."""
        if stream_id % 2 == 0:
            return True
        return stream_id >= self.next_id if self.role == CLIENT else stream_id > self.highest_received

    cdef int _reply_queued(self) except -1:
        """An ACK or a RST_STREAM waits for `data_to_send` (SE-05)."""
        if self.guard.one_reply_too_many():
            return self._fail(E_ENHANCE_YOUR_CALM, "too many frames that ask for an answer")
        return FINE

    cdef int _stream_error(self, NativeStream stream, uint32_t error_code) except -1:
        """The peer's fault ends one stream: counted, answered once, told last (SE-12)."""
        cdef StreamSink sink = self._listener(stream)
        if self.guard.one_reset_too_many():
            return self._fail(E_ENHANCE_YOUR_CALM, "too many resets caused by the peer")
        if self._reply_queued() != FINE:
            return FATAL
        queue_word(&self.out, TYPE_RST_STREAM, stream.id, error_code)
        self._close_both(stream, False)
        sink.on_reset(error_code, False)
        return FINE

    cdef int _fail(self, uint32_t error_code, str reason) except -1:
        """The connection ends; `receive_data` says so to the peer and raises."""
        self.fault_code = error_code
        self.fault = reason
        return FATAL
