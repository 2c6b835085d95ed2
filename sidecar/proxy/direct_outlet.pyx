"""An outlet that writes to the socket itself, and to the transport only what the socket does not take at once.

A transport's `write` costs some 1500 instructions around the system call, as many as a twentieth of a lone RPC. What
fails here is left to the transport, which meets the same error and ends the connection as it always does.

The descriptor is the transport's. Both event loops close it only after `connection_lost`, and a connection that is
aborted shuts its outlet first: an octet written later could reach whoever was given the number next.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from sidecar.proxy.outlet cimport Outlet

cdef extern from "<sys/socket.h>" nogil:
    int MSG_DONTWAIT
    int MSG_NOSIGNAL
    ssize_t send(int descriptor, const void* octets, size_t length, int flags)


cdef class DirectOutlet(Outlet):
    """Writes to a stream socket that does not block."""

    cdef int _descriptor  # -1: shut
    cdef bint _queued  # whether the transport was given octets that it may still hold

    def __init__(self, transport, int descriptor):
        Outlet.__init__(self, transport)
        self._descriptor = descriptor
        self._queued = False

    cpdef object write(self, bytes data):
        cdef Py_ssize_t sent = 0
        if self._descriptor >= 0 and not self._busy():
            sent = send(
                self._descriptor, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), MSG_DONTWAIT | MSG_NOSIGNAL
            )
            if sent == PyBytes_GET_SIZE(data):
                return
        self._queued = True
        self.transport.write(memoryview(data)[sent:] if sent > 0 else data)

    cpdef object shut(self):
        self._descriptor = -1

    cdef bint _busy(self) except -1:
        """Whether the transport still holds octets: what is written now must leave after them."""
        if self._queued:
            self._queued = self.transport.get_write_buffer_size() > 0
        return self._queued
