# Where in memory the next RPC to an endpoint will look; what it does is written in heap_footprint.pyx.

from sidecar.http2.native cimport NativeCodec
from sidecar.policy.endpoint cimport Endpoint
from sidecar.proxy.footprint cimport Footprint
from sidecar.proxy.upstream cimport UpstreamConnection


cdef class HeapFootprint(Footprint):
    cpdef object fetch(self, Endpoint endpoint)
    cpdef object take(self, Endpoint endpoint, object connection)
