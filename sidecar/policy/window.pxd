# The C layout of a window; what its fields mean is written in window.py.

cimport cython

cdef int _SLOTS


cdef class Window:
    cdef public long long attempts
    cdef public long long bad
    cdef public long long late
    cdef double _width
    cdef double _ends_at
    cdef long long _attempts
    cdef long long _bad
    cdef long long _late
    cdef list _past

    cpdef object add(self, bint bad, bint late, double now)
    @cython.locals(
        steps=cython.longlong, over=Py_ssize_t, attempts=cython.longlong, bad=cython.longlong, late=cython.longlong,
    )
    cpdef object turn(self, double now)
    cpdef object clear(self)
