"""Memory for octets: a small pool of chunks, and bytes objects for what outgrows them.

An idle connection holds no buffer at all. The pool is one for the process and relies on the GIL.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from sidecar.http2.buffer cimport Buffer

cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject** octets, Py_ssize_t size) except -1  # of an object that nobody else has seen

cdef extern from *:
    """
    #ifdef __GLIBC__
    #include <malloc.h>
    static void keep_freed(int octets) {
        mallopt(M_MMAP_THRESHOLD, octets / 8);
        mallopt(M_TRIM_THRESHOLD, octets);
    }
    #else
    static void keep_freed(int octets) { (void) octets; }
    #endif
    """
    void keep_freed(int octets) noexcept

cdef enum:
    CHUNK = 17408  # octets of a pooled buffer: a full DATA frame and some small ones
    POOLED = 32  # chunks kept for the next connection that has something to say
    LARGE = 16 * CHUNK  # a turn's output of bulk data: 262144 octets in frames of 16384
    KEPT = 8388608  # what some stalled streams hold and let go of; glibc starts at 128 KiB

# Bulk data takes and frees a quarter of a megabyte with every read and write. Left alone, glibc hands each back to the
# system: two system calls and a page fault for every 4 KiB (measured: 680 brk beside 344 read and 685 write).
keep_freed(KEPT)

cdef unsigned char* _pool[POOLED]
cdef int _pool_count = 0


cdef int buffer_grow(Buffer* buffer, Py_ssize_t extra) except -1:
    cdef Py_ssize_t wanted = buffer.length + extra
    cdef Py_ssize_t capacity = LARGE
    cdef Py_ssize_t length = buffer.length
    cdef bytes large
    if buffer.start == NULL and wanted <= CHUNK:
        buffer.start = _chunk()
        buffer.capacity = CHUNK
        return 0
    while capacity < wanted:
        capacity *= 2
    if buffer.large == NULL:
        large = PyBytes_FromStringAndSize(NULL, capacity)
        if buffer.length > 0:
            memcpy(PyBytes_AS_STRING(large), buffer.start, buffer.length)
        if buffer.start != NULL:
            _give_back(buffer.start)
        Py_INCREF(large)
        buffer.large = <PyObject*> large
    else:
        buffer.start = NULL  # without memory the object goes as well: then the buffer is empty
        buffer.length = buffer.capacity = 0
        _PyBytes_Resize(&buffer.large, capacity)
        buffer.length = length
    buffer.start = <unsigned char*> PyBytes_AS_STRING(<object> buffer.large)
    buffer.capacity = capacity
    return 0


cdef bytes buffer_take(Buffer* buffer):
    cdef bytes taken
    cdef Py_ssize_t length = buffer.length
    if buffer.large == NULL:
        taken = PyBytes_FromStringAndSize(<char*> buffer.start, length)
    else:
        buffer.start = NULL  # as above
        buffer.length = buffer.capacity = 0
        _PyBytes_Resize(&buffer.large, length)
        taken = <bytes> buffer.large
    buffer_clear(buffer)
    return taken


cdef void buffer_clear(Buffer* buffer) noexcept:
    if buffer.large != NULL:
        Py_XDECREF(buffer.large)
        buffer.large = NULL
    elif buffer.start != NULL:
        _give_back(buffer.start)
    buffer.start = NULL
    buffer.length = 0
    buffer.capacity = 0


cdef unsigned char* _chunk() except NULL:
    global _pool_count
    cdef unsigned char* chunk
    if _pool_count > 0:
        _pool_count -= 1
        return _pool[_pool_count]
    chunk = <unsigned char*> malloc(CHUNK)
    if chunk == NULL:
        raise MemoryError(f"no memory for {CHUNK} octets of HTTP/2")
    return chunk


cdef void _give_back(unsigned char* chunk) noexcept:
    global _pool_count
    if _pool_count < POOLED:
        _pool[_pool_count] = chunk
        _pool_count += 1
    else:
        free(chunk)
