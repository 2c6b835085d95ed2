# The C face of a dispatch; what it does is written in dispatch.py.

cimport cython

from sidecar.http2.interface cimport HeaderBlock
from sidecar.policy.cluster cimport Cluster
from sidecar.policy.ejection cimport Ejection
from sidecar.policy.endpoint cimport Endpoint
from sidecar.policy.method cimport MethodTable
from sidecar.proxy.engine cimport Engine
from sidecar.proxy.exchange cimport Exchange
from sidecar.proxy.footprint cimport Footprint
from sidecar.proxy.pool cimport EndpointPool
from sidecar.proxy.upstream cimport Timeout, UpstreamConnection
from sidecar.rpc.metadata cimport RequestHead
from sidecar.telemetry.metrics cimport UpstreamMetrics


cdef class Dispatch:
    cdef public Engine engine
    cdef public Cluster cluster
    cdef public str name
    cdef public UpstreamMetrics metrics
    cdef public object connection
    cdef public object limits
    cdef public MethodTable methods
    cdef public long long max_in_flight
    cdef public Py_ssize_t replay_size
    cdef public Ejection ejection
    cdef public object ejector
    cdef public bint wants_context
    cdef public bint wants_load
    cdef public object gate
    cdef public object router
    cdef public long long in_flight
    cdef public dict pools
    cdef public Footprint footprint
    cdef public list on_connection
    cdef object _retries
    cdef object _queue
    cdef object _served
    cdef bint _due
    cdef list _ready
    cdef Timeout _timeout
    cdef public bint closed

    cpdef Dispatch route(self, RequestHead head, HeaderBlock block)
    cpdef object add(self)
    cpdef object admit(self, Exchange exchange)
    cpdef object place(self, Exchange exchange)
    cpdef object remove(self, Exchange exchange)
    @cython.locals(pool=EndpointPool)
    cpdef UpstreamConnection acquire(self, Endpoint endpoint)
