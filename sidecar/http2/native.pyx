"""The native codec: frames straight from the received octets, nothing made for a frame but what a sink is given.

Here octets become frames, and the frames that are about the connection are taken; `native_receiving` takes those
that carry a message, `native_sending` has the commands.
Rules for the pointers: `receive_data` holds the bytes object that is read from; nothing is read from `carry` after a
sink was called but by `_take`, which owns it (a channel takes it over between two reads), and `receive_data` inside
`receive_data` is refused. A sink may command anything, so no state is kept across its call.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcmp, memcpy

from sidecar.http2.buffer cimport buffer_clear, buffer_extend
from sidecar.http2.errors import LocalProtocolError, RemoteProtocolError
from sidecar.http2.frame cimport *
from sidecar.http2.interface cimport Sink, StreamSink
from sidecar.http2.native_receiving cimport FATAL, FINE, ReceivingHalf
from sidecar.http2.native_stream cimport NativeStream

cdef enum:
    CLIENT = 0
    PREFACE_LENGTH = 24
    DEFAULT_WINDOW = 65535
    LARGEST_ID = 0x7FFF_FFFF
    SMALLEST_MAX_FRAME = 16384
    LARGEST_MAX_FRAME = 16777215

cdef int64_t LARGEST_WINDOW = 0x7FFF_FFFF
cdef const char* PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


cdef inline uint32_t _known(uint32_t error_code) noexcept:
    """An unknown error code has no special meaning (H2-16)."""
    return error_code if error_code <= E_LAST_KNOWN else E_INTERNAL


cdef class NativeCodec(ReceivingHalf):
    """`Codec` in C."""

    def __init__(self, int role, object settings, Sink sink not None):
        ReceivingHalf.__init__(self, role, settings, sink)
        self.preface_left = 0 if role == CLIENT else PREFACE_LENGTH
        self.max_frame_size = settings.max_frame_size
        self.max_settings = settings.max_settings_per_frame

    def __dealloc__(self):
        buffer_clear(&self.carry)

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
        self.whole = data
        self.guard.streams_this_read = 0
        try:
            outcome = alive._take(<const uint8_t*> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        except BaseException:
            alive._bury(E_INTERNAL, "a bug on this side")
            raise
        finally:
            alive.receiving = False
            alive.whole = None
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

    cdef Py_ssize_t carried(self) noexcept:
        """Octets of a frame that has not arrived whole."""
        return self.carry.length

    cdef int take_carried(self, char* into) noexcept:
        """They are there from now on: the next `receive_data` must begin with them."""
        memcpy(into, self.carry.start, self.carry.length)
        buffer_clear(&self.carry)
        return 0

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

    # -- about the connection ----------------------------------------------------------------------------

    cdef int _priority(self, const uint8_t* at, Py_ssize_t length, uint32_t stream_id) except -1:
        """Parsed for its length, otherwise without effect (H2-28). A wrong length is answered on a closed stream,
        too: its sender cannot count frames, and an answer is all that it may learn that from.
        """
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
        if stream is not None:
            return self._stream_error(stream, error_code)
        if error_code != E_FRAME_SIZE:
            return FINE
        queue_word(&self.out, TYPE_RST_STREAM, stream_id, error_code)
        return self._reply_queued()

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
        sink = self._listener(stream)
        self._close_both(stream, True)
        sink.on_reset(_known(read_32(at)), True)
        return FINE

    cdef int _settings(self, const uint8_t* at, Py_ssize_t length, int flags, uint32_t stream_id) except -1:
        cdef Sink sink = self._connection_listener()
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
        cdef Sink sink = self._connection_listener()
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
        cdef Sink sink = self._connection_listener()
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
                    sinks.append(self._listener(<NativeStream> stream))
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
            sink = self._listener(stream)
            sink.on_window()
        return FINE

    cdef int _maybe_say_window_opened(self) except -1:
        cdef Sink sink = self._connection_listener()
        if self.cut_short and self.send_window > 0:
            self.cut_short = False
            sink.on_window()
        return FINE

    cdef int _frame_too_long(self, Py_ssize_t length) except -1:
        return self._fail(E_FRAME_SIZE, f"a frame of {length} octets where {self.max_frame_size} are allowed")
