"""Memory for octets: grows by doubling, and goes back to a small pool as soon as it is empty.

An idle connection holds no buffer at all. The pool is one for the process and relies on the GIL.
"""

from libc.stdlib cimport free, realloc

from sidecar.http2.buffer cimport Buffer

cdef enum:
    CHUNK = 16384  # octets of a pooled buffer: one full DATA frame nearly fits
    POOLED = 32  # chunks kept for the next connection that has something to say

cdef unsigned char* _pool[POOLED]
cdef int _pool_count = 0


cdef int buffer_grow(Buffer* buffer, Py_ssize_t extra) except -1:
    global _pool_count
    cdef Py_ssize_t wanted = buffer.length + extra
    cdef Py_ssize_t capacity = CHUNK if buffer.capacity == 0 else buffer.capacity
    cdef unsigned char* grown
    if buffer.capacity == 0 and wanted <= CHUNK and _pool_count > 0:
        _pool_count -= 1
        buffer.start = _pool[_pool_count]
        buffer.capacity = CHUNK
        return 0
    while capacity < wanted:
        capacity *= 2
    grown = <unsigned char*> realloc(buffer.start, capacity)
    if grown == NULL:
        raise MemoryError(f"no memory for {capacity} octets of HTTP/2 output")
    buffer.start = grown
    buffer.capacity = capacity
    return 0


cdef void buffer_clear(Buffer* buffer) noexcept:
    global _pool_count
    if buffer.capacity == CHUNK and _pool_count < POOLED:
        _pool[_pool_count] = buffer.start
        _pool_count += 1
    else:
        free(buffer.start)
    buffer.start = NULL
    buffer.length = 0
    buffer.capacity = 0
