# The C face of a connection; what it does is written in connection.py.

cimport cython

from sidecar.http2.interface cimport Codec, Sink
from sidecar.proxy.engine cimport Engine
from sidecar.proxy.outlet cimport Outlet
from sidecar.proxy.rider cimport Rider


cdef class Connection(Sink):
    # What each RPC touches comes first: among a thousand connections none of it is in a cache.
    cdef public Engine engine
    cdef public Codec codec
    cdef Outlet _outlet
    cdef object _linger
    cdef public dict blocked
    cdef Rider _newest
    cdef public Connection next_dirty
    cdef readonly long riders
    cdef public long long flushes
    cdef public bint dirty
    cdef public bint paused
    cdef public bint closing
    # Everything else.
    cdef public object transport
    cdef public str peer
    cdef object __weakref__

    cpdef object take(self, bytes data)
    cpdef object feed(self, bytes data)
    @cython.locals(newest=Rider)
    cpdef object mount(self, Rider rider)
    @cython.locals(older=Rider, newer=Rider)
    cpdef object dismount(self, Rider rider)
    @cython.locals(found=list, rider=Rider)
    cpdef list list_riders(self)
    cpdef object touch(self)
    cpdef object flush(self)
    @cython.locals(limit=Py_ssize_t, size=Py_ssize_t)
    cpdef object _write(self, Outlet outlet)
    cpdef object block(self, object relay)
    cpdef object unblock(self, object relay)
    cpdef bint serve_blocked(self) except -1
    cpdef object on_window(self)
