# The C face of an upstream connection; what it does is written in upstream.py.

from sidecar.http2.interface cimport Stream
from sidecar.policy.endpoint cimport Endpoint
from sidecar.proxy.attempt cimport Attempt
from sidecar.proxy.connection cimport Connection
from sidecar.proxy.pool cimport EndpointPool
from sidecar.proxy.wheel cimport Alarm

cdef unsigned int _STREAM_ID_LIMIT


cdef class Timeout(Alarm):
    cdef public object action

    cpdef object ring(self, double now)


cdef class UpstreamConnection(Connection):
    # What each RPC touches comes first.
    cdef public bint draining
    cdef public bint withheld
    cdef public unsigned int newest_id
    cdef public double read_at
    cdef public double idle_since
    cdef public Endpoint endpoint
    # Everything else.
    cdef public EndpointPool pool
    cdef public set own
    cdef public bint ready
    cdef public object settled
    cdef public str reason
    cdef public double ready_at
    cdef public str fault
    cdef public str cause
    cdef public Timeout age
    cdef public Timeout idle
    cdef public object keepalive

    cpdef bint has_slot(self) except -1
    cpdef object add(self, Attempt attempt, Stream stream)
    cpdef object remove(self, Attempt attempt)
    cpdef object feed(self, bytes data)
    cpdef object flush(self)
    cpdef object on_ping_ack(self, bytes payload)
    cpdef object on_settings(self)
    cpdef object on_goaway(self, unsigned int last_stream_id, unsigned int error_code, bytes debug)
