# The C layout of the counters that the data path adds to; what they mean is written in metrics.py.

cimport cython

cdef int _STEPS, _SHIFT, _LAST
cdef double _LONGEST

cdef enum:  # lengths of arrays, which C must know; metrics.py reckons them, and fails to begin with another
    DURATION_SLOTS = 240
    STATUS_SLOTS = 17

@cython.locals(micros=cython.longlong, shift=int)
cpdef int bucket_of(double seconds) except -1


cdef class Histogram:
    cdef public long long count
    cdef public double total
    cdef public long long counts[DURATION_SLOTS]

    cpdef object observe(self, double seconds)
    cpdef object count_in(self, int bucket, double seconds)
    cpdef double quantile(self, double fraction)


cdef class UpstreamMetrics:
    cdef public str name
    cdef public long long exchange_started
    cdef public long long exchange_status[STATUS_SLOTS]
    cdef public Histogram exchange_latency
    cdef public long long attempt_started
    cdef public long long attempt_status[STATUS_SLOTS]
    cdef public Histogram attempt_latency
    cdef public dict retries
    cdef public dict retries_suppressed
    cdef public long long hedge_wins
    cdef public dict hedges_suppressed
    cdef public dict overstays
    cdef public dict refusals
    cdef public dict outcomes
    cdef public dict load_reports
    cdef public dict faults
    cdef public dict mirrored
    cdef public long concurrency_limit
    cdef public dict routed
    cdef public dict ejections
    cdef public dict withheld
    cdef public long queued
    cdef public long long bytes_up
    cdef public long long bytes_down
    cdef public long long foreign_attempts
    cdef public long long foreign_up
    cdef public long long foreign_down
    cdef public long long connects
    cdef public dict connect_failures
    cdef public dict disconnects
    cdef public dict health_checks
    cdef public dict ping_timeouts
