# The native codec: octets to frames, and the frames about the connection.
#
#   SendingHalf (commands, shared state) <- ReceivingHalf (DATA, field blocks) <- NativeCodec

from libc.stdint cimport uint8_t, uint32_t

from sidecar.http2.buffer cimport Buffer
from sidecar.http2.native_receiving cimport ReceivingHalf


cdef class NativeCodec(ReceivingHalf):
    cdef bint receiving  # receive_data runs
    cdef int preface_left  # octets of the preface that have not arrived (SERVER)
    cdef Buffer carry  # of a frame that has not arrived whole
    cdef uint32_t max_frame_size
    cdef uint32_t max_settings

    # octets to frames
    cdef int _take(self, const uint8_t* at, Py_ssize_t left) except -1
    cdef int _take_preface(self, const uint8_t* at, Py_ssize_t left) noexcept
    cdef int _frame(self, const uint8_t* header, Py_ssize_t length) except -1
    cdef Py_ssize_t carried(self) noexcept
    cdef int take_carried(self, char* into) noexcept
    cdef int _frame_too_long(self, Py_ssize_t length) except -1
    cdef int _bury(self, uint32_t error_code, str reason) except -1

    # about the connection, and about streams without a message
    cdef int _priority(self, const uint8_t* at, Py_ssize_t length, uint32_t stream_id) except -1
    cdef int _rst_stream(self, const uint8_t* at, Py_ssize_t length, uint32_t stream_id) except -1
    cdef int _settings(self, const uint8_t* at, Py_ssize_t length, int flags, uint32_t stream_id) except -1
    cdef int _setting(self, int identifier, uint32_t value) except -1
    cdef int _settings_ack(self) except -1
    cdef int _ping(self, const uint8_t* at, Py_ssize_t length, int flags, uint32_t stream_id) except -1
    cdef int _goaway(self, const uint8_t* at, Py_ssize_t length, uint32_t stream_id) except -1
    cdef int _window_update(self, const uint8_t* at, Py_ssize_t length, uint32_t stream_id) except -1

    # windows
    cdef int _change_initial_window(self, uint32_t value) except -1
    cdef int _maybe_say_window_opened(self) except -1
