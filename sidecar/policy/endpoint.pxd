# The C layout of an endpoint; what its fields mean is written in endpoint.py.

from libc.stdint cimport uintptr_t

from sidecar.policy.standing cimport Standing
from sidecar.telemetry.metrics cimport Histogram


cdef enum:
    MOST_RUNS = 20


cdef class Endpoint:
    # What a pick looks at, side by side: one cache line per endpoint.
    cdef public long in_flight
    cdef public double share
    cdef public double turn
    cdef public double price
    cdef public double warm_at
    # What an attempt touches besides.
    cdef public int state
    cdef public bint foreign
    cdef public bint saturated
    cdef public object pool
    cdef public Standing standing
    cdef public Histogram latency
    cdef public long long successes
    cdef public double penalty
    cdef public double sampled_at
    # Written and read by the proxy's `HeapFootprint` only.
    cdef int run_count
    cdef uintptr_t[MOST_RUNS] runs
    # Everything else.
    cdef public str address
    cdef public object member
    cdef public str source
    cdef public long weight
    cdef public double worth
    cdef public double added_at
    cdef public long long failures
    cdef public int connectivity
    cdef public long connections
    cdef public str last_error
    cdef public str reason
    cdef public double since_at
    cdef public bint on_trial
    cdef public int checkup
    cdef public str finding
    cdef public bint removed
