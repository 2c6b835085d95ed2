# cython: language_level=3
"""The least a relay can be, compiled, so that `codec` measures codecs and not Python calls."""

from sidecar.http2.interface cimport Codec, HeaderBlock, Sink, Stream, StreamSink


cdef class Hop(StreamSink):
    """One stream of the pair: what it hears goes out on the other."""

    cdef Codec codec
    cdef Codec other_codec
    cdef Stream stream
    cdef Stream other

    cpdef object on_headers(self, HeaderBlock block, bint end_stream):
        self.other_codec.send_headers(self.other, block, end_stream)

    cpdef object on_data(self, bytes data, bint end_stream):
        self.other_codec.send_data(self.other, data, end_stream)
        self.codec.acknowledge_received_data(self.stream, len(data))

    cpdef object on_trailers(self, HeaderBlock block):
        self.other_codec.send_trailers(self.other, block)


cdef class Relay(Sink):
    """A SERVER and a CLIENT codec back to back."""

    cdef public Codec near
    cdef public Codec far

    cpdef bytes requests(self, bytes data):
        """What the caller wrote in, what the instance reads out."""
        self.near.receive_data(data)
        return self.far.data_to_send()

    cpdef bytes responses(self, bytes data):
        """What the instance wrote in, what the caller reads out."""
        self.far.receive_data(data)
        return self.near.data_to_send()

    cpdef object on_request(self, Stream stream, HeaderBlock block, bint end_stream):
        cdef Hop down = Hop.__new__(Hop)
        cdef Hop up = Hop.__new__(Hop)
        cdef Stream other = self.far.open_stream(down)
        down.codec, down.other_codec, down.stream, down.other = self.far, self.near, other, stream
        up.codec, up.other_codec, up.stream, up.other = self.near, self.far, stream, other
        stream.sink = up
        self.far.send_headers(other, block, end_stream)


cdef class Instance(Sink):
    """Answers each request when its data ends."""

    cdef public Codec codec
    cdef public HeaderBlock head
    cdef public HeaderBlock trailers
    cdef public bytes body

    cpdef object on_request(self, Stream stream, HeaderBlock block, bint end_stream):
        cdef Answer answer = Answer.__new__(Answer)
        answer.instance = self
        answer.stream = stream
        stream.sink = answer


cdef class Answer(StreamSink):
    cdef Instance instance
    cdef Stream stream

    cpdef object on_data(self, bytes data, bint end_stream):
        cdef Codec codec = self.instance.codec
        codec.acknowledge_received_data(self.stream, len(data))
        if end_stream:
            codec.send_headers(self.stream, self.instance.head, False)
            codec.send_data(self.stream, self.instance.body, False)
            codec.send_trailers(self.stream, self.instance.trailers)


cdef class Caller(StreamSink):
    """Gives credit back and counts what came to an end."""

    cdef public Codec codec
    cdef public Stream stream
    cdef public int done

    cpdef object on_data(self, bytes data, bint end_stream):
        self.codec.acknowledge_received_data(self.stream, len(data))

    cpdef object on_trailers(self, HeaderBlock block):
        self.done += 1
