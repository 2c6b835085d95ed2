"""HPACK decoding by pointer. An indexed field is one more reference to the tuple in the table, never a copy.

Rules for the pointers: `data` belongs to the caller for the whole call; every read is checked against the end;
`rows` and `fields` hold owned references and `memo` owned octets, released in one place each.
The block memo answers a block seen before under the same table with the very same object. It is sound because a
block that changed nothing in the table means the same as long as the table's generation is the same.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF, Py_XINCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from sidecar.http2.hpack_table cimport ENTRY_OVERHEAD, STATIC_COUNT, static_field
from sidecar.http2.huffman cimport huffman_decode
from sidecar.http2.native_block cimport NativeBlock, field_traits, new_block

cdef extern from "<stdlib.h>":
    void* aligned_alloc(size_t alignment, size_t size)

cdef enum:
    FIRST_ROOM = 16  # fields of a block
    FIRST_ROWS = 16  # the ring starts small; 128 rows fill 4096 octets
    DEFAULT_TABLE = 4096  # RFC 9113 section 6.5.2; we never announce another
    FIRST_MEMO_SLOTS = 8  # a connection that repeats few blocks stays small
    MOST_MEMO_SLOTS = 64
    SHARED_BLOCKS = 512  # of the process; a service has a few for each method and status
    MEMO_LONGEST = 512  # octets of a block that is worth remembering
    MAX_SIZE_UPDATES = 2  # per block (SE-14)
    ABUSE_FACTOR = 4  # over this many times a limit the connection goes (SE-01)
    INTEGER_OCTETS = 8  # of one integer, prefix included; no sane one is longer (RFC 7541 section 5.1)

cdef frozenset NOTHING = frozenset()
cdef dict _blocks = {}  # fields -> NativeBlock that came at least twice on some connection and has no secrets
cdef Row _static_rows[STATIC_COUNT + 1]  # 1..61; what they hold belongs to `hpack_table`

cdef struct Cursor:
    const uint8_t* at
    const uint8_t* end


cdef void _know_static_fields():
    cdef int index
    cdef tuple field
    for index in range(1, STATIC_COUNT + 1):
        field = static_field(index)
        _static_rows[index].field = <PyObject*> field
        _static_rows[index].size = len(field[0]) + len(field[1]) + ENTRY_OVERHEAD
        _static_rows[index].traits = field_traits(field[0], field[1])


_know_static_fields()


cdef inline uint64_t _hash(const uint8_t* data, Py_ssize_t length) noexcept:
    """Eight octets a step, multiply and fold. Only spreads blocks over slots; equality is always compared."""
    cdef uint64_t state = <uint64_t> length * 0x9E3779B97F4A7C15ULL
    cdef uint64_t chunk
    while length >= 8:
        memcpy(&chunk, data, 8)
        state = (state ^ chunk) * 0xFF51AFD7ED558CCDULL
        state ^= state >> 32
        data += 8
        length -= 8
    if length > 0:
        chunk = 0
        memcpy(&chunk, data, length)
        state = (state ^ chunk) * 0xFF51AFD7ED558CCDULL
        state ^= state >> 32
    return state


cdef NativeBlock _shared(NativeBlock block):
    """The one block for all connections that says the same: what is known of it, such as how it leaves, is known once.

    One with never-indexed fields stays with its connection: secrets outlive nobody who sent them.
    """
    cdef NativeBlock found
    block.repeats = True
    if len(block.never_indexed) > 0:
        return block
    found = _blocks.get(block.fields)
    if found is not None:
        return found
    if len(_blocks) >= SHARED_BLOCKS:
        _blocks.clear()  # what is in use comes back by itself
    _blocks[block.fields] = block
    return block


cdef inline int64_t _integer(Cursor* cursor, int prefix_bits) noexcept:
    """Section 5.1. The first octet is at the cursor; -1 if the integer does not end."""
    cdef int64_t mask = (1 << prefix_bits) - 1
    cdef int64_t value = cursor.at[0] & mask
    cdef int shift = 0
    cdef uint8_t octet
    cursor.at += 1
    if value < mask:
        return value
    while cursor.at < cursor.end and shift < 7 * (INTEGER_OCTETS - 1):
        octet = cursor.at[0]
        cursor.at += 1
        value += <int64_t> (octet & 0x7F) << shift
        if not octet & 0x80:
            return value
        shift += 7
    return -1


cdef bytes _string(Cursor* cursor):
    """Section 5.2. None if it is not one."""
    cdef bint coded
    cdef int64_t length
    cdef const uint8_t* text
    if cursor.at >= cursor.end:
        return None
    coded = cursor.at[0] & 0x80
    length = _integer(cursor, 7)
    if length < 0 or length > cursor.end - cursor.at:
        return None
    text = cursor.at
    cursor.at += length
    if coded:
        return huffman_decode(text, length)
    return PyBytes_FromStringAndSize(<const char*> text, length)


cdef class HpackDecoder:
    """The decoding context of one connection."""

    def __cinit__(self, int max_fields, Py_ssize_t max_list_size):
        self.max_fields = max_fields
        self.max_list_size = max_list_size
        self.limit = DEFAULT_TABLE

    def __dealloc__(self):
        self._evict(0)
        self._drop_fields()
        self._forget_blocks()
        free(self.rows)
        free(self.fields)
        free(self.traits)

    def decode_block(self, bytes data not None):
        """The block in `data` and how that went, for tests: (Decoded, block or None)."""
        cdef Decoded outcome = self.decode(<const uint8_t*> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        return outcome, (self.block if outcome == DECODED_WHOLE else None)

    cdef Decoded decode(self, const uint8_t* data, Py_ssize_t length) except *:
        """Decode one whole block; `self.block` is it if the answer is DECODED_WHOLE."""
        cdef uint64_t hash
        cdef uint64_t generation = self.generation
        cdef Remembered* slot
        cdef Decoded outcome
        if length > MEMO_LONGEST:
            return self._decode_fields(data, length)
        hash = _hash(data, length)
        if self.memo != NULL:
            slot = &self.memo[hash & (self.memo_slots - 1)]
            if (
                slot.hash == hash
                and slot.generation == generation
                and slot.block != NULL
                and slot.length == length
                and memcmp(&slot.octets[0] if slot.longer == NULL else slot.longer, data, length) == 0
            ):
                self.block = <NativeBlock> slot.block
                return DECODED_WHOLE
        outcome = self._decode_fields(data, length)
        if outcome == DECODED_WHOLE and self.generation == generation:
            self._remember(hash, data, length)
        return outcome

    cdef int _remember(self, uint64_t hash, const uint8_t* data, Py_ssize_t length) except -1:
        """Keep the block when its octets come the second time: what differs in every RPC must push nothing out."""
        cdef Remembered* slot
        cdef uint8_t* longer = NULL
        if not self._seen_lately(hash):
            return 0
        if self.memo == NULL:
            self._resize_memo(FIRST_MEMO_SLOTS)
        slot = &self.memo[hash & (self.memo_slots - 1)]
        if slot.block != NULL and slot.generation == self.generation and self.memo_slots < MOST_MEMO_SLOTS:
            self._resize_memo(2 * self.memo_slots)
            slot = &self.memo[hash & (self.memo_slots - 1)]
        self.block = _shared(self.block)  # what may fail comes before the slot is changed
        if length > SHORT_BLOCK:
            longer = <uint8_t*> malloc(length)
            if longer == NULL:
                raise MemoryError("no memory for a remembered block")
        memcpy(&slot.octets[0] if longer == NULL else longer, data, length)
        free(slot.longer)
        slot.longer = longer
        slot.length = <uint32_t> length
        slot.hash = hash
        slot.generation = self.generation
        self.memo_blocks[hash & (self.memo_slots - 1)] = self.block
        slot.block = <PyObject*> self.block
        return 0

    cdef bint _seen_lately(self, uint64_t hash) noexcept:
        """Among the last few that were not remembered; it is one of them from now on."""
        cdef int i
        for i in range(LATELY):
            if self.lately[i] == hash:
                return True
        self.lately[self.next_lately] = hash
        self.next_lately = (self.next_lately + 1) % LATELY
        return False

    cdef int _resize_memo(self, uint32_t slots) except -1:
        """A new memo, empty: what is in use comes back by itself."""
        self._forget_blocks()
        self.memo = <Remembered*> aligned_alloc(sizeof(Remembered), slots * sizeof(Remembered))
        if self.memo == NULL:
            raise MemoryError("no memory for an HPACK memo")
        memset(self.memo, 0, slots * sizeof(Remembered))
        self.memo_slots = slots
        self.memo_blocks = [None] * slots
        return 0

    cdef void _forget_blocks(self) noexcept:
        cdef uint32_t i
        for i in range(self.memo_slots):
            free(self.memo[i].longer)
        free(self.memo)
        self.memo = NULL
        self.memo_slots = 0

    cdef Decoded _decode_fields(self, const uint8_t* data, Py_ssize_t length) except *:
        """Field by field. Past a limit nothing is kept any more, but the table stays right (H2-21)."""
        cdef Cursor cursor
        cdef uint8_t first
        cdef int64_t index
        cdef int count = 0
        cdef int size_updates = 0
        cdef Py_ssize_t size = 0
        cdef Row row
        cdef Row* indexed
        cdef set never_indexed = None
        cdef tuple literal = None
        cdef bytes name
        cdef bytes value
        cursor.at = data
        cursor.end = data + length
        self._drop_fields()
        while cursor.at < cursor.end:
            first = cursor.at[0]
            if first & 0xE0 == 0x20:  # section 6.3
                index = _integer(&cursor, 5)
                size_updates += 1
                if index < 0 or index > DEFAULT_TABLE or count > 0 or size_updates > MAX_SIZE_UPDATES:
                    return DECODED_BROKEN
                self._resize(<uint32_t> index)
                continue
            index = _integer(&cursor, 7 if first & 0x80 else 6 if first & 0x40 else 4)
            if index < 0 or index > STATIC_COUNT + self.count:
                return DECODED_BROKEN
            if index > STATIC_COUNT:
                indexed = &self.rows[(self.newest - <uint32_t> (index - STATIC_COUNT - 1)) & (self.capacity - 1)]
            else:
                indexed = &_static_rows[index]
            if first & 0x80:  # section 6.1
                if index == 0:
                    return DECODED_BROKEN
                row = indexed[0]
            else:  # section 6.2
                name = <bytes> (<tuple> indexed.field)[0] if index > 0 else _string(&cursor)
                value = None if name is None else _string(&cursor)
                if value is None:
                    return DECODED_BROKEN
                literal = (name, value)
                row.field = <PyObject*> literal
                row.size = <uint32_t> (PyBytes_GET_SIZE(name) + PyBytes_GET_SIZE(value) + ENTRY_OVERHEAD)
                row.traits = field_traits(name, value)
                if first & 0x40:
                    self._insert(literal, row.size, row.traits)
            count += 1
            size += row.size
            if count > ABUSE_FACTOR * self.max_fields or size > ABUSE_FACTOR * self.max_list_size:
                return DECODED_ABUSIVE
            if count > self.max_fields or size > self.max_list_size:
                continue
            if first & 0xF0 == 0x10:
                if never_indexed is None:
                    never_indexed = set()
                never_indexed.add(name)
            if self.stored == self.room:
                self._make_room()
            Py_XINCREF(row.field)
            self.fields[self.stored] = row.field
            self.traits[self.stored] = row.traits
            self.stored += 1
        if count > self.stored:
            self._drop_fields()
            return DECODED_OVERSIZED
        self.block = new_block(
            self._take_fields(), self.traits, size, NOTHING if never_indexed is None else frozenset(never_indexed)
        )
        return DECODED_WHOLE

    cdef int _make_room(self) except -1:
        """For more fields of the block under construction, up to the limit that the caller checks."""
        cdef int room = 2 * self.room if self.room > 0 else FIRST_ROOM
        cdef void* grown = realloc(self.fields, room * sizeof(PyObject*))
        if grown == NULL:
            raise MemoryError("no memory for a field block")
        self.fields = <PyObject**> grown
        grown = realloc(self.traits, room * sizeof(uint16_t))
        if grown == NULL:
            raise MemoryError("no memory for a field block")
        self.traits = <uint16_t*> grown
        self.room = room
        return 0

    cdef tuple _take_fields(self):
        """The stored references, moved into a tuple."""
        cdef tuple fields = PyTuple_New(self.stored)
        cdef int i
        for i in range(self.stored):
            PyTuple_SET_ITEM(fields, i, <object> self.fields[i])  # takes over our reference
        self.stored = 0
        return fields

    cdef void _drop_fields(self) noexcept:
        """Release what an abandoned block has stored."""
        while self.stored > 0:
            self.stored -= 1
            Py_XDECREF(self.fields[self.stored])

    cdef void _resize(self, uint32_t limit) noexcept:
        """The peer's size update. Only an eviction gives indices another meaning."""
        self.limit = limit
        self._evict(limit)

    cdef int _insert(self, tuple field, uint32_t size, uint16_t traits) except -1:
        """Section 4.4: what is larger than the table empties it."""
        cdef Row* row
        self.generation += 1
        if size > self.limit:
            self._evict(0)
            return 0
        self._evict(self.limit - size)
        if self.count == self.capacity:
            self._grow()
        self.newest = (self.newest + 1) & (self.capacity - 1)
        row = &self.rows[self.newest]
        Py_INCREF(field)
        row.field = <PyObject*> field
        row.size = size
        row.traits = traits
        self.count += 1
        self.used += size
        return 0

    cdef void _evict(self, uint32_t most) noexcept:
        """Drop the oldest rows until at most `most` octets are used."""
        cdef Row* row
        while self.used > most:
            row = &self.rows[(self.newest - (self.count - 1)) & (self.capacity - 1)]
            self.count -= 1
            self.used -= row.size
            self.generation += 1
            Py_XDECREF(row.field)

    cdef int _grow(self) except -1:
        """Twice the ring, the rows in order from its start."""
        cdef uint32_t capacity = self.capacity * 2 if self.capacity else FIRST_ROWS
        cdef uint32_t i
        cdef Row* rows = <Row*> malloc(capacity * sizeof(Row))
        if rows == NULL:
            raise MemoryError("no memory for an HPACK table")
        for i in range(self.count):
            rows[i] = self.rows[(self.newest - (self.count - 1) + i) & (self.capacity - 1)]
        free(self.rows)
        self.rows = rows
        self.capacity = capacity
        self.newest = self.count - 1 if self.count else capacity - 1
        return 0
