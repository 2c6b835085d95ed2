"""A transport over a stream socket, for a `Connection` and nobody else: octets go between the two without Python.

It does what asyncio's transports do, by the same names and in the same order of callbacks, as far as a connection asks
for it. Reads come from `Poll.wait`, which calls `serve`. Every end passes `_end`: from there on the poll knows nothing of
the socket, and the loop calls `connection_lost` and closes it in a turn of its own.
"""

import os
import socket as sockets

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.object cimport PyObject
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint32_t
from libc.string cimport memset

from sidecar.http2.interface cimport Codec
from sidecar.http2.native cimport NativeCodec
from sidecar.http2.parts cimport MOST_VECTORS, iovec
from sidecar.proxy.connection cimport Connection
from sidecar.proxy.outlet cimport Outlet
from sidecar.proxy.poll cimport CAN_READ, CAN_WRITE, IS_BROKEN, Poll

cdef extern from "<sys/socket.h>" nogil:
    int MSG_DONTWAIT
    int MSG_NOSIGNAL
    ssize_t send(int descriptor, const void* octets, size_t length, int flags)
    struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    ssize_t sendmsg(int descriptor, const msghdr* message, int flags)
    ssize_t recv(int descriptor, void* octets, size_t length, int flags)

cdef extern from "Python.h":
    ctypedef struct PyVarObject:
        pass
    ctypedef struct PyBytesObject:
        Py_hash_t ob_shash
    Py_ssize_t Py_REFCNT(PyObject* thing)
    void Py_SET_SIZE(PyVarObject* thing, Py_ssize_t size)

cdef enum:
    MOST_PER_READ = 262144  # libuv and asyncio 256 KiB
    MOST_CARRIED = 16393  # a whole frame of the default size
    MOST_ROOMS = 4  # as many reads of large messages in one turn find one that has been in use before

# What reads have filled. The next one fills again what nobody else has kept: nobody can tell it from a new one, and
# its memory is in the cache: a twentieth of what a message of 1 MiB costs. Pages never filled take no memory.
cdef list _rooms = []


cdef bytes _take_room():
    """An octet string that nobody else has, with room for MOST_PER_READ."""
    cdef Py_ssize_t i
    cdef bytes room
    for i in range(PyList_GET_SIZE(_rooms)):
        if Py_REFCNT(PyList_GET_ITEM(_rooms, i)) == 1:
            return <bytes> PyList_GET_ITEM(_rooms, i)
    room = PyBytes_FromStringAndSize(NULL, MOST_PER_READ)
    if PyList_GET_SIZE(_rooms) < MOST_ROOMS:
        _rooms.append(room)
    return room


cdef int _set_length(bytes room, Py_ssize_t length) except -1:
    """The octet string, which nobody else has seen as it is, is so long, with whatever stands there."""
    Py_SET_SIZE(<PyVarObject*> room, length)
    PyBytes_AS_STRING(room)[length] = 0
    (<PyBytesObject*> room).ob_shash = -1
    return 0


cdef object _error(int code):
    return OSError(code, os.strerror(code))


