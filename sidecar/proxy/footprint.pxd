# The C face of a footprint; what it does is written in footprint.py.

from sidecar.policy.endpoint cimport Endpoint


cdef class Footprint:
    cpdef object fetch(self, Endpoint endpoint)
    cpdef object take(self, Endpoint endpoint, object connection)
