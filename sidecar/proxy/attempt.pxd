# The C face of an attempt; what it does is written in attempt.py.

cimport cython

from sidecar.http2.interface cimport HeaderBlock, Stream, StreamSink
from sidecar.policy.balancer cimport Balancer
from sidecar.policy.cluster cimport Cluster
from sidecar.policy.ejection cimport Ejection
from sidecar.policy.endpoint cimport Endpoint
from sidecar.proxy.exchange cimport Exchange
from sidecar.proxy.rider cimport Rider
from sidecar.proxy.upstream cimport UpstreamConnection
from sidecar.telemetry.metrics cimport UpstreamMetrics, bucket_of

cdef StreamSink DEAF
cdef int _SUCCESS, _CANCELLED, _RESOURCE_EXHAUSTED, _REMOTE, _OURS


cdef class Attempt(Rider):
    cdef public Exchange exchange
    cdef public Endpoint endpoint
    cdef public UpstreamConnection connection
    cdef public int number
    cdef public str reason
    cdef public Stream stream
    cdef public double started_at
    cdef public double asked_at
    cdef public double answered_at
    cdef public long long flush_mark
    cdef public bint done
    cdef public bint local
    cdef public int status
    cdef public int outcome
    cdef public str detail
    cdef public double seconds

    cpdef object begin(
        self, Exchange exchange, Endpoint endpoint, UpstreamConnection connection, int number, str reason
    )
    cpdef object on_informational(self, HeaderBlock block)
    cpdef object on_headers(self, HeaderBlock block, bint end_stream)
    cpdef object on_data(self, bytes data, bint end_stream)
    cpdef bint on_part(self, bytes whole, Py_ssize_t offset, Py_ssize_t size, bint end_stream) except -1
    cpdef object on_trailers(self, HeaderBlock block)
    cpdef object on_reset(self, unsigned int error_code, bint remote)
    cpdef object on_window(self)
    cpdef object on_connection_lost(self, str detail)
    cpdef object open(self, Stream stream)
    @cython.locals(
        stream=Stream, connection=UpstreamConnection, endpoint=Endpoint, metrics=UpstreamMetrics, now=double,
        balancer=Balancer, cluster=Cluster, ejection=Ejection, blame=int, bucket=int,
    )
    cpdef object close(self, int outcome, int status, str detail=*)
    cpdef int _blame(self, int outcome, int status, double now) except -1
