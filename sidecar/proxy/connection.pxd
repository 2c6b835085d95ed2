# The C face of a connection; what it does is written in connection.py.

cimport cython

from sidecar.http2.interface cimport Codec, Sink
from sidecar.proxy.engine cimport Engine
from sidecar.proxy.outlet cimport Outlet


cdef class Connection(Sink):
    cdef public Engine engine
    cdef public Codec codec
    cdef public object transport
    cdef public bint dirty
    cdef public long long flushes
    cdef public bint paused
    cdef public bint closing
    cdef public dict blocked
    cdef public str peer
    cdef Outlet _outlet
    cdef object _linger
    cdef object __weakref__

    cpdef object feed(self, bytes data)
    cpdef object touch(self)
    cpdef object flush(self)
    @cython.locals(limit=Py_ssize_t, data=bytes)
    cpdef object _write(self, Outlet outlet)
    cpdef object block(self, object relay)
    cpdef bint serve_blocked(self) except -1
    cpdef object on_window(self)
