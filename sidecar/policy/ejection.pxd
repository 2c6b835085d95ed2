# The C face of ejection; what it does is written in ejection.py. All but the way of a success is rare.

cimport cython

from sidecar.policy.endpoint cimport Endpoint
from sidecar.policy.standing cimport Standing

cdef int _SUCCESS


cdef class Ejection:
    cdef public object cluster
    cdef public object rng
    cdef public list out
    cdef public double judged_at
    cdef public object settings
    cdef public object judge
    cdef long _doubtful
    cdef object _rule

    @cython.locals(standing=Standing, state=int)
    cpdef object record(
        self, Endpoint endpoint, int blame, int outcome, int status, double began_at, double now, bytes path
    )
