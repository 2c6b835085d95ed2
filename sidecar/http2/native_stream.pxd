# One stream of the native codec, the table of those that are open, and the memory of those that were.

from libc.stdint cimport int64_t, uint32_t

from sidecar.http2.interface cimport Stream, StreamSink


cdef class NativeStream(Stream):
    cdef int64_t connection  # serial number of the codec that made it
    cdef bint live  # in the codec's table: open or half-closed

    # what was received
    cdef bint received_head  # a request head, or a final response head
    cdef int informational  # 1xx heads
    cdef int64_t octets_left  # of content-length; -1: none announced
    cdef bint head_only  # our request was HEAD

    # what the peer may still send
    cdef int64_t receive_window
    cdef int64_t receive_due  # given back, not announced yet
    cdef int64_t unacknowledged  # delivered to the sink, not given back yet

    # what was sent
    cdef bint sent_head
    cdef int64_t send_window
    cdef bint cut_short  # the last send_data took less than it was given


cdef class StreamTable:
    cdef list slots  # NativeStream or None; a list, because the garbage collector must see them
    cdef readonly uint32_t count
    cdef uint32_t mask

    cdef NativeStream get(self, uint32_t stream_id)  # None: not open
    cdef int add(self, NativeStream stream) except -1
    cdef int remove(self, uint32_t stream_id) except -1
    cdef list in_order(self)  # by rising id
    cdef uint32_t _home(self, uint32_t stream_id) noexcept
    cdef int _empty(self, uint32_t capacity) except -1
    cdef int _rebuild(self, uint32_t capacity) except -1


cdef enum Closed:
    NOT_KNOWN = 0  # never used, or too long ago
    PEER_KNOWS = 1  # ended by both, or by the peer's RST_STREAM: a frame on it is wrong
    PEER_MAY_NOT_KNOW = 2  # ended by our RST_STREAM: a frame on it has crossed ours


cdef class ClosedStreams:
    cdef uint32_t* ids  # slot (id / 2) modulo the capacity: the last stream that closed there
    cdef uint32_t capacity

    cdef int remember(self, uint32_t stream_id, bint peer_knows) except -1
    cdef Closed how(self, uint32_t stream_id) noexcept
    cdef int _grow(self, uint32_t capacity) except -1
