# RFC 7541 section 5.2 and appendix B: the Huffman code of HPACK strings.

cdef bytes huffman_decode(const unsigned char* data, Py_ssize_t length)  # None: not a valid string
cdef Py_ssize_t huffman_length(const unsigned char* data, Py_ssize_t length) noexcept  # octets when encoded
cdef void huffman_encode(const unsigned char* data, Py_ssize_t length, unsigned char* out) noexcept
