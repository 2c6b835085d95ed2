# The C layout of the policies by method; what they mean is written in method.py.

cimport cython

from sidecar.rpc.metadata cimport RequestHead


cdef class MethodPolicy:
    cdef readonly str name
    cdef readonly double timeout
    cdef readonly double idle
    cdef readonly double max_duration
    cdef readonly object retry
    cdef readonly object hedge
    cdef readonly object rate

    cpdef object bound(self, object timeout)


cdef class MethodTable:
    cdef dict _by_path
    cdef MethodPolicy _rest
    cdef readonly object budget
    cdef readonly object throttle

    @cython.locals(policy=MethodPolicy)
    cpdef MethodPolicy find(self, bytes path)
    @cython.locals(policy=MethodPolicy)
    cpdef MethodPolicy policy_of(self, RequestHead head)
