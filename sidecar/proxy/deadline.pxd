# The C face of a deadline; what it does is written in deadline.py.

from sidecar.proxy.exchange cimport Exchange
from sidecar.proxy.wheel cimport Alarm


cdef class Deadline(Alarm):
    cdef public Exchange exchange

    cpdef object ring(self, double now)
