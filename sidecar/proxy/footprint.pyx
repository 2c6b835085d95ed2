"""Where in memory the next RPC to an endpoint will look, so that all of it is on its way before the first look.

With a thousand endpoints nothing of a connection is in a cache when its turn comes, and an RPC that follows pointers waits
for some twenty lines of memory one after the other, 0.4 us each. Asked for together at the pick they arrive together:
measured in docs/decisions/0017. An address that is stale costs nothing but its own use, for asking ahead never faults; so
nobody tells a footprint of changes, it is taken anew from time to time.
"""

from cpython.object cimport PyObject
from libc.stdint cimport uintptr_t

from sidecar.http2.hpack_decoder cimport Remembered
from sidecar.http2.hpack_encoder cimport Recipe
from sidecar.http2.native cimport NativeCodec
from sidecar.policy.endpoint cimport Endpoint, Footprint
from sidecar.proxy.channel cimport Channel
from sidecar.proxy.upstream cimport UpstreamConnection

cdef extern from *:
    void __builtin_prefetch(const void* at) nogil

cdef extern from "Python.h":
    ctypedef struct PyListObject:
        PyObject** ob_item

cdef enum:
    LINE = 64  # octets of a cache line
    MOST_LINES = 8  # of one run: what is larger is a table, of which an RPC looks at a line or two
    CODEC = 448  # octets of a codec, which is touched all over


cdef class ConnectionFootprint(Footprint):
    """Of an endpoint and the connection that its next RPC will probably take."""

    cpdef object fetch(self):
        cdef int run
        cdef int line
        for run in range(self.count):
            for line in range((self.runs[run] & (LINE - 1)) + 1):
                __builtin_prefetch(<const void*> ((self.runs[run] & ~<uintptr_t> (LINE - 1)) + line * LINE))

    cdef int _note(self, const void* start, Py_ssize_t length) except -1:
        """An RPC looks at the `length` octets from `start` on."""
        cdef uintptr_t first = <uintptr_t> start & ~<uintptr_t> (LINE - 1)
        cdef uintptr_t lines = (<uintptr_t> start + length - first + LINE - 1) // LINE
        if start != NULL and lines <= MOST_LINES and self.count < MOST_RUNS:
            self.runs[self.count] = first | (lines - 1)
            self.count += 1
        return 0

    cpdef object take(self, Endpoint endpoint, object connection):
        """Objects begin with what each RPC touches: the rest of them is left out."""
        self.count = 0
        self._note(<void*> endpoint, 2 * LINE)
        self._note(<void*> endpoint.latency, LINE)
        if endpoint.standing is not None:
            self._note(<void*> endpoint.standing, LINE)
            self._note(<void*> endpoint.standing.window, LINE)
        self._note_connection(connection)

    cdef int _note_connection(self, UpstreamConnection connection) except -1:
        self._note(<void*> connection.pool, LINE)
        self._note_list(connection.pool.connections)
        self._note(<void*> connection, 3 * LINE)
        if isinstance(connection.transport, Channel):
            self._note(<void*> connection.transport, LINE)
        if isinstance(connection.codec, NativeCodec):
            self._note_codec(connection.codec)
        return 0

    cdef int _note_codec(self, NativeCodec codec) except -1:
        self._note(<void*> codec, CODEC)
        self._note(<void*> codec.guard, LINE)
        self._note(<void*> codec.closed, LINE)
        self._note(<void*> codec.streams, LINE)
        self._note_list(codec.streams.slots)
        self._note(<void*> codec.encoder, LINE)
        self._note(codec.encoder.recipes, sizeof(Recipe) << codec.encoder.recipe_bits)
        self._note(<void*> codec.decoder, LINE)
        self._note(codec.decoder.memo, sizeof(Remembered) * codec.decoder.memo_slots)
        return 0

    def __repr__(self):
        lines = sum([(self.runs[run] & (LINE - 1)) + 1 for run in range(self.count)])
        return f"<ConnectionFootprint {lines} lines in {self.count} runs>"

    cdef int _note_list(self, list items) except -1:
        """A short list: itself, and where its items stand."""
        self._note(<void*> items, LINE)
        self._note((<PyListObject*> items).ob_item, sizeof(PyObject*))
        return 0
