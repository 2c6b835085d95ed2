# The C face of the balancers: the built-in ones are called through a C table, a user's Python class still fits.

cimport cython

from sidecar.policy.cluster cimport Cluster
from sidecar.policy.endpoint cimport Endpoint


cdef class PickContext:
    cdef public object head
    cdef public tuple tried
    cdef public object block


cdef class Balancer:
    cpdef Endpoint pick(self, Cluster cluster, PickContext context, double now)
    cpdef object done(self, Endpoint endpoint, int outcome, double latency, double now)
    cpdef object push_back(self, Endpoint endpoint, double seconds, double now)
    cpdef object take_report(self, Endpoint endpoint, object report, double now)
    cpdef object on_change(self, Cluster cluster)
    cpdef object why_avoided(self, Endpoint endpoint, Cluster cluster, double now)


@cython.locals(endpoint=Endpoint)
cpdef list untried(list candidates, PickContext context)
@cython.locals(ramp=double)
cpdef double warmth(Endpoint endpoint, double window, double now)
