"""Payload that leaves from where it was received; the rules are in parts.pxd."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from sidecar.http2.buffer cimport Buffer


cdef int parts_reserve(Parts* parts) except -1:
    if parts.first == NULL:
        parts.first = <Part*> malloc(MOST_PARTS * sizeof(Part))
        if parts.first == NULL:
            raise MemoryError(f"no memory to list {MOST_PARTS} parts")
    return 0


cdef void parts_add(Parts* parts, bytes whole, const unsigned char* at, Py_ssize_t size, Py_ssize_t after) noexcept:
    """There must be fewer than MOST_PARTS."""
    cdef Part* part = &parts.first[parts.count]
    Py_INCREF(whole)
    part.whole = <PyObject*> whole
    part.at = at
    part.size = size
    part.after = after
    parts.count += 1


cdef int parts_gather(const Parts* parts, const Buffer* urgent, const Buffer* out, iovec* into) noexcept:
    """Where all of it lies, in the order in which it leaves: at most MOST_VECTORS places, none of them empty."""
    cdef int count = 0
    cdef Py_ssize_t done = 0  # octets of `out`
    cdef int i
    if urgent.length > 0:
        count = _point(into, count, urgent.start, urgent.length)
    for i in range(parts.count):
        if parts.first[i].after > done:
            count = _point(into, count, out.start + done, parts.first[i].after - done)
            done = parts.first[i].after
        count = _point(into, count, parts.first[i].at, parts.first[i].size)
    if out.length > done:
        count = _point(into, count, out.start + done, out.length - done)
    return count


cdef inline int _point(iovec* into, int count, const unsigned char* at, Py_ssize_t size) noexcept:
    into[count].iov_base = <void*> at
    into[count].iov_len = size
    return count + 1


cdef bytes parts_join(const Parts* parts, const Buffer* urgent, const Buffer* out):
    cdef iovec[MOST_VECTORS] pieces
    cdef int count = parts_gather(parts, urgent, out, pieces)
    cdef Py_ssize_t size = 0
    cdef bytes joined
    cdef int i
    for i in range(count):
        size += pieces[i].iov_len
    joined = PyBytes_FromStringAndSize(NULL, size)
    size = 0
    for i in range(count):
        memcpy(PyBytes_AS_STRING(joined) + size, pieces[i].iov_base, pieces[i].iov_len)
        size += pieces[i].iov_len
    return joined


cdef void parts_clear(Parts* parts) noexcept:
    cdef int i
    for i in range(parts.count):
        Py_DECREF(<object> parts.first[i].whole)
    free(parts.first)
    parts.first = NULL
    parts.count = 0
