# The C layout of a standing; what its fields mean is written in standing.py.

from sidecar.policy.window cimport Window


cdef class Standing:
    # What a success touches comes first.
    cdef public Window window
    cdef public long long remote
    cdef public long long local
    cdef public long long successes
    # Everything else.
    cdef public double lost_at
    cdef public long long failures
    cdef public long long multiplier
    cdef public long long level
    cdef public double until
    cdef public bint outlier
    cdef public double spared_until
    cdef public double told_until

    cpdef object succeed(self, double now)
    cpdef object fail(self, bint late, double now)
    cpdef object clear(self)
