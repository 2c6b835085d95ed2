# The C layout of a cluster; what its fields mean is written in cluster.py.

from sidecar.policy.balancer cimport Balancer, PickContext
from sidecar.policy.endpoint cimport Endpoint


cdef class Cluster:
    cdef public str name
    cdef public Balancer balancer
    cdef public double slow_start
    cdef public double panic_threshold
    cdef public str zone
    cdef public object zone_aware
    cdef public list endpoints
    cdef public list pickable
    cdef public long in_flight
    cdef public list trials
    cdef public object events
    cdef public str source
    cdef public long long index
    cdef public long left_out
    cdef public str wanted
    cdef public double confirmed_at
    cdef public bint registry_up
    cdef public str registry_detail
    cdef public list on_members
    cdef public list on_pickable
    cdef dict _by_address
    cdef list _levels
    cdef long _turn

    cpdef object begin_trial(self, Endpoint endpoint)
    cpdef object end_trial(self, Endpoint endpoint)
    cpdef object begin_attempt(self, Endpoint endpoint)
    cpdef object end_attempt(self, Endpoint endpoint)
    cpdef object pick(self, PickContext context, double now)
