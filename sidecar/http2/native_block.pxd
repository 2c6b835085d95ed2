# A received field block with the verdict of RFC 9113 section 8 on it, reached once and kept with the block.

from libc.stdint cimport int64_t, uint16_t

from sidecar.http2.interface cimport HeaderBlock

# What a field is to the rules. Everything else is PLAIN.
cdef enum Kind:
    PLAIN = 0
    METHOD = 1
    SCHEME = 2
    PATH = 3
    AUTHORITY = 4
    STATUS = 5
    UNDEFINED = 6  # a pseudo field that HTTP does not define
    HOST = 7
    TE = 8
    CONTENT_LENGTH = 9
    CONNECTION_SPECIFIC = 10

cdef enum:
    LAST_PSEUDO = 6
    KIND_MASK = 0xFF
    DEFECT = 0x100  # the field alone makes any block malformed

# What a block may be used as.
cdef enum Verdict:
    AS_REQUEST = 1
    AS_RESPONSE = 2
    AS_TRAILERS = 4


cdef class NativeBlock(HeaderBlock):
    cdef int verdict
    cdef int status  # of a response, else 0
    cdef int64_t content_length  # -1: not announced
    cdef bint repeats  # it came at least twice with the same octets, so that it may come again
    cdef bint to_head  # the method is HEAD: the answer's content-length announces nothing


cdef uint16_t field_traits(bytes name, bytes value) except? 0xFFFF  # Kind, and DEFECT
cdef NativeBlock new_block(tuple fields, const uint16_t* traits, Py_ssize_t size, frozenset never_indexed)
