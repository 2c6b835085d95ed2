# The C face of an outlet; what it does is written in outlet.py.

cimport cython

from sidecar.http2.interface cimport Codec


cdef class Outlet:
    cpdef object write(self, bytes data)
    @cython.locals(data=bytes)
    cpdef Py_ssize_t write_queued(self, Codec codec) except -1


cdef class TransportOutlet(Outlet):
    cdef object transport

    cpdef object write(self, bytes data)
