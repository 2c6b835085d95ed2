# HPACK encoding (RFC 7541): which fields enter the table, and recipes for blocks that were encoded before.

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from sidecar.http2.interface cimport HeaderBlock

cdef enum:
    LATELY = 8  # blocks that left once and may leave again
    SHORT_RECIPE = 36  # octets that a recipe holds itself; it fills a cache line of 64

cdef struct SentRow:  # one entry of the dynamic table, as the peer's decoder has it
    PyObject* name  # owned
    PyObject* value  # owned
    uint64_t pair  # hash of name and value
    uint32_t size

cdef struct Recipe:  # a block and its octets under one generation: one cache line, for nearly every block is short
    PyObject* block  # held by `blocks`, so that its address stays its own
    uint64_t generation
    uint8_t* longer  # owned memory with the octets if they do not fit into `octets`, else NULL
    uint32_t length
    uint8_t[SHORT_RECIPE] octets

cdef struct KnownField:  # where a (name, value) tuple was found in a table
    PyObject* field  # owned
    uint64_t place  # 1..61: static; else the insertion number plus STATIC_COUNT + 1


cdef class HpackEncoder:
    # What every block needs comes first, side by side: with many connections their memory is in no cache.
    cdef const uint8_t* octets  # what the last `encode` came to, good until any encoder's next
    cdef Py_ssize_t length
    cdef Recipe* recipes
    cdef readonly uint64_t generation  # changes whenever an index may mean something else
    cdef int recipe_bits  # there are 2**recipe_bits
    cdef bint resized  # RFC 7541 section 4.2: the next block must announce `smallest` and `limit`
    cdef uint32_t smallest

    # the dynamic table: a ring, the newest row at `inserted - 1`
    cdef SentRow* rows
    cdef uint32_t capacity  # a power of two; 0 until the first insertion
    cdef uint64_t inserted  # ever
    cdef uint32_t count
    cdef uint32_t used
    cdef uint32_t limit
    cdef uint64_t found  # the place that `_find` found

    cdef list blocks  # of HeaderBlock, beside `recipes` and not in it: the garbage collector must see them
    cdef PyObject* lately[LATELY]  # not owned, only compared
    cdef int next_lately
    cdef KnownField* known
    cdef int known_bits
    cdef uint32_t* seen  # hashes of pairs that were sent once
    cdef bint varies  # the block just encoded has a field that differs in most RPCs

    cdef int encode(self, HeaderBlock block) except -1
    cdef int _extend(self, HeaderBlock block) except -1
    cpdef object resize(self, uint32_t limit)

    cdef int _write_down(self, HeaderBlock block) except -1
    cdef bint _seen_lately(self, PyObject* block) noexcept
    cdef int _encode_fields(self, HeaderBlock block) except -1
    cdef uint8_t* _encode_field(self, uint8_t* at, tuple field, frozenset never_indexed) except NULL
    cdef KnownField* _known(self, tuple field) noexcept
    cdef int _know(self, tuple field, uint64_t place) except -1
    cdef KnownField* _free_known(self, tuple field) noexcept
    cdef bint _find(self, bytes name, bytes value, uint64_t pair) except -1
    cdef bint _lives(self, uint64_t place) noexcept
    cdef uint64_t _index(self, uint64_t place) noexcept
    cdef bint _worth_inserting(self, bytes name, bytes value, uint64_t pair) noexcept
    cdef int _insert(self, bytes name, bytes value, uint64_t pair) except -1
    cdef void _evict(self, uint32_t most) noexcept
    cdef int _grow(self) except -1
    cdef int _allocate(self) except -1
    cdef int _resize_recipes(self, int bits) except -1
    cdef void _forget_recipes(self) noexcept
    cdef int _resize_known(self, int bits) except -1
    cdef void _forget_fields(self) noexcept
