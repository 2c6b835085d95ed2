# The C face of the aperture; what it does is written in aperture.py.

cimport cython

cdef long _SMALLEST, _OPENING
cdef double _PER_SECOND, _STAGGER
cdef unsigned long long _MASK, _STEP, _SPREAD


cdef class Aperture:
    cdef unsigned long long _salt

    cpdef Py_ssize_t width(self, long in_flight)
    @cython.locals(turn=cython.ulonglong, mixed=cython.ulonglong)
    cpdef Py_ssize_t look(self, unsigned long long place, Py_ssize_t count, double now)
