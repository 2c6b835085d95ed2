# A growing run of octets. The only place that allocates, grows and frees memory for bytes on their way in or
# out. Rules: a pointer got from `buffer_extend` is good until the next call on the same buffer, so it is filled
# at once and never kept; no Python code may run between getting it and filling it. A zeroed Buffer is empty.

from cpython.object cimport PyObject


cdef struct Buffer:
    unsigned char* start
    Py_ssize_t length
    Py_ssize_t capacity
    PyObject* large  # owned bytes object that `start` points into, NULL: `start` is a chunk of the pool


cdef int buffer_grow(Buffer* buffer, Py_ssize_t extra) except -1  # room for `extra` more; MemoryError
cdef bytes buffer_take(Buffer* buffer)  # all of it, which empties the buffer; what is large is not copied
cdef void buffer_clear(Buffer* buffer) noexcept  # empties; the memory goes back to the pool or the system


cdef inline unsigned char* buffer_extend(Buffer* buffer, Py_ssize_t extra) except NULL:
    """Count `extra` more octets as used and return where they go."""
    if buffer.start == NULL or buffer.capacity - buffer.length < extra:
        buffer_grow(buffer, extra)
    buffer.length += extra
    return buffer.start + buffer.length - extra
