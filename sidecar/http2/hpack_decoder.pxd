# HPACK decoding (RFC 7541): the dynamic table, the block memo and the limits of SE-01, SE-02 and SE-14.

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from sidecar.http2.native_block cimport NativeBlock

cdef enum Decoded:
    DECODED_WHOLE = 0  # `block` has every field
    DECODED_OVERSIZED = 1  # over a limit; the table is right, the block is not kept
    DECODED_ABUSIVE = 2  # far over a limit: the connection must go
    DECODED_BROKEN = 3  # not HPACK: COMPRESSION_ERROR

cdef enum:
    LATELY = 8  # blocks that came once and may come again
    SHORT_BLOCK = 28  # octets that a slot of the memo holds itself; it fills a cache line of 64

cdef struct Row:  # one entry of the dynamic table
    PyObject* field  # owned (name, value) tuple
    uint32_t size  # RFC 7541 section 4.1
    uint16_t traits

cdef struct Remembered:  # one slot of the block memo: one cache line, for nearly every block is short
    uint64_t hash
    uint64_t generation
    PyObject* block  # held by `memo_blocks`; NULL while nothing is kept
    uint8_t* longer  # owned memory with the octets if they do not fit into `octets`, else NULL
    uint32_t length
    uint8_t[SHORT_BLOCK] octets


cdef class HpackDecoder:
    # What each block touches comes first.
    cdef readonly uint64_t generation  # of the dynamic table: changes whenever an index may mean something else
    cdef NativeBlock block  # what the last `decode` came to
    cdef Remembered* memo
    cdef uint32_t memo_slots  # a power of two, or 0

    # limits
    cdef int max_fields
    cdef Py_ssize_t max_list_size

    # the dynamic table: a ring, the newest row at `newest`
    cdef Row* rows
    cdef uint32_t capacity  # a power of two; 0 until the first insertion
    cdef uint32_t newest
    cdef uint32_t count
    cdef uint32_t used
    cdef uint32_t limit  # what the peer's size update allows, at most the default

    # the block under construction
    cdef PyObject** fields
    cdef uint16_t* traits
    cdef int stored
    cdef int room  # of both arrays

    cdef uint64_t[LATELY] lately  # hashes
    cdef int next_lately
    cdef list memo_blocks  # of NativeBlock, beside `memo` and not in it: the garbage collector must see them

    cdef Decoded decode(self, const unsigned char* data, Py_ssize_t length) except *

    cdef Decoded _decode_fields(self, const unsigned char* data, Py_ssize_t length) except *
    cdef tuple _take_fields(self)
    cdef void _drop_fields(self) noexcept
    cdef int _make_room(self) except -1
    cdef bint _seen_lately(self, uint64_t hash) noexcept
    cdef int _resize_memo(self, uint32_t slots) except -1
    cdef void _forget_blocks(self) noexcept
    cdef int _remember(self, uint64_t hash, const unsigned char* data, Py_ssize_t length) except -1

    cdef void _resize(self, uint32_t limit) noexcept
    cdef int _insert(self, tuple field, uint32_t size, uint16_t traits) except -1
    cdef void _evict(self, uint32_t most) noexcept
    cdef int _grow(self) except -1
