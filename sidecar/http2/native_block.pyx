"""Field validation in C: the rules of `field_validation`, which is the readable form and the oracle in the tests.

A field is judged once, when it enters a table or is read as a literal; a block is judged once, from the traits of
its fields. Octets are only read between the start and the end of a bytes object that the caller holds.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint16_t
from libc.string cimport memcmp

from sidecar.http2.interface cimport HeaderBlock

# What an octet may be part of.
cdef enum Octet:
    IN_NAME = 1
    IN_VALUE = 2
    IN_TOKEN = 4
    IN_SCHEME = 8
    IN_PATH = 16
    IN_AUTHORITY = 32

cdef uint8_t _octets[256]


cdef void _fill_octets():
    """The character classes of RFC 9113 section 8.2.1, RFC 9110 section 5.6.2 and RFC 3986, one bit each."""
    cdef int octet, allowed
    letters_and_digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    for octet in range(256):
        allowed = 0
        if 0x21 <= octet <= 0x7E and octet != c":" and not c"A" <= octet <= c"Z":
            allowed |= IN_NAME
        if octet not in b"\0\r\n":
            allowed |= IN_VALUE
        if octet in letters_and_digits or octet in b"!#$%&'*+-.^_`|~":
            allowed |= IN_TOKEN
        if octet in letters_and_digits or octet in b"+-.":
            allowed |= IN_SCHEME
        if octet > 0x20 and octet not in b"#\x7f":
            allowed |= IN_PATH
        if octet > 0x20 and octet not in b"/?#@\\\x7f":
            allowed |= IN_AUTHORITY
        _octets[octet] = allowed


_fill_octets()


cdef inline bint _all(const uint8_t* text, Py_ssize_t length, int allowed) noexcept:
    cdef Py_ssize_t i
    for i in range(length):
        if not _octets[text[i]] & allowed:
            return False
    return True


cdef inline bint _is(const uint8_t* text, Py_ssize_t length, const char* word, Py_ssize_t word_length) noexcept:
    return length == word_length and memcmp(text, word, word_length) == 0


cdef int _kind(const uint8_t* name, Py_ssize_t length) noexcept:
    """Kind of a field by its name."""
    if length > 0 and name[0] == c":":
        if _is(name, length, b":path", 5):
            return PATH
        if _is(name, length, b":method", 7):
            return METHOD
        if _is(name, length, b":scheme", 7):
            return SCHEME
        if _is(name, length, b":status", 7):
            return STATUS
        if _is(name, length, b":authority", 10):
            return AUTHORITY
        return UNDEFINED
    if length == 2:
        return TE if memcmp(name, b"te", 2) == 0 else PLAIN
    if length == 4:
        return HOST if memcmp(name, b"host", 4) == 0 else PLAIN
    if length == 7:
        return CONNECTION_SPECIFIC if memcmp(name, b"upgrade", 7) == 0 else PLAIN
    if length == 10:
        if memcmp(name, b"connection", 10) == 0 or memcmp(name, b"keep-alive", 10) == 0:
            return CONNECTION_SPECIFIC
        return PLAIN
    if length == 14:
        return CONTENT_LENGTH if memcmp(name, b"content-length", 14) == 0 else PLAIN
    if length == 16:
        return CONNECTION_SPECIFIC if memcmp(name, b"proxy-connection", 16) == 0 else PLAIN
    if length == 17:
        return CONNECTION_SPECIFIC if memcmp(name, b"transfer-encoding", 17) == 0 else PLAIN
    return PLAIN


cdef bint _sound_value(int kind, const uint8_t* value, Py_ssize_t length) noexcept:
    """Whether the value is what its kind asks for; host is judged with the block."""
    if kind == PLAIN or kind == HOST:
        return True
    if kind == METHOD:
        return length > 0 and _all(value, length, IN_TOKEN)
    if kind == SCHEME:
        return length > 0 and c"A" <= value[0] & 0xDF <= c"Z" and _all(value, length, IN_SCHEME)
    if kind == PATH:
        return length > 0 and _all(value, length, IN_PATH)
    if kind == AUTHORITY:
        return length > 0 and _all(value, length, IN_AUTHORITY)
    if kind == STATUS:
        return (
            length == 3
            and c"1" <= value[0] <= c"9"
            and c"0" <= value[1] <= c"9"
            and c"0" <= value[2] <= c"9"
            and memcmp(value, b"101", 3) != 0
        )
    if kind == TE:
        return _is(value, length, b"trailers", 8)
    if kind == CONTENT_LENGTH:
        return 1 <= length <= 19 and _digits(value, length) >= 0
    return False  # UNDEFINED, CONNECTION_SPECIFIC


cdef int64_t _digits(const uint8_t* text, Py_ssize_t length) noexcept:
    """The number written in at most 19 digits; -1 if it is none. Above 2**63 - 1 it saturates."""
    cdef int64_t number = 0
    cdef int64_t largest = 0x7FFF_FFFF_FFFF_FFFF
    cdef Py_ssize_t i
    for i in range(length):
        if not c"0" <= text[i] <= c"9":
            return -1
        if number > (largest - (text[i] - c"0")) // 10:
            number = largest
        else:
            number = number * 10 + (text[i] - c"0")
    return number


cdef uint16_t field_traits(bytes name, bytes value) except? 0xFFFF:
    cdef const uint8_t* n = <const uint8_t*> PyBytes_AS_STRING(name)
    cdef const uint8_t* v = <const uint8_t*> PyBytes_AS_STRING(value)
    cdef Py_ssize_t name_length = PyBytes_GET_SIZE(name)
    cdef Py_ssize_t value_length = PyBytes_GET_SIZE(value)
    cdef int kind = _kind(n, name_length)
    if name_length == 0:
        return DEFECT
    if kind == PLAIN and not _all(n, name_length, IN_NAME):
        return DEFECT
    if value_length > 0 and (_white(v[0]) or _white(v[value_length - 1])):
        return kind | DEFECT
    if not _all(v, value_length, IN_VALUE) or not _sound_value(kind, v, value_length):
        return kind | DEFECT
    return kind


cdef inline bint _white(uint8_t octet) noexcept:
    return octet == c" " or octet == c"\t"


cdef class NativeBlock(HeaderBlock):
    """A block from the wire. Made by `new_block` only."""


cdef NativeBlock new_block(tuple fields, const uint16_t* traits, Py_ssize_t size, frozenset never_indexed):
    cdef NativeBlock block = NativeBlock.__new__(NativeBlock)
    block.fields = fields
    block.never_indexed = never_indexed
    block.size = size
    block.meaning = None
    block.status = 0
    block.content_length = -1
    block.to_head = False
    block.repeats = False
    _judge(block, traits)
    return block


cdef int _judge(NativeBlock block, const uint16_t* traits) except -1:
    """Order and number of the fields (section 8.3), then what the block may serve as."""
    cdef tuple fields = block.fields
    cdef Py_ssize_t count = len(fields)
    cdef Py_ssize_t i
    cdef int kind
    cdef int seen = 0  # 1 << kind
    cdef bint regular = False
    cdef bytes method = None
    cdef bytes path = None
    cdef bytes authority = None
    cdef bytes host = None
    cdef bytes value
    block.verdict = 0
    for i in range(count):
        kind = traits[i]
        if kind == PLAIN:
            regular = True
            continue
        if kind & DEFECT:
            return 0
        if kind > LAST_PSEUDO:
            regular = True
        elif regular:
            return 0
        if seen & 1 << kind and kind != TE and kind != HOST:
            return 0
        seen |= 1 << kind
        if kind == SCHEME or kind == TE:
            continue
        value = <bytes> (<tuple> fields[i])[1]
        if kind == METHOD:
            method = value
        elif kind == PATH:
            path = value
        elif kind == AUTHORITY:
            authority = value
        elif kind == STATUS:
            block.status = <int> _digits(<const uint8_t*> PyBytes_AS_STRING(value), 3)
        elif kind == CONTENT_LENGTH:
            block.content_length = _digits(<const uint8_t*> PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
        elif kind == HOST:
            host = b"" if host is not None else value  # two of them: no request may have that
    if seen & (1 << METHOD | 1 << SCHEME | 1 << PATH | 1 << AUTHORITY):
        if not seen & 1 << STATUS and _sound_target(seen, method, path) and _sound_host(seen, authority, host):
            block.verdict = AS_REQUEST
            block.to_head = method == b"HEAD"
    elif seen & 1 << STATUS:
        if not seen & 1 << TE:
            block.verdict = AS_RESPONSE
    elif not seen & (1 << TE | 1 << HOST | 1 << CONTENT_LENGTH):
        block.verdict = AS_TRAILERS
    return 0


cdef bint _sound_target(int seen, bytes method, bytes path):
    """Section 8.3.1, and 8.5 for CONNECT."""
    if method is None:
        return False
    if method == b"CONNECT":
        return seen & (1 << SCHEME | 1 << PATH | 1 << AUTHORITY) == 1 << AUTHORITY
    if not seen & 1 << SCHEME or path is None:
        return False
    return PyBytes_AS_STRING(path)[0] == c"/" or (path == b"*" and method == b"OPTIONS")


cdef bint _sound_host(int seen, bytes authority, bytes host):
    """Section 8.3.1: one host at most, and it says what :authority says (gRFC A41)."""
    if not seen & 1 << HOST:
        return authority is not None
    if authority is not None:
        return host == authority
    return (
        PyBytes_GET_SIZE(host) > 0
        and _all(<const uint8_t*> PyBytes_AS_STRING(host), PyBytes_GET_SIZE(host), IN_AUTHORITY)
    )
