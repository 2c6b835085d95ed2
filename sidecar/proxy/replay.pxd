# The C layout of a replay buffer; what it does is written in replay.py.

cimport cython

from sidecar.proxy.engine cimport Engine

cdef Py_ssize_t _CRUMB, REPLAY_BUDGET


@cython.no_gc  # what it holds never leads back to it
cdef class Replay:
    cdef public object chunks
    cdef public Engine engine
    cdef public Py_ssize_t limit
    cdef public bint live
    cdef public Py_ssize_t size

    cpdef object begin(self, Engine engine, Py_ssize_t limit)
    cpdef bint wants_more(self) except -1
    @cython.locals(size=Py_ssize_t, newest=Py_ssize_t, chunks=list, last=bytes, engine=Engine)
    cpdef object keep(self, bytes data)
    cpdef object drop(self)
