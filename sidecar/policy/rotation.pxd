# The C face of the balancers that look at no load; what they do is written in rotation.py.

cimport cython

from sidecar.policy.balancer cimport Balancer, PickContext, untried, warmth
from sidecar.policy.cluster cimport Cluster
from sidecar.policy.endpoint cimport Endpoint


cdef class RoundRobin(Balancer):
    cdef public object _rng
    cdef public unsigned long long _next
    cdef public list _strides

    @cython.locals(candidates=list, endpoint=Endpoint)
    cpdef Endpoint pick(self, Cluster cluster, PickContext context, double now)
    cpdef Endpoint _following(self, list candidates, Cluster cluster)
    @cython.locals(count=cython.ulonglong, index=cython.ulonglong, stride=cython.ulonglong, position=cython.ulonglong)
    cpdef Endpoint _weighted(self, list candidates)
    cpdef object on_change(self, Cluster cluster)
    cpdef object _stride_by(self, list weights)


cdef class Random(Balancer):
    cdef public object _rng
    cdef public list _sums

    @cython.locals(candidates=list, sums=list, endpoint=Endpoint)
    cpdef Endpoint pick(self, Cluster cluster, PickContext context, double now)
    cpdef Endpoint _any(self, list candidates, list sums)
    cpdef object on_change(self, Cluster cluster)
