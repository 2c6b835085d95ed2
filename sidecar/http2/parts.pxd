# Payload that leaves from where it was received, between the octets of a buffer, so that large messages are not
# copied. Rules: a part holds the octet string that it lies in until `parts_clear`; what `parts_gather` points to is good
# until the next call on the buffers or the parts. Zeroed Parts are none.

from cpython.object cimport PyObject

from sidecar.http2.buffer cimport Buffer

cdef extern from "<sys/uio.h>" nogil:
    cdef struct iovec:
        void* iov_base
        size_t iov_len

cdef enum:
    MOST_PARTS = 64  # at a time: a turn's 262144 octets in frames of 4096
    MOST_VECTORS = 2 * MOST_PARTS + 2


cdef struct Part:
    PyObject* whole  # an octet string, held
    const unsigned char* at  # into it
    Py_ssize_t size
    Py_ssize_t after  # so many octets of the buffer leave before it


cdef struct Parts:
    Part* first
    int count


cdef int parts_reserve(Parts* parts) except -1  # before the first `parts_add`; MemoryError
cdef void parts_add(Parts* parts, bytes whole, const unsigned char* at, Py_ssize_t size, Py_ssize_t after) noexcept
cdef int parts_gather(const Parts* parts, const Buffer* urgent, const Buffer* out, iovec* into) noexcept
cdef bytes parts_join(const Parts* parts, const Buffer* urgent, const Buffer* out)  # a copy of what they gather
cdef void parts_clear(Parts* parts) noexcept
