# The C layout of a cluster; what its fields mean is written in cluster.py.

from sidecar.policy.balancer cimport Balancer, PickContext


cdef class Cluster:
    cdef public str name
    cdef public Balancer balancer
    cdef public double slow_start
    cdef public double panic_threshold
    cdef public list endpoints
    cdef public list pickable
    cdef public str source
    cdef public long long index
    cdef public double confirmed_at
    cdef public bint registry_up
    cdef public str registry_detail
    cdef public list on_members
    cdef public list on_pickable
    cdef dict _by_address

    cpdef object pick(self, PickContext context, double now)
