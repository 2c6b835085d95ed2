# The C face of interface.py: when compiled, these become extension types and a call through them is a call
# through a C table. Signatures only; what they mean is written in interface.py.
# A compiled subclass must declare its overrides in its own .pxd with the very same signature.

cimport cython


cdef class HeaderBlock:
    cdef readonly tuple fields
    cdef readonly frozenset never_indexed
    cdef readonly Py_ssize_t size
    cdef public object meaning
    cdef readonly HeaderBlock base

    @cython.locals(field=tuple, key=bytes)
    cpdef bytes get(self, bytes name)


@cython.locals(block=HeaderBlock)
cpdef HeaderBlock extend_block(HeaderBlock base, bytes name, bytes value)


cdef class StreamSink:
    cpdef object on_informational(self, HeaderBlock block)
    cpdef object on_headers(self, HeaderBlock block, bint end_stream)
    cpdef object on_data(self, bytes data, bint end_stream)
    cpdef bint on_part(self, bytes whole, Py_ssize_t offset, Py_ssize_t size, bint end_stream) except -1
    cpdef object on_trailers(self, HeaderBlock block)
    cpdef object on_reset(self, unsigned int error_code, bint remote)
    cpdef object on_window(self)


cdef class Sink:
    cpdef object on_request(self, Stream stream, HeaderBlock block, bint end_stream)
    cpdef object on_settings(self)
    cpdef object on_goaway(self, unsigned int last_stream_id, unsigned int error_code, bytes debug)
    cpdef object on_ping_ack(self, bytes payload)
    cpdef object on_window(self)


cdef class Stream:
    cdef public unsigned int id
    cdef public StreamSink sink
    cdef public bint local_closed
    cdef public bint remote_closed


cdef class Codec:
    cdef public int role
    cdef public object settings
    cdef public Sink sink

    # bytes
    cpdef object initiate_connection(self)
    cpdef object receive_data(self, bytes data)
    cpdef bytes data_to_send(self)
    cpdef bint has_data_to_send(self) except -1

    # streams
    cpdef bint has_slot(self) except -1
    cpdef Stream open_stream(self, StreamSink sink)
    cpdef object send_informational(self, Stream stream, HeaderBlock block)
    cpdef object send_headers(self, Stream stream, HeaderBlock block, bint end_stream)
    cpdef Py_ssize_t send_data(self, Stream stream, object data, bint end_stream, Py_ssize_t offset=*) except -1
    cpdef bint send_part(
        self, Stream stream, bytes whole, Py_ssize_t offset, Py_ssize_t size, bint end_stream
    ) except -1
    cpdef object send_trailers(self, Stream stream, HeaderBlock block)
    cpdef object reset_stream(self, Stream stream, unsigned int error_code)
    cpdef object acknowledge_received_data(self, Stream stream, Py_ssize_t size)

    # connection
    cpdef object hold_credit(self, bint hold)
    cpdef object limit_output(self, Py_ssize_t octets)
    cpdef object send_ping(self, bytes payload)
    cpdef object send_goaway(self, unsigned int last_stream_id, unsigned int error_code, bytes debug=*)
    cpdef object refill(self, double now)
