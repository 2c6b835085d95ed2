# The C face of the balancers: the built-in ones are called through a C table, a user's Python class still fits.

cimport cython

from sidecar.policy.cluster cimport Cluster
from sidecar.policy.endpoint cimport Endpoint


cdef class PickContext:
    cdef public object head
    cdef public tuple tried


cdef class Balancer:
    cpdef Endpoint pick(self, Cluster cluster, PickContext context, double now)
    cpdef object done(self, Endpoint endpoint, int outcome, double latency, double now)
    cpdef object on_change(self, Cluster cluster)


cdef class RoundRobin(Balancer):
    cdef public unsigned long long _next
    cdef public list _strides

    @cython.locals(candidates=list)
    cpdef Endpoint pick(self, Cluster cluster, PickContext context, double now)
    @cython.locals(count=cython.ulonglong, index=cython.ulonglong, stride=cython.ulonglong, position=cython.ulonglong)
    cpdef Endpoint _weighted(self, list candidates)
    cpdef object on_change(self, Cluster cluster)


cdef class LeastRequest(Balancer):
    cdef public object _rng
    cdef public unsigned long long _next

    @cython.locals(
        candidates=list, count=Py_ssize_t, start=Py_ssize_t, looks=Py_ssize_t, index=Py_ssize_t,
        best=Endpoint, other=Endpoint,
    )
    cpdef Endpoint pick(self, Cluster cluster, PickContext context, double now)


cpdef list untried(list candidates, PickContext context)
