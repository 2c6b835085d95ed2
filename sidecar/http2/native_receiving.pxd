# What arrives on streams: DATA and field blocks, and the verdicts on them.

from libc.stdint cimport int64_t, uint8_t, uint32_t

from sidecar.http2.buffer cimport Buffer
from sidecar.http2.hpack_decoder cimport HpackDecoder
from sidecar.http2.interface cimport Sink, StreamSink
from sidecar.http2.native_block cimport NativeBlock
from sidecar.http2.native_sending cimport SendingHalf
from sidecar.http2.native_stream cimport NativeStream

# What a method answers: FINE, or FATAL after `_fail`. A sink's exception travels as an exception.
cdef enum Outcome:
    FINE = 0
    FATAL = 1


cdef class ReceivingHalf(SendingHalf):
    cdef bytes whole  # what receive_data runs on, None: it does not
    cdef HpackDecoder decoder
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
    cdef int max_informational

    # why the connection ends
    cdef uint32_t fault_code
    cdef str fault

    # who hears of it
    cdef StreamSink _listener(self, NativeStream stream)
    cdef Sink _connection_listener(self)

    # frames
    cdef int _data(self, const uint8_t* at, Py_ssize_t length, int flags, uint32_t stream_id) except -1
    cdef bint _offer_part(self, StreamSink sink, const uint8_t* at, Py_ssize_t length, bint end_stream) except -1
    cdef int _wrong_data(self, NativeStream stream, int64_t size, int64_t length, bint end_stream) noexcept
    cdef int _headers(self, const uint8_t* at, Py_ssize_t length, int flags, uint32_t stream_id) except -1
    cdef int _continuation(self, const uint8_t* at, Py_ssize_t length, int flags) except -1

    # field blocks
    cdef int _block_done(self, const uint8_t* at, Py_ssize_t length) except -1
    cdef int _wrong_block(self, NativeStream stream, NativeBlock block, bint end_stream, bint self_dependent) noexcept
    cdef int _request(self, uint32_t stream_id, NativeBlock block, bint end_stream, bint self_dependent) except -1
    cdef int _refusal(self, NativeBlock block, bint end_stream, bint self_dependent) noexcept
    cdef int _block_on_no_stream(self, uint32_t stream_id) except -1

    # verdicts
    cdef bint _is_idle(self, uint32_t stream_id) noexcept
    cdef int _reply_queued(self) except -1
    cdef int _stream_error(self, NativeStream stream, uint32_t error_code) except -1
    cdef int _fail(self, uint32_t error_code, str reason) except -1
