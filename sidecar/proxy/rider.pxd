# The C layout of a rider; what it is for is written in rider.py.

from sidecar.http2.interface cimport StreamSink


cdef class Rider(StreamSink):
    cdef Rider newer
    cdef Rider older
