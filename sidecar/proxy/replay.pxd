# The C layout of a replay buffer; what it does is written in replay.py.

from sidecar.proxy.engine cimport Engine


cdef class Replay:
    cdef public list chunks
    cdef public Engine engine
    cdef public Py_ssize_t limit
    cdef public bint live
    cdef public Py_ssize_t size

    cpdef object keep(self, bytes data)
    cpdef object drop(self)
