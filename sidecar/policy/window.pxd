# The C layout of a window; what its fields mean is written in window.py.

cimport cython

cdef int _PAST

cdef enum:  # the length of an array, which C must know; window.py reckons it, and fails to begin with another
    PAST_SLOTS = 9


cdef class Window:
    # What a success touches comes first.
    cdef double _ends_at
    cdef public long long attempts
    cdef int _attempts
    cdef int _bad
    cdef int _late
    cdef int _oldest
    cdef public long long bad
    cdef public long long late
    cdef double _width
    cdef int _past_attempts[PAST_SLOTS]
    cdef int _past_bad[PAST_SLOTS]
    cdef int _past_late[PAST_SLOTS]

    cpdef object add(self, bint bad, bint late, double now)
    @cython.locals(steps=cython.longlong)
    cpdef object turn(self, double now)
    @cython.locals(oldest=int)
    cpdef object _step(self)
    cpdef object clear(self)
