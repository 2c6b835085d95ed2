"""The native codec: frames straight from the received octets, nothing made for a frame but what a sink is given.

Every method counts, judges, changes state, queues what must be answered, and calls a sink last, as the readable twin
`reference_receiving` does; where the two differ, one of them is wrong.
Rules for the pointers: `receive_data` holds the bytes object that is read from; a payload is copied or decoded before
a sink is called; nothing is read from `carry` or `block` after a sink was called but by `_take`, which owns them, and
`receive_data` inside `receive_data` is refused. A sink may command anything, so no state is kept across its call:
objects that are needed after it or during it sit in local variables. What a caller may set to None is checked.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcmp, memcpy

from sidecar.http2 import interface
from sidecar.http2.buffer cimport buffer_clear, buffer_extend
from sidecar.http2.errors import LocalProtocolError, RemoteProtocolError
from sidecar.http2.frame cimport *
from sidecar.http2.hpack_decoder cimport DECODED_ABUSIVE, DECODED_BROKEN, DECODED_WHOLE, Decoded, HpackDecoder
from sidecar.http2.interface cimport Sink, StreamSink
from sidecar.http2.native_block cimport AS_REQUEST, AS_RESPONSE, AS_TRAILERS, NativeBlock
from sidecar.http2.native_sending cimport SendingHalf
from sidecar.http2.native_stream cimport PEER_KNOWS, NOT_KNOWN, NativeStream

cdef enum:
    CLIENT = 0
    PREFACE_LENGTH = 24
    DEFAULT_WINDOW = 65535
    LARGEST_ID = 0x7FFF_FFFF
    SMALLEST_MAX_FRAME = 16384
    LARGEST_MAX_FRAME = 16777215

cdef int64_t LARGEST_WINDOW = 0x7FFF_FFFF
cdef const char* PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
cdef StreamSink DEAF = interface.DEAF
cdef Sink DEAF_CONNECTION = Sink()


cdef inline uint32_t _known(uint32_t error_code) noexcept:
    """An unknown error code has no special meaning (H2-16)."""
    return error_code if error_code <= E_LAST_KNOWN else E_INTERNAL


cdef inline StreamSink _listener(NativeStream stream):
    """Who hears of the stream; a caller that let go of it may have left None."""
    return stream.sink if stream.sink is not None else DEAF


cdef class NativeCodec(SendingHalf):
    """`Codec` in C."""

    def __init__(self, int role, object settings, Sink sink not None):
        SendingHalf.__init__(self, role, settings, sink)
        self.decoder = HpackDecoder(settings.max_header_fields, settings.max_header_list_size)
        self.preface_left = 0 if role == CLIENT else PREFACE_LENGTH
        self.max_frame_size = settings.max_frame_size
        self.max_block_frames = settings.max_header_block_frames
        self.max_block_size = settings.max_header_block_size
        self.max_streams = settings.max_concurrent_streams
        self.max_settings = settings.max_settings_per_frame
        self.max_informational = settings.max_informational

    def __dealloc__(self):
        buffer_clear(&self.carry)
        buffer_clear(&self.block)

    # -- octets to frames -------------------------------------------------------------------------------

    cpdef object receive_data(self, bytes data):
        cdef NativeCodec alive = self  # whatever a sink lets go of
        cdef int outcome
        if data is None:
            raise TypeError("receive_data takes bytes")
        if self.dead:
            return
        if self.receiving:
            raise LocalProtocolError("receive_data was called from a sink that it is calling")
        self.receiving = True
        self.guard.streams_this_read = 0
        try:
            outcome = alive._take(<const uint8_t*> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        except BaseException:
            alive._bury(E_INTERNAL, "a bug on this side")
            raise
        finally:
            alive.receiving = False
        if outcome == FATAL:
            alive._bury(alive.fault_code, alive.fault)
            raise RemoteProtocolError(alive.fault, alive.fault_code)

    cdef int _bury(self, uint32_t error_code, str reason) except -1:
        """The connection is over: say so to the peer, then take and queue nothing more."""
        if not self.dead:
            self._queue_goaway(min(self.highest_served, self.goaway_sent), error_code, reason.encode())
        self.dead = True
        buffer_clear(&self.carry)
        buffer_clear(&self.block)
        return 0

    cdef int _take(self, const uint8_t* at, Py_ssize_t left) except -1:
        """First what a frame carried over lacks, then frames in place, then what is left is carried over."""
        cdef Py_ssize_t part
        cdef Py_ssize_t length
        cdef int outcome
        if self.preface_left > 0:
            part = self._take_preface(at, left)
            if part < 0:
                return self._fail(E_PROTOCOL, "the connection does not start with the HTTP/2 preface")
            at += part
            left -= part
        if self.carry.length > 0 and left > 0:
            if self.carry.length < FRAME_HEADER:
                part = min(left, FRAME_HEADER - self.carry.length)
                memcpy(buffer_extend(&self.carry, part), at, part)
                at += part
                left -= part
                if self.carry.length < FRAME_HEADER:
                    return FINE
            length = read_24(self.carry.start)
            if length > self.max_frame_size:
                return self._frame_too_long(length)
            part = min(left, FRAME_HEADER + length - self.carry.length)
            memcpy(buffer_extend(&self.carry, part), at, part)
            at += part
            left -= part
            if self.carry.length < FRAME_HEADER + length:
                return FINE
            outcome = self._frame(self.carry.start, length)
            buffer_clear(&self.carry)
            if outcome != FINE:
                return outcome
        while left >= FRAME_HEADER:
            length = read_24(at)
            if length > self.max_frame_size:
                return self._frame_too_long(length)
            if left < FRAME_HEADER + length:
                break
            outcome = self._frame(at, length)
            if outcome != FINE:
                return outcome
            at += FRAME_HEADER + length
            left -= FRAME_HEADER + length
        if left > 0:
            memcpy(buffer_extend(&self.carry, left), at, left)
        return FINE

    cdef int _take_preface(self, const uint8_t* at, Py_ssize_t left) noexcept:
        """How many octets were the preface; -1: the first wrong octet was seen."""
        cdef int part = <int> min(left, self.preface_left)
        if memcmp(at, PREFACE + PREFACE_LENGTH - self.preface_left, part) != 0:
            return -1
        self.preface_left -= part
        return part

    cdef int _frame(self, const uint8_t* header, Py_ssize_t length) except -1:
        """One whole frame; its length was checked."""
        cdef const uint8_t* at = header + FRAME_HEADER
        cdef int kind = header[3]
        cdef int flags = header[4]
        cdef uint32_t stream_id = read_31(header + 5)
        if self.block_stream != 0 and (kind != TYPE_CONTINUATION or stream_id != self.block_stream):
            return self._fail(E_PROTOCOL, "a field block is interrupted by another frame")
        if not self.settings_received and (kind != TYPE_SETTINGS or flags & ACK):
            return self._fail(E_PROTOCOL, "the first frame is not SETTINGS")
        if kind == TYPE_DATA:
            return self._data(at, length, flags, stream_id)
        if kind == TYPE_HEADERS:
            return self._headers(at, length, flags, stream_id)
        if kind == TYPE_WINDOW_UPDATE:
            return self._window_update(at, length, stream_id)
        if kind == TYPE_RST_STREAM:
            return self._rst_stream(at, length, stream_id)
        if kind == TYPE_SETTINGS:
            return self._settings(at, length, flags, stream_id)
        if kind == TYPE_PING:
            return self._ping(at, length, flags, stream_id)
        if kind == TYPE_GOAWAY:
            return self._goaway(at, length, stream_id)
        if kind == TYPE_CONTINUATION:
            return self._continuation(at, length, flags)
        if kind == TYPE_PRIORITY:
            return self._priority(at, length, stream_id)
        if kind == TYPE_PUSH_PROMISE:  # a client cannot, and a server was told not to before it could (H2-07)
            return self._fail(E_PROTOCOL, "PUSH_PROMISE where push is not allowed")
        return FINE  # unknown types are ignored (H2-11)

    # -- DATA -------------------------------------------------------------------------------------------

    cdef int _data(self, const uint8_t* at, Py_ssize_t length, int flags, uint32_t stream_id) except -1:
        cdef NativeStream stream
        cdef StreamSink sink
        cdef bytes data
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
        sink = _listener(stream)
        data = PyBytes_FromStringAndSize(<const char*> at, length)
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
        if length > 0 or end_stream:
            sink.on_data(data, end_stream)
        return FINE

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
        sink = _listener(stream)
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
        cdef Sink sink = self.sink if self.sink is not None else DEAF_CONNECTION
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

    # -- the other types --------------------------------------------------------------------------------

    cdef int _priority(self, const uint8_t* at, Py_ssize_t length, uint32_t stream_id) except -1:
        """Parsed for its length, otherwise without effect (H2-28)."""
        cdef NativeStream stream
        cdef uint32_t error_code
        if self.guard.one_priority_too_many():
            return self._fail(E_ENHANCE_YOUR_CALM, "too many PRIORITY frames")
        if stream_id == 0:
            return self._fail(E_PROTOCOL, "PRIORITY on stream 0")
        if length != 5:
            error_code = E_FRAME_SIZE
        elif read_31(at) == stream_id:
            error_code = E_PROTOCOL
        else:
            return FINE
        if self._is_idle(stream_id):
            return self._fail(error_code, "a wrong PRIORITY on an idle stream")
        stream = self.streams.get(stream_id)
        return FINE if stream is None else self._stream_error(stream, error_code)

    cdef int _rst_stream(self, const uint8_t* at, Py_ssize_t length, uint32_t stream_id) except -1:
        cdef NativeStream stream = self.streams.get(stream_id)
        cdef StreamSink sink
        if length != 4:
            return self._fail(E_FRAME_SIZE, "RST_STREAM with a wrong length")
        if stream is None:
            if self._is_idle(stream_id):
                return self._fail(E_PROTOCOL, "RST_STREAM on stream 0 or an idle stream")
            return FINE
        if self.role != CLIENT and not stream.sent_head and self.guard.one_reset_too_many():
            return self._fail(E_ENHANCE_YOUR_CALM, "too many resets caused by the peer")
        sink = _listener(stream)
        self._close_both(stream, True)
        sink.on_reset(_known(read_32(at)), True)
        return FINE

    cdef int _settings(self, const uint8_t* at, Py_ssize_t length, int flags, uint32_t stream_id) except -1:
        cdef Sink sink = self.sink if self.sink is not None else DEAF_CONNECTION
        cdef Py_ssize_t i
        cdef uint32_t window_before = self.peer_stream_window
        cdef bint opened
        if stream_id != 0:
            return self._fail(E_PROTOCOL, "SETTINGS on a stream")
        if flags & ACK:
            if length != 0:
                return self._fail(E_FRAME_SIZE, "an acknowledgement of SETTINGS with a payload")
            return self._settings_ack()
        if length % 6 != 0:
            return self._fail(E_FRAME_SIZE, "SETTINGS is not a multiple of 6 octets")
        if length // 6 > self.max_settings:
            return self._fail(E_ENHANCE_YOUR_CALM, "too many entries in a SETTINGS frame")
        self.settings_received = True
        for i in range(length // 6):
            if self._setting(at[0] << 8 | at[1], read_32(at + 2)) != FINE:
                return FATAL
            at += 6
        opened = self.peer_stream_window > window_before
        queue_frame(&self.out, 0, TYPE_SETTINGS, ACK, 0)
        if self._reply_queued() != FINE:
            return FATAL
        sink.on_settings()
        return self._maybe_say_window_opened() if opened else FINE

    cdef int _setting(self, int identifier, uint32_t value) except -1:
        """One entry; the last one of its kind wins (H2-03, H2-04)."""
        if identifier == SETTING_TABLE_SIZE:
            self.encoder.resize(value)
        elif identifier == SETTING_PUSH:
            if value > 1 or (value == 1 and self.role == CLIENT):
                return self._fail(E_PROTOCOL, "SETTINGS with a wrong ENABLE_PUSH")
        elif identifier == SETTING_STREAMS:
            self.peer_max_streams = min(value, <uint32_t> LARGEST_ID)
        elif identifier == SETTING_STREAM_WINDOW:
            return self._change_initial_window(value)
        elif identifier == SETTING_FRAME_SIZE:
            if not SMALLEST_MAX_FRAME <= value <= LARGEST_MAX_FRAME:
                return self._fail(E_PROTOCOL, "SETTINGS with a wrong MAX_FRAME_SIZE")
            self.peer_max_frame_size = value
        elif identifier == SETTING_LIST_SIZE:
            self.peer_max_list_size = value
        return FINE

    cdef int _change_initial_window(self, uint32_t value) except -1:
        """All open streams move by the difference, below zero if need be (H2-42)."""
        cdef int64_t difference = <int64_t> value - self.peer_stream_window
        cdef object found
        if value > LARGEST_WINDOW:
            return self._fail(E_FLOW_CONTROL, "SETTINGS with a wrong INITIAL_WINDOW_SIZE")
        self.peer_stream_window = value
        for found in self.streams.slots:
            if found is None:
                continue
            (<NativeStream> found).send_window += difference
            if (<NativeStream> found).send_window > LARGEST_WINDOW:
                return self._fail(E_FLOW_CONTROL, "SETTINGS that make a stream's window overflow")
        return FINE

    cdef int _settings_ack(self) except -1:
        """Only now a window below the default one binds the peer (H2-03)."""
        cdef object found
        if self.settings_acknowledged:
            return FINE
        self.settings_acknowledged = True
        if self.stream_window < DEFAULT_WINDOW:
            for found in self.streams.slots:
                if found is not None:
                    (<NativeStream> found).receive_window -= DEFAULT_WINDOW - self.stream_window
        return FINE

    cdef int _ping(self, const uint8_t* at, Py_ssize_t length, int flags, uint32_t stream_id) except -1:
        cdef Sink sink = self.sink if self.sink is not None else DEAF_CONNECTION
        cdef bytes payload
        if length != 8:
            return self._fail(E_FRAME_SIZE, "PING with a wrong length")
        if stream_id != 0:
            return self._fail(E_PROTOCOL, "PING on a stream")
        if not flags & ACK:
            memcpy(queue_frame(&self.urgent, 8, TYPE_PING, ACK, 0), at, 8)
            return self._reply_queued()
        payload = PyBytes_FromStringAndSize(<const char*> at, 8)
        if self.pings is not None and payload in self.pings:
            self.pings.remove(payload)
            sink.on_ping_ack(payload)
        return FINE

    cdef int _goaway(self, const uint8_t* at, Py_ssize_t length, uint32_t stream_id) except -1:
        cdef Sink sink = self.sink if self.sink is not None else DEAF_CONNECTION
        cdef list sinks = []
        cdef bytes debug
        cdef uint32_t last
        cdef uint32_t error_code
        if stream_id != 0:
            return self._fail(E_PROTOCOL, "GOAWAY on a stream")
        if length < 8:
            return self._fail(E_FRAME_SIZE, "GOAWAY is too short")
        last = read_31(at)
        error_code = _known(read_32(at + 4))
        debug = PyBytes_FromStringAndSize(<const char*> at + 8, length - 8)
        if self.role == CLIENT:
            if last != 0 and last % 2 == 0:
                return self._fail(E_PROTOCOL, "GOAWAY names a stream that we cannot have opened")
            if self.goaway_received >= 0 and last > self.goaway_received:
                return self._fail(E_PROTOCOL, "a second GOAWAY raises the last stream id")
        self.goaway_received = last
        if self.role == CLIENT:
            for stream in self.streams.in_order():
                if (<NativeStream> stream).id > last:
                    sinks.append(_listener(<NativeStream> stream))
                    self._close_both(<NativeStream> stream, False)  # what it still sends is late, not wrong
        for refused in sinks:
            (<StreamSink> refused).on_reset(E_REFUSED_STREAM, True)
        sink.on_goaway(last, error_code, debug)
        return FINE

    cdef int _window_update(self, const uint8_t* at, Py_ssize_t length, uint32_t stream_id) except -1:
        cdef NativeStream stream = None
        cdef StreamSink sink
        cdef int64_t increment
        if length != 4:
            return self._fail(E_FRAME_SIZE, "WINDOW_UPDATE with a wrong length")
        if stream_id != 0:
            stream = self.streams.get(stream_id)
            if stream is None and self._is_idle(stream_id):
                return self._fail(E_PROTOCOL, "WINDOW_UPDATE on an idle stream")
        if self.guard.one_window_update_too_many():
            return self._fail(E_ENHANCE_YOUR_CALM, "too many WINDOW_UPDATE frames for what was sent")
        increment = read_31(at)
        if stream_id == 0:
            if increment == 0:
                return self._fail(E_PROTOCOL, "WINDOW_UPDATE by 0 on the connection")
            if self.send_window + increment > LARGEST_WINDOW:
                return self._fail(E_FLOW_CONTROL, "the connection window overflows")
            self.send_window += increment
            return self._maybe_say_window_opened()
        if stream is None:
            return FINE
        if increment == 0:
            return self._stream_error(stream, E_PROTOCOL)
        if stream.send_window + increment > LARGEST_WINDOW:
            return self._stream_error(stream, E_FLOW_CONTROL)
        stream.send_window += increment
        if stream.cut_short and not stream.local_closed and stream.send_window > 0 and self.send_window > 0:
            stream.cut_short = False
            sink = _listener(stream)
            sink.on_window()
        return FINE

    cdef int _maybe_say_window_opened(self) except -1:
        cdef Sink sink = self.sink if self.sink is not None else DEAF_CONNECTION
        if self.cut_short and self.send_window > 0:
            self.cut_short = False
            sink.on_window()
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
        cdef StreamSink sink = _listener(stream)
        if self.guard.one_reset_too_many():
            return self._fail(E_ENHANCE_YOUR_CALM, "too many resets caused by the peer")
        if self._reply_queued() != FINE:
            return FATAL
        queue_word(&self.out, TYPE_RST_STREAM, stream.id, error_code)
        self._close_both(stream, False)
        sink.on_reset(error_code, False)
        return FINE

    cdef int _frame_too_long(self, Py_ssize_t length) except -1:
        return self._fail(E_FRAME_SIZE, f"a frame of {length} octets where {self.max_frame_size} are allowed")

    cdef int _fail(self, uint32_t error_code, str reason) except -1:
        """The connection ends; `receive_data` says so to the peer and raises."""
        self.fault_code = error_code
        self.fault = reason
        return FATAL
