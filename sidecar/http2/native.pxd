# The native codec: its receiving half. Read the groups from top to bottom as the way of one frame.

from libc.stdint cimport int64_t, uint8_t, uint32_t

from sidecar.http2.buffer cimport Buffer
from sidecar.http2.hpack_decoder cimport Decoded, HpackDecoder
from sidecar.http2.native_block cimport NativeBlock
from sidecar.http2.native_sending cimport SendingHalf
from sidecar.http2.native_stream cimport NativeStream

# What a method answers: FINE, or FATAL after `_fail`. A sink's exception travels as an exception.
cdef enum Outcome:
    FINE = 0
    FATAL = 1


cdef class NativeCodec(SendingHalf):
    cdef HpackDecoder decoder
    cdef bint receiving  # receive_data runs
    cdef int preface_left  # octets of the preface that have not arrived (SERVER)
    cdef Buffer carry  # of a frame that has not arrived whole
    cdef uint32_t max_frame_size
    cdef uint32_t highest_received  # of the peer's streams, ignored ones included

    # a field block that CONTINUATION frames may still add to
    cdef uint32_t block_stream  # 0: none
    cdef bint block_ends_stream
    cdef bint block_depends_on_itself
    cdef int block_frames
    cdef Buffer block  # its octets; empty while the block is a single frame

    # limits
    cdef int max_block_frames
    cdef Py_ssize_t max_block_size
    cdef uint32_t max_streams
    cdef uint32_t max_settings
    cdef int max_informational

    # why the connection ends
    cdef uint32_t fault_code
    cdef str fault

    # octets to frames
    cdef int _take(self, const uint8_t* at, Py_ssize_t left) except -1
    cdef int _take_preface(self, const uint8_t* at, Py_ssize_t left) noexcept
    cdef int _frame(self, const uint8_t* header, Py_ssize_t length) except -1

    # one per type
    cdef int _data(self, const uint8_t* at, Py_ssize_t length, int flags, uint32_t stream_id) except -1
    cdef int _headers(self, const uint8_t* at, Py_ssize_t length, int flags, uint32_t stream_id) except -1
    cdef int _continuation(self, const uint8_t* at, Py_ssize_t length, int flags) except -1
    cdef int _priority(self, const uint8_t* at, Py_ssize_t length, uint32_t stream_id) except -1
    cdef int _rst_stream(self, const uint8_t* at, Py_ssize_t length, uint32_t stream_id) except -1
    cdef int _settings(self, const uint8_t* at, Py_ssize_t length, int flags, uint32_t stream_id) except -1
    cdef int _setting(self, int identifier, uint32_t value) except -1
    cdef int _settings_ack(self) except -1
    cdef int _ping(self, const uint8_t* at, Py_ssize_t length, int flags, uint32_t stream_id) except -1
    cdef int _goaway(self, const uint8_t* at, Py_ssize_t length, uint32_t stream_id) except -1
    cdef int _window_update(self, const uint8_t* at, Py_ssize_t length, uint32_t stream_id) except -1

    # field blocks
    cdef int _block_done(self, const uint8_t* at, Py_ssize_t length) except -1
    cdef int _request(self, uint32_t stream_id, NativeBlock block, bint end_stream, bint self_dependent) except -1
    cdef int _refusal(self, NativeBlock block, bint end_stream, bint self_dependent) noexcept
    cdef int _block_on_no_stream(self, uint32_t stream_id) except -1
    cdef int _wrong_block(self, NativeStream stream, NativeBlock block, bint end_stream, bint self_dependent) noexcept
    cdef int _wrong_data(self, NativeStream stream, int64_t size, int64_t length, bint end_stream) noexcept

    # windows
    cdef int _change_initial_window(self, uint32_t value) except -1
    cdef int _maybe_say_window_opened(self) except -1

    # verdicts
    cdef bint _is_idle(self, uint32_t stream_id) noexcept
    cdef int _reply_queued(self) except -1
    cdef int _stream_error(self, NativeStream stream, uint32_t error_code) except -1
    cdef int _bury(self, uint32_t error_code, str reason) except -1
    cdef int _frame_too_long(self, Py_ssize_t length) except -1
    cdef int _fail(self, uint32_t error_code, str reason) except -1
