# A transport over a stream socket that `Poll` serves; what it does is written in channel.pyx.

from libc.stdint cimport uint32_t

from sidecar.http2.interface cimport Codec
from sidecar.proxy.connection cimport Connection
from sidecar.proxy.outlet cimport Outlet
from sidecar.proxy.poll cimport Poll


cdef class Channel(Outlet):
    # What each read and write touches comes first.
    cdef readonly Connection connection  # None once it was told that the socket is gone
    cdef int descriptor
    cdef bint reading
    cdef bint closing  # nothing is read any more; what waits is written, then the socket closes
    cdef bint ended  # nothing is written any more either; `connection_lost` is called, or about to be
    cdef list backlog  # of bytes, that the socket did not take; None: nothing waits
    # Everything else.
    cdef Py_ssize_t sent  # octets of the first piece that have left
    cdef Py_ssize_t waiting  # octets in `backlog` that have not
    cdef Py_ssize_t high  # more than so many waiting: `pause_writing`
    cdef Py_ssize_t low  # no more than so many: `resume_writing`
    cdef bint paused
    cdef bint finishing  # FIN is said as soon as nothing waits
    cdef uint32_t watched  # the events that the poll was asked for
    cdef Poll poll
    cdef object loop
    cdef object socket

    cpdef object write(self, bytes data)
    cpdef Py_ssize_t write_queued(self, Codec codec) except -1
    cdef int serve(self, uint32_t events) except -1
    cdef int _read(self) except -1
    cdef int _drain(self) except -1
    cdef int _keep(self, bytes data, Py_ssize_t sent) except -1
    cdef int _watch(self) except -1
    cdef int _say_fin(self) except -1
    cdef int _end(self, object error) except -1
