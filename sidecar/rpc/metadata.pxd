# The C layout of the read heads; what they mean is written in metadata.py.

cimport cython

from sidecar.http2.interface cimport HeaderBlock, extend_block
from sidecar.rpc.deadline cimport encode_timeout, parse_timeout


cdef class RequestHead:
    cdef public bytes method
    cdef public bytes path
    cdef public bytes authority
    cdef public bytes content_type
    cdef public object timeout
    cdef public bint malformed_timeout
    cdef public int previous_attempts
    cdef public object methods
    cdef public object policy
    cdef public bint is_grpc
    cdef public HeaderBlock forward


cdef class ResponseHead:
    cdef public int grpc_status
    cdef public int http_status
    cdef public bint is_grpc
    cdef public bytes message
    cdef public object pushback


cpdef bint is_grpc(bytes content_type)
@cython.locals(head=RequestHead)
cpdef RequestHead read_request(HeaderBlock block)
@cython.locals(head=ResponseHead)
cpdef ResponseHead read_response(HeaderBlock block)
cpdef int status_of_answer(ResponseHead response, int http_status, bint grpc) except -2
@cython.locals(made=HeaderBlock)
cpdef HeaderBlock build_request(RequestHead head, HeaderBlock block, object remaining, int attempts)
