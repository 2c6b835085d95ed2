# Where in memory the next RPC to an endpoint will look; what it does is written in footprint.pyx.

from libc.stdint cimport uintptr_t

from sidecar.http2.native cimport NativeCodec
from sidecar.policy.endpoint cimport Endpoint, Footprint
from sidecar.proxy.upstream cimport UpstreamConnection

cdef enum:
    MOST_RUNS = 20


cdef class ConnectionFootprint(Footprint):
    cdef int count
    cdef uintptr_t[MOST_RUNS] runs  # the address of a cache line, and in its low bits how many more follow

    cpdef object fetch(self)
    cpdef object take(self, Endpoint endpoint, object connection)
    cdef int _note(self, const void* start, Py_ssize_t length) except -1
    cdef int _note_connection(self, UpstreamConnection connection) except -1
    cdef int _note_codec(self, NativeCodec codec) except -1
    cdef int _note_list(self, list items) except -1
