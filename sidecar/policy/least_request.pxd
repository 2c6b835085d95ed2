# The C face of the turns and of least_request; what they do is written in least_request.py.

cimport cython

from sidecar.policy.aperture cimport Aperture
from sidecar.policy.balancer cimport Balancer, PickContext, untried, warmth
from sidecar.policy.cluster cimport Cluster
from sidecar.policy.endpoint cimport Endpoint

cdef double TURN


cdef class TurnTaking(Balancer):
    cdef object _draw
    cdef Aperture _aperture
    cdef public double _clock
    cdef public Py_ssize_t _full_scan
    cdef public Py_ssize_t _choices
    cdef public double _idle
    cdef public double _part

    @cython.locals(
        candidates=list, count=Py_ssize_t, everyone=bint, draw=double, span=Py_ssize_t, look=Py_ssize_t,
        index=Py_ssize_t, best=Endpoint, other=Endpoint, best_price=double, best_share=double, share=double,
        ahead=double, load=double, price=double, clock=double, idle=double, part=double,
    )
    cpdef Endpoint pick(self, Cluster cluster, PickContext context, double now)
    cpdef object take_turn(self, Endpoint endpoint, double share)
    @cython.locals(pickable=list, mean=double, ahead=double, endpoint=Endpoint)
    cpdef object on_change(self, Cluster cluster)


cdef class LeastRequest(TurnTaking):
    @cython.locals(endpoint=Endpoint)
    cpdef object on_change(self, Cluster cluster)
