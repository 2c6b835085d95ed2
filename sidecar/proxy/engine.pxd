# The C layout of the engine; what its parts are for is written in engine.py.

cimport cython

from sidecar.proxy.connection cimport Connection
from sidecar.proxy.wheel cimport Alarm, Wheel


cdef class Engine:
    cdef public object loop
    cdef public object codec_class
    cdef public object http2
    cdef public object codec_settings
    cdef public object buffers
    cdef public object metrics
    cdef public object rng
    cdef public object log_rpc
    cdef public int log_from
    cdef public object dial_slots
    cdef public long long replay_size
    cdef public set connections
    cdef public double now
    cdef public Py_ssize_t output_limit
    cdef public object clock
    cdef Wheel _wheel
    cdef object _timer
    cdef double _timer_at
    cdef Connection _dirty
    cdef Connection _last_dirty
    cdef list _waiting
    cdef public object shedder
    cdef public bint holding
    cdef public bint strained
    cdef bint _keeps_time
    cdef readonly bint in_turn
    cdef bint _flush_scheduled
    cdef long _reads_in_turn
    cdef bint _bunched
    cdef long _until_probe

    cpdef double begin(self) except -1
    cpdef object begin_at(self, double now)
    @cython.locals(waiting=list, connection=Connection, following=Connection)
    cpdef object settle(self)
    cpdef object settle_read(self)
    cpdef object mark_dirty(self, Connection connection)
    cpdef object mark_waiting(self, object dispatch)
    cpdef object set_alarm(self, Alarm alarm, double due_at)
    cpdef object cancel_alarm(self, Alarm alarm)
    cpdef object hold(self, Py_ssize_t size)
    cpdef object release(self, Py_ssize_t size)
