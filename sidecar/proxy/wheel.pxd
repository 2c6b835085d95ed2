# The C face of the wheel; what it does is written in wheel.py.

cimport cython

cdef double _TICK

cdef class Alarm:
    cdef public long long tick

    cpdef object ring(self, double now)


cdef class Wheel:
    cdef dict _buckets
    cdef list _ticks

    @cython.locals(tick=cython.longlong, bucket=dict)
    cpdef object set(self, Alarm alarm, double due_at)
    @cython.locals(tick=cython.longlong, bucket=dict)
    cpdef object cancel(self, Alarm alarm)
    cpdef object next_at(self)
    @cython.locals(alarm=Alarm, tick=cython.longlong)
    cpdef int advance(self, double now) except -1
