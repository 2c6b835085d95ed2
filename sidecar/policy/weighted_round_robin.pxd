# The C face of weighted_round_robin; what it does is written in weighted_round_robin.py.

from sidecar.policy.balancer cimport PickContext
from sidecar.policy.cluster cimport Cluster
from sidecar.policy.endpoint cimport Endpoint
from sidecar.policy.rotation cimport RoundRobin


cdef class WeightedRoundRobin(RoundRobin):
    cdef object _settings
    cdef dict _reported
    cdef double _now
    cdef double _due_at
    cdef public double report_interval
    cdef public bint wants_load

    cpdef Endpoint pick(self, Cluster cluster, PickContext context, double now)
    cpdef object take_report(self, Endpoint endpoint, object report, double now)
    cpdef object on_change(self, Cluster cluster)
    cpdef object _weigh(self, Cluster cluster)
