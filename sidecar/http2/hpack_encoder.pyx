"""HPACK encoding. The same few blocks leave all day, so that nearly every block is one recipe: one copy.

A field enters the table when it is sent the second time, and never if it differs in every RPC; a block with such a
field has a recipe only if it is known to repeat. Secrets leave as
never-indexed literals (RFC 7541 section 7.1.3). Literals leave plain, because the reader's time is worth more than
octets on a loopback; only what enters the table is Huffman coded, once.
Rules for the pointers: the arrays hold owned references, released in `__dealloc__`, `_evict` or on replacement; what
writes takes the place to write to and returns the place behind, within the room that `_encode_fields` has made. What
`encode` leaves in `octets` is copied before any encoder is used again.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject, PyObject_Hash
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from sidecar.http2.buffer cimport Buffer, buffer_clear, buffer_extend
from sidecar.http2.hpack_table cimport ENTRY_OVERHEAD, STATIC_COUNT, static_index
from sidecar.http2.huffman cimport huffman_encode, huffman_length
from sidecar.http2.interface cimport HeaderBlock
from sidecar.http2.native_block cimport NativeBlock

cdef extern from "<stdlib.h>":
    void* aligned_alloc(size_t alignment, size_t size)

cdef enum:
    LARGEST_TABLE = 4096  # whatever the peer offers; rust h2 0.4.17 caps at 4096 too (SE-14)
    FIRST_ROWS = 16
    FIRST_BITS = 3  # 8 recipes: a connection that repeats few blocks stays small
    MOST_BITS = 6
    FIRST_KNOWN_BITS = 4
    WAYS = 4  # slots in a row that may hold a known field
    SEEN_PAIRS = 64
    SIZE_UPDATES_ROOM = 16  # octets of two size updates, and more
    SHORT_COOKIE = 20  # a shorter cookie could be guessed octet by octet; nghttp2 20
    LARGEST_INDEXED = 1024  # a quarter of the table: one field must not push out all others

# How a field may be represented (RFC 7541 section 6.2).
cdef enum Secrecy:
    MAY_INDEX = 0
    NEVER_WORTH = 1  # differs in every RPC: a literal without indexing
    SECRET = 2  # a never-indexed literal

cdef Buffer _scratch  # where blocks without a recipe are encoded: one for the process, which relies on the GIL

cdef dict _secrecy = {
    b"authorization": SECRET,
    b"proxy-authorization": SECRET,
    b"x-consul-token": SECRET,
    b"grpc-timeout": NEVER_WORTH,
    b"traceparent": NEVER_WORTH,
    b"tracestate": NEVER_WORTH,
    b"x-request-id": NEVER_WORTH,
    b"content-length": NEVER_WORTH,
}


cdef inline uint64_t _slot(const void* pointer, int bits) noexcept:
    """Of 2**bits, by Fibonacci hashing: neighbours in memory come far apart."""
    return (<uint64_t> <uintptr_t> pointer >> 4) * 0x9E3779B97F4A7C15ULL >> (64 - bits)


cdef uint8_t* _write_integer(uint8_t* at, uint8_t pattern, int prefix_bits, uint64_t value) noexcept:
    """Section 5.1, with the bits above the prefix given. At most 6 octets for what is below 2**32."""
    cdef uint64_t mask = (1 << prefix_bits) - 1
    if value < mask:
        at[0] = pattern | <uint8_t> value
        return at + 1
    at[0] = pattern | <uint8_t> mask
    at += 1
    value -= mask
    while value >= 0x80:
        at[0] = 0x80 | <uint8_t> (value & 0x7F)
        at += 1
        value >>= 7
    at[0] = <uint8_t> value
    return at + 1


cdef uint8_t* _write_string(uint8_t* at, bytes text, bint may_code) noexcept:
    """Section 5.2."""
    cdef const uint8_t* start = <const uint8_t*> PyBytes_AS_STRING(text)
    cdef Py_ssize_t length = PyBytes_GET_SIZE(text)
    cdef Py_ssize_t coded = huffman_length(start, length) if may_code else length
    if coded < length:
        at = _write_integer(at, 0x80, 7, coded)
        huffman_encode(start, length, at)
        return at + coded
    at = _write_integer(at, 0, 7, length)
    memcpy(at, start, length)
    return at + length


cdef uint8_t* _write_literal(
    uint8_t* at, uint8_t pattern, int prefix_bits, uint64_t name_place, bytes name, bytes value, bint may_code
) noexcept:
    """Sections 6.2.1 to 6.2.3; a name place of 0 spells the name out."""
    at = _write_integer(at, pattern, prefix_bits, name_place)
    if name_place == 0:
        at = _write_string(at, name, may_code)
    return _write_string(at, value, may_code)


cdef bint _repeats(HeaderBlock block) noexcept:
    return type(block) is NativeBlock and (<NativeBlock> block).repeats


cdef class HpackEncoder:
    """The encoding context of one connection."""

    def __cinit__(self):
        self.limit = LARGEST_TABLE

    def __dealloc__(self):
        self._evict(0)
        self._forget_recipes()
        self._forget_fields()
        free(self.rows)
        free(self.seen)

    def encode_block(self, HeaderBlock block not None):
        """The octets of a block, for tests."""
        self.encode(block)
        return PyBytes_FromStringAndSize(<const char*> self.octets, self.length)

    cpdef object resize(self, uint32_t limit):
        """The peer's HEADER_TABLE_SIZE. The next block announces the smallest size since the last one, then the final."""
        limit = min(limit, <uint32_t> LARGEST_TABLE)
        if limit == self.limit and not self.resized:
            return
        self.smallest = min(limit, self.smallest) if self.resized else limit
        self.resized = True
        self.limit = limit
        self._evict(limit)

    cdef int encode(self, HeaderBlock block) except -1:
        """The octets of a block go to `octets`. They count as sent: the table is what the peer's will be."""
        cdef Recipe* recipe
        cdef uint64_t generation = self.generation
        cdef bint announces = self.resized
        if block.base is not None:
            return self._extend(block)
        if self.recipes == NULL:
            self._allocate()
        recipe = &self.recipes[_slot(<PyObject*> block, self.recipe_bits)]
        if recipe.block == <PyObject*> block and recipe.generation == generation and not announces:
            self.octets = &recipe.octets[0] if recipe.longer == NULL else recipe.longer
            self.length = recipe.length
            return 0
        self._encode_fields(block)
        self.octets = _scratch.start
        self.length = _scratch.length
        if announces or self.generation != generation or (self.varies and not _repeats(block)):
            return 0
        if self._seen_lately(<PyObject*> block):
            self._write_down(block)
        return 0

    cdef int _extend(self, HeaderBlock block) except -1:
        """A block whose base may have a recipe: fields are encoded in order, so it is the base's octets and one field."""
        cdef tuple field = <tuple> block.fields[len(block.fields) - 1]
        cdef Py_ssize_t head
        cdef uint8_t* at
        self.encode(block.base)
        head = self.length
        if self.octets != _scratch.start:
            _scratch.length = 0
            memcpy(buffer_extend(&_scratch, head), self.octets, head)
        at = buffer_extend(&_scratch, block.size - block.base.size)
        _scratch.length = self._encode_field(at, field, block.never_indexed) - _scratch.start
        self.octets = _scratch.start
        self.length = _scratch.length
        return 0

    cdef int _write_down(self, HeaderBlock block) except -1:
        """A recipe for the next time, from `octets`."""
        cdef uint64_t slot = _slot(<PyObject*> block, self.recipe_bits)
        cdef Recipe* recipe = &self.recipes[slot]
        cdef uint8_t* longer = NULL
        if recipe.block != NULL and recipe.generation == self.generation and self.recipe_bits < MOST_BITS:
            self._resize_recipes(self.recipe_bits + 1)
            slot = _slot(<PyObject*> block, self.recipe_bits)
            recipe = &self.recipes[slot]
        if self.length > SHORT_RECIPE:
            longer = <uint8_t*> malloc(self.length)
            if longer == NULL:
                raise MemoryError("no memory for an HPACK recipe")
        memcpy(&recipe.octets[0] if longer == NULL else longer, self.octets, self.length)
        free(recipe.longer)
        self.blocks[slot] = block
        recipe.block = <PyObject*> block
        recipe.generation = self.generation
        recipe.longer = longer
        recipe.length = <uint32_t> self.length
        return 0

    cdef bint _seen_lately(self, PyObject* block) noexcept:
        """Among the last few that had no recipe; it is one of them from now on. Compared, never followed."""
        cdef int i
        for i in range(LATELY):
            if self.lately[i] == block:
                return True
        self.lately[self.next_lately] = block
        self.next_lately = (self.next_lately + 1) % LATELY
        return False

    cdef int _encode_fields(self, HeaderBlock block) except -1:
        """Into `_scratch`. A block's size counts 32 octets a field, and no representation adds so many: it all fits."""
        cdef Py_ssize_t i
        cdef uint8_t* at
        self.varies = False
        if _scratch.large != NULL:
            buffer_clear(&_scratch)
        _scratch.length = 0
        at = buffer_extend(&_scratch, block.size + SIZE_UPDATES_ROOM)
        if self.resized:
            if self.smallest < self.limit:
                at = _write_integer(at, 0x20, 5, self.smallest)
            at = _write_integer(at, 0x20, 5, self.limit)
            self.resized = False
        for i in range(len(block.fields)):
            at = self._encode_field(at, block.fields[i], block.never_indexed)
        _scratch.length = at - _scratch.start
        return 0

    cdef uint8_t* _encode_field(self, uint8_t* at, tuple field, frozenset never_indexed) except NULL:
        cdef KnownField* known = self._known(field)
        cdef bytes name
        cdef bytes value
        cdef int secrecy
        cdef uint64_t pair
        cdef uint64_t place
        cdef bint exact
        if known != NULL and self._lives(known.place) and len(never_indexed) == 0:
            return _write_integer(at, 0x80, 7, self._index(known.place))
        name, value = field
        secrecy = _secrecy.get(name, MAY_INDEX)
        if name in never_indexed or (name == b"cookie" and PyBytes_GET_SIZE(value) < SHORT_COOKIE):
            secrecy = SECRET
        place = static_index(name, value, &exact)
        if secrecy != MAY_INDEX:
            if secrecy == NEVER_WORTH:
                self.varies = True
            return _write_literal(at, 0x10 if secrecy == SECRET else 0, 4, place, name, value, False)
        pair = <uint64_t> PyObject_Hash(name) * 0x9E3779B97F4A7C15ULL ^ <uint64_t> PyObject_Hash(value)
        if not exact and self._find(name, value, pair):
            place = self.found
            exact = True
        if exact:
            self._know(field, place)
            return _write_integer(at, 0x80, 7, self._index(place))
        if self._worth_inserting(name, value, pair):
            at = _write_literal(at, 0x40, 6, place, name, value, True)
            self._insert(name, value, pair)
            return at
        return _write_literal(at, 0, 4, place, name, value, False)

    cdef KnownField* _known(self, tuple field) noexcept:
        """What is known of the field, NULL if nothing."""
        cdef uint64_t home = _slot(<PyObject*> field, self.known_bits)
        cdef uint64_t mask = (1 << self.known_bits) - 1
        cdef int way
        for way in range(WAYS):
            if self.known[home + way & mask].field == <PyObject*> field:
                return &self.known[home + way & mask]
        return NULL

    cdef int _know(self, tuple field, uint64_t place) except -1:
        """In its own slot if that was known before, else in a free one, else in the place of another."""
        cdef KnownField* known = self._known(field)
        if known == NULL:
            known = self._free_known(field)
        if known == NULL and self.known_bits < MOST_BITS:
            self._resize_known(self.known_bits + 1)
            known = self._free_known(field)
        if known == NULL:
            known = &self.known[_slot(<PyObject*> field, self.known_bits)]
        Py_INCREF(field)
        Py_XDECREF(known.field)
        known.field = <PyObject*> field
        known.place = place
        return 0

    cdef KnownField* _free_known(self, tuple field) noexcept:
        """A slot for the field that holds nothing, or what has left the table; NULL if there is none."""
        cdef uint64_t home = _slot(<PyObject*> field, self.known_bits)
        cdef uint64_t mask = (1 << self.known_bits) - 1
        cdef int way
        for way in range(WAYS):
            if self.known[home + way & mask].field == NULL or not self._lives(self.known[home + way & mask].place):
                return &self.known[home + way & mask]
        return NULL

    cdef bint _find(self, bytes name, bytes value, uint64_t pair) except -1:
        """Look for a row of the dynamic table; its place goes to `self.found`."""
        cdef uint64_t number
        cdef SentRow* row
        for number in range(self.inserted - self.count, self.inserted):
            row = &self.rows[number & (self.capacity - 1)]
            if row.pair == pair and <bytes> row.name == name and <bytes> row.value == value:
                self.found = STATIC_COUNT + 1 + number
                return True
        return False

    cdef bint _lives(self, uint64_t place) noexcept:
        return place <= STATIC_COUNT or place - STATIC_COUNT - 1 >= self.inserted - self.count

    cdef uint64_t _index(self, uint64_t place) noexcept:
        """RFC 7541 section 2.3.3: the newest row is the first after the static table."""
        return place if place <= STATIC_COUNT else STATIC_COUNT + self.inserted - (place - STATIC_COUNT - 1)

    cdef bint _worth_inserting(self, bytes name, bytes value, uint64_t pair) noexcept:
        """On the second sight, and if it leaves room for others."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(name) + PyBytes_GET_SIZE(value) + ENTRY_OVERHEAD
        cdef uint32_t mark = <uint32_t> (pair >> 32) | 1
        if size > LARGEST_INDEXED or size > self.limit:
            return False
        if self.seen[pair % SEEN_PAIRS] == mark:
            return True
        self.seen[pair % SEEN_PAIRS] = mark
        return False

    cdef int _insert(self, bytes name, bytes value, uint64_t pair) except -1:
        """Section 4.4. The caller has made sure that it fits."""
        cdef SentRow* row
        cdef uint32_t size = <uint32_t> (PyBytes_GET_SIZE(name) + PyBytes_GET_SIZE(value) + ENTRY_OVERHEAD)
        self._evict(self.limit - size)
        if self.count == self.capacity:
            self._grow()
        row = &self.rows[self.inserted & (self.capacity - 1)]
        Py_INCREF(name)
        Py_INCREF(value)
        row.name = <PyObject*> name
        row.value = <PyObject*> value
        row.pair = pair
        row.size = size
        self.inserted += 1
        self.count += 1
        self.used += size
        self.generation += 1
        return 0

    cdef void _evict(self, uint32_t most) noexcept:
        """Drop the oldest rows until at most `most` octets are used."""
        cdef SentRow* row
        while self.used > most:
            row = &self.rows[(self.inserted - self.count) & (self.capacity - 1)]
            self.count -= 1
            self.used -= row.size
            self.generation += 1
            Py_XDECREF(row.name)
            Py_XDECREF(row.value)

    cdef int _grow(self) except -1:
        """Twice the ring; a row's slot is its insertion number modulo the capacity."""
        cdef uint32_t capacity = self.capacity * 2 if self.capacity else FIRST_ROWS
        cdef uint64_t number
        cdef SentRow* rows = <SentRow*> malloc(capacity * sizeof(SentRow))
        if rows == NULL:
            raise MemoryError("no memory for an HPACK table")
        for number in range(self.inserted - self.count, self.inserted):
            rows[number & (capacity - 1)] = self.rows[number & (self.capacity - 1)]
        free(self.rows)
        self.rows = rows
        self.capacity = capacity
        return 0

    cdef int _allocate(self) except -1:
        """On the first block: an idle connection pays nothing."""
        self._resize_known(FIRST_KNOWN_BITS)
        self.seen = <uint32_t*> calloc(SEEN_PAIRS, sizeof(uint32_t))
        if self.seen == NULL:
            raise MemoryError("no memory for an HPACK encoder")
        return self._resize_recipes(FIRST_BITS)

    cdef int _resize_recipes(self, int bits) except -1:
        """None are left: what is in use comes back by itself."""
        self._forget_recipes()
        self.recipes = <Recipe*> aligned_alloc(sizeof(Recipe), sizeof(Recipe) << bits)
        if self.recipes == NULL:
            raise MemoryError("no memory for HPACK recipes")
        memset(self.recipes, 0, sizeof(Recipe) << bits)
        self.recipe_bits = bits
        self.blocks = [None] * (1 << bits)
        return 0

    cdef void _forget_recipes(self) noexcept:
        cdef int i
        if self.recipes != NULL:
            for i in range(1 << self.recipe_bits):
                free(self.recipes[i].longer)
        free(self.recipes)
        self.recipes = NULL

    cdef int _resize_known(self, int bits) except -1:
        """None are left either."""
        self._forget_fields()
        self.known = <KnownField*> calloc(1 << bits, sizeof(KnownField))
        if self.known == NULL:
            raise MemoryError("no memory for an HPACK encoder")
        self.known_bits = bits
        return 0

    cdef void _forget_fields(self) noexcept:
        cdef int i
        if self.known != NULL:
            for i in range(1 << self.known_bits):
                Py_XDECREF(self.known[i].field)
        free(self.known)
        self.known = NULL
