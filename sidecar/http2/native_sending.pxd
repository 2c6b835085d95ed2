# The sending half of the native codec, and the state that both halves share.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from sidecar.http2.buffer cimport Buffer
from sidecar.http2.hpack_encoder cimport HpackEncoder
from sidecar.http2.interface cimport Codec, HeaderBlock, Stream, StreamSink
from sidecar.http2.native_limits cimport NativeFloodGuard
from sidecar.http2.native_stream cimport ClosedStreams, NativeStream, StreamTable
from sidecar.http2.parts cimport Parts, iovec


cdef class SendingHalf(Codec):
    # the connection
    cdef int64_t serial  # tells this codec's streams from another's
    cdef bint dead  # a connection error was raised: nothing is taken, nothing more is queued
    cdef NativeFloodGuard guard
    cdef Buffer urgent  # leaves first: the preface, PING ACKs, WINDOW_UPDATEs (H2-50)
    cdef Buffer out
    cdef Parts parts  # between the octets of `out`
    cdef list pings  # payloads that wait for their ACK
    cdef uint32_t goaway_sent  # requests above it are ignored
    cdef int64_t goaway_received  # -1: none

    # streams
    cdef StreamTable streams  # open or half-closed
    cdef ClosedStreams closed
    cdef uint32_t next_id  # CLIENT: of the next stream; past LARGEST_STREAM_ID when none is left
    cdef uint32_t highest_served  # of the peer's streams

    # what the peer's SETTINGS say
    cdef bint settings_received
    cdef uint32_t peer_max_streams
    cdef uint32_t peer_stream_window
    cdef uint32_t peer_max_frame_size
    cdef int64_t peer_max_list_size  # -1: it did not say

    # what we may send
    cdef HpackEncoder encoder
    cdef int64_t send_window
    cdef int64_t output_allowance  # octets of DATA that may still be queued
    cdef bint cut_short  # some send_data took less than it was given since the last on_window

    # what the peer may send
    cdef int64_t stream_window
    cdef int64_t connection_window
    cdef bint settings_acknowledged
    cdef int64_t receive_window_left
    cdef int64_t receive_due  # given back, not announced yet
    cdef bint hold
    cdef int64_t held  # delivered while held, not credited to the connection yet

    # octets
    cdef int gather(self, iovec* into) noexcept  # at most MOST_VECTORS: all that is queued, in order
    cdef int forget_queued(self) except -1  # they have left, or nobody wants them

    # checks
    cdef uint32_t _streams_allowed(self) noexcept
    cdef NativeStream _own(self, Stream stream)
    cdef NativeStream _sendable(self, Stream stream)
    cdef int _check_list_size(self, HeaderBlock block) except -1

    # frames
    cdef int _send_head(self, Stream stream, HeaderBlock block, bint end_stream) except -1
    cdef int _queue_block(self, uint32_t stream_id, HeaderBlock block, bint end_stream) except -1
    cdef int _queue_data(
        self, uint32_t stream_id, const unsigned char* data, Py_ssize_t length, bint end_stream
    ) except -1
    cdef int _queue_part(
        self, uint32_t stream_id, bytes whole, const unsigned char* at, Py_ssize_t size, bint end_stream
    ) except -1
    cdef int _queue_goaway(self, uint32_t last_stream_id, uint32_t error_code, bytes debug) except -1

    # stream life
    cdef NativeStream _new_stream(self, uint32_t stream_id, StreamSink sink)
    cdef int _close_local(self, NativeStream stream) except -1
    cdef int _close_remote(self, NativeStream stream) except -1
    cdef int _close_both(self, NativeStream stream, bint peer_knows) except -1
    cdef int _forget(self, NativeStream stream, bint peer_knows) except -1

    # credit
    cdef int _credit_connection(self, int64_t size) except -1
    cdef int _credit_stream(self, NativeStream stream, int64_t size) except -1
