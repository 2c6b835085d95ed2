"""Where in memory the next RPC to an endpoint will look, so that all of it is on its way before the first look.

With a thousand endpoints nothing of a connection is in a cache when its turn comes, and an RPC that follows pointers waits
for some twenty lines of memory one after the other, 0.4 us each. Asked for together at the pick they arrive together:
measured in docs/decisions/0017. An address that is stale costs nothing but its own use, for asking ahead never faults; so
nobody tells of changes, the footprint is taken anew from time to time. It is noted in the endpoint, beside what the pick
has just looked at, as runs: the address of a cache line, and in its low bits how many more follow.
"""

from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport uintptr_t

from sidecar.http2.hpack_decoder cimport Remembered
from sidecar.http2.hpack_encoder cimport Recipe
from sidecar.http2.native cimport NativeCodec
from sidecar.policy.endpoint cimport MOST_RUNS, Endpoint
from sidecar.proxy.channel cimport Channel
from sidecar.proxy.footprint cimport Footprint
from sidecar.proxy.upstream cimport UpstreamConnection

cdef extern from *:
    void __builtin_prefetch(const void* at) nogil

cdef extern from "Python.h":
    ctypedef struct PyListObject:
        PyObject** ob_item

cdef enum:
    LINE = 64  # octets of a cache line
    MOST_LINES = 9  # of one run: a codec's, wherever it begins; what is larger is a table, looked at in a line or two


cdef class HeapFootprint(Footprint):
    """One for all endpoints."""

    cpdef object fetch(self, Endpoint endpoint):
        cdef int run
        cdef int line
        for run in range(endpoint.run_count):
            for line in range((endpoint.runs[run] & (LINE - 1)) + 1):
                __builtin_prefetch(<const void*> ((endpoint.runs[run] & ~<uintptr_t> (LINE - 1)) + line * LINE))

    cpdef object take(self, Endpoint endpoint, object connection):
        """In the order in which an RPC comes by. Objects begin with what it touches: the rest of them is left out."""
        endpoint.run_count = 0
        _note_connection(endpoint, connection)
        if endpoint.standing is not None:
            _note(endpoint, <void*> endpoint.standing, LINE)
            _note(endpoint, <void*> endpoint.standing.window, LINE)
        _note(endpoint, <void*> endpoint.latency, LINE)

    def count(self, Endpoint endpoint not None):
        """Lines and runs of an endpoint."""
        return sum([(endpoint.runs[run] & (LINE - 1)) + 1 for run in range(endpoint.run_count)]), endpoint.run_count


cdef int _note_connection(Endpoint endpoint, UpstreamConnection connection) except -1:
    _note(endpoint, <void*> connection.pool, LINE)
    _note_list(endpoint, connection.pool.connections)
    _note(endpoint, <void*> connection, 3 * LINE)
    if isinstance(connection.codec, NativeCodec):
        _note_codec(endpoint, connection.codec)
    if isinstance(connection.transport, Channel):
        _note(endpoint, <void*> connection.transport, LINE)
    return 0


cdef int _note_codec(Endpoint endpoint, NativeCodec codec) except -1:
    _note(endpoint, <void*> codec, (<PyTypeObject*> NativeCodec).tp_basicsize)  # it is touched all over
    _note(endpoint, <void*> codec.streams, LINE)
    _note(endpoint, <void*> codec.encoder, LINE)
    _note(endpoint, codec.encoder.recipes, sizeof(Recipe) << codec.encoder.recipe_bits)
    _note_list(endpoint, codec.streams.slots)
    _note(endpoint, <void*> codec.guard, LINE)
    _note(endpoint, <void*> codec.decoder, LINE)
    _note(endpoint, codec.decoder.memo, sizeof(Remembered) * codec.decoder.memo_slots)
    _note(endpoint, <void*> codec.closed, LINE)
    return 0


cdef int _note_list(Endpoint endpoint, list items) except -1:
    """A short list: itself, and where its items stand."""
    _note(endpoint, <void*> items, LINE)
    _note(endpoint, (<PyListObject*> items).ob_item, sizeof(PyObject*))
    return 0


cdef int _note(Endpoint endpoint, const void* start, Py_ssize_t length) except -1:
    """An RPC looks at the `length` octets from `start` on."""
    cdef uintptr_t first = <uintptr_t> start & ~<uintptr_t> (LINE - 1)
    cdef uintptr_t lines = (<uintptr_t> start + length - first + LINE - 1) // LINE
    if start != NULL and lines <= MOST_LINES and endpoint.run_count < MOST_RUNS:
        endpoint.runs[endpoint.run_count] = first | (lines - 1)
        endpoint.run_count += 1
    return 0
