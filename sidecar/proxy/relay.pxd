# The C face of a relay; what it does is written in relay.py.

cimport cython

from sidecar.http2.interface cimport Codec, HeaderBlock, Stream
from sidecar.proxy.connection cimport Connection
from sidecar.proxy.engine cimport Engine
from sidecar.proxy.exchange cimport Exchange
from sidecar.proxy.replay cimport Replay


cdef class Relay:
    cdef public Exchange exchange
    cdef public Engine engine
    cdef public Replay replay
    cdef public Connection source
    cdef public Stream source_stream
    cdef public Connection target
    cdef public Stream target_stream
    cdef public object pending
    cdef public Py_ssize_t offset
    cdef public long long held
    cdef public long long received
    cdef public long long sent
    cdef public long long credited
    cdef public bint ended
    cdef public bint finished
    cdef public HeaderBlock trailers

    cpdef object begin(self, Exchange exchange, Replay replay)
    @cython.locals(target=Connection, taken=Py_ssize_t)
    cpdef object receive(self, bytes data, bint end_stream)
    @cython.locals(target=Connection, stream=Stream, replay=Replay)
    cpdef bint receive_part(self, bytes whole, Py_ssize_t offset, Py_ssize_t size, bint end_stream) except -1
    cpdef object finish(self, HeaderBlock trailers)
    cpdef object attach(self, Connection target, Stream stream)
    cpdef object rewind(self)
    cpdef object detach(self)
    cpdef object pump(self)
    @cython.locals(
        target=Connection, stream=Stream, data=bytes, left=Py_ssize_t, taken=Py_ssize_t, last=bint, exchange=Exchange
    )
    cpdef bint send_chunk(self) except -1
    cpdef object drop_held(self)
    cpdef object discard(self)
    @cython.locals(target=Connection, stream=Stream, exchange=Exchange)
    cpdef object _end(self)
    cpdef object _hold(self, bytes data, Py_ssize_t taken)
    cpdef object _unhold(self, long long size)
    cpdef object _clear_pending(self)
    @cython.locals(owed=cython.longlong, codec=Codec)
    cpdef object _credit(self, long long taken)
