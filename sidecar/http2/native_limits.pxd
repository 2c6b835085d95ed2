# The flood counters of `limits`, in C. A method that counts answers whether that was one too many.

from libc.stdint cimport uint64_t


cdef class NativeFloodGuard:
    # What each RPC touches comes first, in one cache line.
    cdef double now
    cdef uint64_t streams
    cdef uint64_t data_frames_sent
    cdef int queued_replies
    cdef int empty_data
    cdef int streams_this_read
    cdef bint refilled
    # Everything else.
    cdef double tokens
    cdef double refilled_at
    cdef uint64_t priorities
    cdef uint64_t window_updates

    cdef double reset_rate
    cdef double reset_burst
    cdef int max_queued_control_frames
    cdef int max_empty_data_frames
    cdef int max_streams_per_read
    cdef uint64_t max_priority_frames

    cdef void refill(self, double now) noexcept
    cdef bint one_empty_data_too_many(self) noexcept
    cdef bint one_reset_too_many(self) noexcept
    cdef bint one_reply_too_many(self) noexcept
    cdef bint one_stream_too_many(self) noexcept
    cdef bint one_priority_too_many(self) noexcept
    cdef bint one_window_update_too_many(self) noexcept
