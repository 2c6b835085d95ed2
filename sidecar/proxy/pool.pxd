# The C face of an endpoint's pool; what it does is written in pool.py.

cimport cython

from sidecar.policy.endpoint cimport Endpoint
from sidecar.proxy.engine cimport Engine
from sidecar.proxy.upstream cimport Timeout, UpstreamConnection


cdef long _SETTLING, _RETAKE


cdef class EndpointPool:
    # What each pick touches comes first.
    cdef public list connections
    cdef public Engine engine
    cdef public double trust
    cdef public long acquired
    # Everything else.
    cdef public object dispatch
    cdef public Endpoint endpoint
    cdef public object settings
    cdef public str name
    cdef public set draining
    cdef public set doubted
    cdef public double patience
    cdef public double keepalive_interval
    cdef public UpstreamConnection replacing
    cdef public bint closed
    cdef public bint failing
    cdef public object _dial
    cdef object _backoff
    cdef Timeout _redial
    cdef Timeout _grace

    @cython.locals(connection=UpstreamConnection)
    cpdef UpstreamConnection acquire(self)
