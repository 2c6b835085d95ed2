# The C face of peak_ewma; what it does is written in peak_ewma.py.

cimport cython

from sidecar.policy.balancer cimport PickContext, warmth
from sidecar.policy.cluster cimport Cluster
from sidecar.policy.endpoint cimport Endpoint
from sidecar.policy.least_request cimport TurnTaking

cdef double _DECAY, _SEED, _SOFTENING, _WORST, _MAX_PUSH_BACK, _OVERLOADED, _FAR, _NEAR, _AHEAD
cdef int _SUCCESS, _CANCELLED


cdef class PeakEwma(TurnTaking):
    cdef public double _began_at
    cdef public double _read_at
    cdef public double _scale
    cdef Py_ssize_t _known
    cdef Py_ssize_t _due

    cpdef Endpoint pick(self, Cluster cluster, PickContext context, double now)
    @cython.locals(scale=double, sample=double, estimate=double, penalty=double)
    cpdef object done(self, Endpoint endpoint, int outcome, double latency, double now)
    cpdef object push_back(self, Endpoint endpoint, double seconds, double now)
    cpdef object on_change(self, Cluster cluster)
    @cython.locals(endpoint=Endpoint, total=double, known=Py_ssize_t, seed=double)
    cpdef object _price_unknown(self, Cluster cluster)
    @cython.locals(own=double, scale=double)
    cpdef object why_avoided(self, Endpoint endpoint, Cluster cluster, double now)
    @cython.locals(share=double, ahead=double)
    cpdef double _cost(self, Endpoint endpoint, Cluster cluster, double now)
    @cython.locals(step=double)
    cpdef double _read(self, double now)
    @cython.locals(shrink=double, endpoint=Endpoint)
    cpdef object _start_over(self, Cluster cluster, double now)
