# The C face of a downstream connection; what it does is written in downstream.py.

cimport cython

from sidecar.http2.interface cimport HeaderBlock, Stream
from sidecar.proxy.connection cimport Connection
from sidecar.proxy.dispatch cimport Dispatch
from sidecar.proxy.exchange cimport Exchange
from sidecar.proxy.upstream cimport Timeout


cdef class DownstreamConnection(Connection):
    cdef public object listener
    cdef public Dispatch dispatch
    cdef public str state
    cdef public double idle_since
    cdef public bint ends_idle
    cdef bytes _greeting
    cdef bint _greeted
    cdef Timeout _timeout

    cpdef object feed(self, bytes data)
    @cython.locals(exchange=Exchange)
    cpdef object on_request(self, Stream stream, HeaderBlock block, bint end_stream)
    cpdef object on_ping_ack(self, bytes payload)
    cpdef object remove(self, Exchange exchange)
