"""The Huffman code of RFC 7541 appendix B, decoded four bits at a time by a table built at import.

The code is canonical, so the lengths alone define it. Pointers here are only read up to `length`, and
`huffman_encode` writes exactly `huffman_length` octets.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    SYMBOLS = 257  # 256 octets and EOS
    EOS = 256
    INNER_NODES = 256  # a full binary tree of 257 leaves
    ON_STACK = 1024  # octets decoded without a second allocation

cdef enum Step:
    EMIT = 1  # this nibble completed a symbol
    FAIL = 2  # this nibble completed EOS
    ACCEPT = 4  # the string may end here: fewer than 8 bits of the EOS prefix are open

cdef struct Transition:
    uint8_t state
    uint8_t flags
    uint8_t symbol

LENGTHS = bytes((
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
))

cdef Transition _steps[INNER_NODES][16]
cdef uint32_t _codes[SYMBOLS]
cdef uint8_t _lengths[SYMBOLS]


cdef void _assign_codes():
    """Canonical order: by length, then by symbol; each code is the one before plus one, shifted to its length."""
    cdef uint32_t code = 0
    cdef int length = 0
    for symbol in sorted(range(SYMBOLS), key=lambda s: (LENGTHS[s], s)):
        code <<= LENGTHS[symbol] - length
        length = LENGTHS[symbol]
        _codes[symbol] = code
        _lengths[symbol] = length
        code += 1


cdef void _build_steps():
    """Walk every inner node of the code tree with every nibble."""
    cdef int node, nibble, bit, child, symbol, depth
    children = [[0, 0]]  # > 0: an inner node; < 0: the leaf of symbol -1 - child; 0: not made yet
    depths = [0]
    ones = [True]  # the node is reached by ones only
    for symbol in range(SYMBOLS):
        node = 0
        for depth in range(_lengths[symbol] - 1, -1, -1):
            bit = _codes[symbol] >> depth & 1
            if depth == 0:
                children[node][bit] = -1 - symbol
            elif children[node][bit] == 0:
                children[node][bit] = len(children)
                children.append([0, 0])
                depths.append(depths[node] + 1)
                ones.append(ones[node] and bit == 1)
                node = len(children) - 1
            else:
                node = children[node][bit]
    for node in range(INNER_NODES):
        for nibble in range(16):
            state = node
            flags = 0
            emitted = 0
            for depth in range(3, -1, -1):
                child = children[state][nibble >> depth & 1]
                if child >= 0:
                    state = child
                    continue
                if child == -1 - EOS:
                    flags |= FAIL
                else:
                    flags |= EMIT
                    emitted = -1 - child
                state = 0
            if ones[state] and depths[state] < 8:
                flags |= ACCEPT
            _steps[node][nibble].state = state
            _steps[node][nibble].flags = flags
            _steps[node][nibble].symbol = emitted


_assign_codes()
_build_steps()


cdef Py_ssize_t _decode_into(const uint8_t* data, Py_ssize_t length, uint8_t* out) noexcept:
    """Write at most 8 * length / 5 octets; -1 for an invalid string."""
    cdef Py_ssize_t i
    cdef Py_ssize_t written = 0
    cdef Transition step
    step.state = 0
    step.flags = ACCEPT
    for i in range(length):
        step = _steps[step.state][data[i] >> 4]
        if step.flags & FAIL:
            return -1
        if step.flags & EMIT:
            out[written] = step.symbol
            written += 1
        step = _steps[step.state][data[i] & 15]
        if step.flags & FAIL:
            return -1
        if step.flags & EMIT:
            out[written] = step.symbol
            written += 1
    return written if step.flags & ACCEPT else -1


cdef bytes huffman_decode(const unsigned char* data, Py_ssize_t length):
    """The plain string, or None if the padding is wrong or EOS occurs (RFC 7541 section 5.2)."""
    cdef uint8_t[ON_STACK] scratch
    cdef Py_ssize_t room = length * 8 // 5 + 1
    cdef Py_ssize_t written
    cdef bytes roomy
    if room <= ON_STACK:
        written = _decode_into(data, length, scratch)
        return None if written < 0 else PyBytes_FromStringAndSize(<char*> scratch, written)
    roomy = PyBytes_FromStringAndSize(NULL, room)
    written = _decode_into(data, length, <uint8_t*> PyBytes_AS_STRING(roomy))
    return None if written < 0 else roomy[:written]


cdef Py_ssize_t huffman_length(const unsigned char* data, Py_ssize_t length) noexcept:
    cdef Py_ssize_t bits = 7  # rounds up to whole octets
    cdef Py_ssize_t i
    for i in range(length):
        bits += _lengths[data[i]]
    return bits // 8


cdef void huffman_encode(const unsigned char* data, Py_ssize_t length, unsigned char* out) noexcept:
    cdef uint64_t pending = 0  # the low `count` bits are not written yet
    cdef int count = 0
    cdef Py_ssize_t i
    for i in range(length):
        pending = pending << _lengths[data[i]] | _codes[data[i]]
        count += _lengths[data[i]]
        while count >= 8:
            count -= 8
            out[0] = <uint8_t> (pending >> count)
            out += 1
    if count > 0:
        out[0] = <uint8_t> (pending << (8 - count) | (0xFF >> count))  # padded with the start of EOS: ones


def decode_text(bytes data not None):
    """`huffman_decode` for Python."""
    return huffman_decode(<const uint8_t*> PyBytes_AS_STRING(data), len(data))


def encode_text(bytes data not None):
    """`huffman_encode` for Python."""
    cdef const uint8_t* start = <const uint8_t*> PyBytes_AS_STRING(data)
    cdef bytes encoded = PyBytes_FromStringAndSize(NULL, huffman_length(start, len(data)))
    huffman_encode(start, len(data), <uint8_t*> PyBytes_AS_STRING(encoded))
    return encoded