cdef class Channel(Outlet):
    """Made by `ServingLoop`; `connection_made` follows in the loop's next turn, then `waiter` gets its result."""

    def __init__(self, loop, Poll poll not None, socket, Connection connection not None, waiter):
        self.loop = loop
        self.poll = poll
        self.socket = socket
        self.connection = connection
        self.descriptor = socket.fileno()
        if socket.family in (sockets.AF_INET, sockets.AF_INET6):
            socket.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        self.set_write_buffer_limits()
        loop.call_soon(self._open, waiter)

    def _open(self, waiter):
        try:
            self.connection.connection_made(self)
            if not self.closing:
                self.reading = True
                self._watch()
        except Exception as error:
            self._end(error)
            raise
        finally:
            if waiter is not None and not waiter.cancelled():
                waiter.set_result(None)

    # === what is read ===

    cdef int serve(self, uint32_t events) except -1:
        """The socket is ready for `events`; they may be older than what became of the channel since."""
        if self.reading and events & (CAN_READ | IS_BROKEN):
            self._read()
        if self.waiting > 0 and events & (CAN_WRITE | IS_BROKEN):
            self._drain()
        return 0

    cdef int _read(self) except -1:
        """What has arrived of a frame goes before what it lacks, so that the frame lies whole in the room."""
        cdef bytes room = _take_room()
        cdef char* start = PyBytes_AS_STRING(room)
        cdef Py_ssize_t carried = 0
        cdef NativeCodec native = None
        cdef ssize_t size
        cdef int code
        if type(self.connection.codec) is NativeCodec:
            native = <NativeCodec> self.connection.codec
            carried = native.carried()
            if carried > MOST_CARRIED:
                carried = 0
        size = recv(self.descriptor, start + carried, MOST_PER_READ - carried, MSG_DONTWAIT)
        code = errno
        if size > 0:
            if carried > 0:
                native.take_carried(start)
            _set_length(room, carried + size)
            self.connection.take(room)
        if size == 0:
            if not self.connection.eof_received():
                self.close()
        elif size < 0 and code != EAGAIN and code != EINTR:
            self._end(_error(code))
        return 0

    # === what is written ===

    cpdef object write(self, bytes data):
        cdef ssize_t sent = 0
        cdef Py_ssize_t size
        cdef int code
        if data is None:
            raise TypeError("write takes bytes")
        if self.ended:
            return
        if self.finishing:
            raise RuntimeError("write after write_eof")
        size = PyBytes_GET_SIZE(data)
        if self.waiting == 0:
            sent = send(self.descriptor, PyBytes_AS_STRING(data), size, MSG_DONTWAIT | MSG_NOSIGNAL)
            if sent == size:
                return
            if sent < 0:
                code = errno
                sent = 0
                if code != EAGAIN and code != EINTR:
                    self._end(_error(code))
                    return
        self._keep(data, sent)

    cpdef Py_ssize_t write_queued(self, Codec codec) except -1:
        """Send from where the octets are; only those that the socket does not take are copied."""
        cdef iovec[MOST_VECTORS] pieces
        cdef msghdr message
        cdef NativeCodec native
        cdef Py_ssize_t size = 0
        cdef ssize_t sent
        cdef int code
        cdef int i
        if self.waiting > 0 or self.ended or self.finishing or not isinstance(codec, NativeCodec):
            return Outlet.write_queued(self, codec)
        native = <NativeCodec> codec
        memset(&message, 0, sizeof(message))
        message.msg_iov = pieces
        message.msg_iovlen = native.gather(pieces)
        for i in range(<int> message.msg_iovlen):
            size += pieces[i].iov_len
        if size == 0:
            return 0
        if message.msg_iovlen == 1:
            sent = send(self.descriptor, pieces[0].iov_base, size, MSG_DONTWAIT | MSG_NOSIGNAL)
        else:
            sent = sendmsg(self.descriptor, &message, MSG_DONTWAIT | MSG_NOSIGNAL)
        code = errno
        if sent == size or (sent < 0 and code != EAGAIN and code != EINTR):
            native.forget_queued()
            if sent < 0:
                self._end(_error(code))
        else:
            self._keep(native.data_to_send(), max(sent, 0))
        return size

    cdef int _keep(self, bytes data, Py_ssize_t sent) except -1:
        """All but the first `sent` octets of `data` must wait until the socket takes more; `sent` is 0 if others wait."""
        if self.waiting == 0:
            self.backlog = []
            self.sent = sent
        self.backlog.append(data)
        self.waiting += PyBytes_GET_SIZE(data) - sent
        self._watch()
        if not self.paused and self.waiting > self.high:
            self.paused = True
            self.connection.pause_writing()
        return 0

    cdef int _drain(self) except -1:
        """Write what waits, as much as the socket takes."""
        cdef bytes piece
        cdef ssize_t sent
        cdef Py_ssize_t size
        cdef int code
        while self.waiting > 0:
            piece = self.backlog[0]
            size = PyBytes_GET_SIZE(piece) - self.sent
            sent = send(self.descriptor, PyBytes_AS_STRING(piece) + self.sent, size, MSG_DONTWAIT | MSG_NOSIGNAL)
            if sent < 0:
                code = errno
                if code != EAGAIN and code != EINTR:
                    return self._end(_error(code))
                break
            self.waiting -= sent
            if sent < size:
                self.sent += sent
                break
            self.sent = 0
            del self.backlog[0]
        if self.waiting == 0:
            self.backlog = None
            self._watch()
            if self.finishing:
                self._say_fin()
            if self.closing:
                return self._end(None)
        if self.paused and self.waiting <= self.low:
            self.paused = False
            self.connection.resume_writing()
        return 0

    def set_write_buffer_limits(self, high=65536, low=None):
        """Octets that may wait before the connection is paused, and from how many on it goes on."""
        self.high = high
        self.low = high // 4 if low is None else low

    def get_write_buffer_size(self):
        """Octets that wait."""
        return self.waiting

    # === the end ===

    def can_write_eof(self):
        """A stream socket has two ends."""
        return True

    def write_eof(self):
        """Say FIN when everything has left."""
        if not self.finishing and not self.ended:
            self.finishing = True
            if self.waiting == 0:
                self._say_fin()

    cdef int _say_fin(self) except -1:
        try:
            self.socket.shutdown(sockets.SHUT_WR)
        except OSError as error:  # the peer was quicker
            self._end(error)
        return 0

    def is_closing(self):
        """Whether it was told to close, or lost."""
        return self.closing

    def close(self):
        """Read no more, and close when everything has left."""
        if self.closing:
            return
        self.closing = True
        self.reading = False
        if self.waiting == 0:
            self._end(None)
        else:
            self._watch()

    def abort(self):
        """Close now; what waits is dropped."""
        self._end(None)

    cdef int _end(self, object error) except -1:
        """Nothing is read or written any more; `connection_lost` follows. Only the first end counts."""
        if self.ended:
            return 0
        self.ended = True
        self.closing = True
        self.reading = False
        self.backlog = None
        self.waiting = 0
        self.loop.call_soon(self._lose, error)
        self._watch()
        return 0

    def _lose(self, error):
        connection = self.connection
        try:
            connection.connection_lost(error)
        finally:
            self.connection = None
            self.socket.close()

    cdef int _watch(self) except -1:
        """Ask the poll for what the channel waits for."""
        cdef uint32_t wanted = (CAN_READ if self.reading else 0) | (CAN_WRITE if self.waiting > 0 else 0)
        if wanted != self.watched:
            self.poll.watch(self.descriptor, self, self.watched, wanted)
            self.watched = wanted
        return 0

    # === what it is ===

    def get_extra_info(self, name, default=None):
        """`socket`, `peername` or `sockname`; anything else is not known."""
        if name == "socket":
            return self.socket
        try:
            if name == "peername":
                return self.socket.getpeername()
            if name == "sockname":
                return self.socket.getsockname()
        except OSError:  # it is not connected any more
            pass
        return default

    def __repr__(self):
        state = "ended" if self.ended else "closing" if self.closing else "open"
        return f"<Channel {self.descriptor} {state} waiting={self.waiting}>"
