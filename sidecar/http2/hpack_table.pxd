# RFC 7541 appendix A. The fields are shared by every connection: an indexed field is a reference, never a copy.

cdef enum:
    STATIC_COUNT = 61
    ENTRY_OVERHEAD = 32  # RFC 7541 section 4.1

cdef tuple static_field(int index)  # 1..61, as a (name, value) tuple
cdef int static_index(bytes name, bytes value, bint* exact)  # of the pair if exact, else of the name; 0 if neither
