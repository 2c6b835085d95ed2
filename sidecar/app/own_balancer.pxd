# The C face of a user's balancer; what it does is written in own_balancer.py. It leaves one Python call per RPC: the pick.

cimport cython

from sidecar.policy.balancer cimport Balancer, PickContext
from sidecar.policy.cluster cimport Cluster
from sidecar.policy.endpoint cimport Endpoint

cdef int _READY


cdef class OwnBalancer(Balancer):
    cdef public object inner  # what it answers may be anything
    cdef public str label
    cdef public str name
    cdef public bint wants_context
    cdef public bint wants_load
    cdef public double report_interval
    cdef bint _counts

    @cython.locals(endpoint=Endpoint)
    cpdef Endpoint pick(self, Cluster cluster, PickContext context, double now)
    cpdef object done(self, Endpoint endpoint, int outcome, double latency, double now)
    cpdef object push_back(self, Endpoint endpoint, double seconds, double now)
    cpdef object take_report(self, Endpoint endpoint, object report, double now)
    cpdef object on_change(self, Cluster cluster)
    cpdef object why_avoided(self, Endpoint endpoint, Cluster cluster, double now)
