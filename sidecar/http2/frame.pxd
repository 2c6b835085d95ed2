# The octets of frames (RFC 9113 sections 4.1 and 6), written to and read from memory that the caller has checked.
# Constants as C sees them; their Python twins and their sources are in constants.py.

from libc.stdint cimport uint8_t, uint32_t

from sidecar.http2.buffer cimport Buffer, buffer_extend

cdef enum:
    FRAME_HEADER = 9

cdef enum FrameType:
    TYPE_DATA = 0
    TYPE_HEADERS = 1
    TYPE_PRIORITY = 2
    TYPE_RST_STREAM = 3
    TYPE_SETTINGS = 4
    TYPE_PUSH_PROMISE = 5
    TYPE_PING = 6
    TYPE_GOAWAY = 7
    TYPE_WINDOW_UPDATE = 8
    TYPE_CONTINUATION = 9

cdef enum Flag:
    ACK = 0x1
    END_STREAM = 0x1
    END_HEADERS = 0x4
    PADDED = 0x8
    HAS_PRIORITY = 0x20

cdef enum ErrorCode:
    E_NO_ERROR = 0x0
    E_PROTOCOL = 0x1
    E_INTERNAL = 0x2
    E_FLOW_CONTROL = 0x3
    E_STREAM_CLOSED = 0x5
    E_FRAME_SIZE = 0x6
    E_REFUSED_STREAM = 0x7
    E_COMPRESSION = 0x9
    E_ENHANCE_YOUR_CALM = 0xB
    E_LAST_KNOWN = 0xD

cdef enum Setting:
    SETTING_TABLE_SIZE = 1
    SETTING_PUSH = 2
    SETTING_STREAMS = 3
    SETTING_STREAM_WINDOW = 4
    SETTING_FRAME_SIZE = 5
    SETTING_LIST_SIZE = 6

cdef enum:
    NO_STREAM_ERROR = -1


cdef inline uint32_t read_24(const uint8_t* at) noexcept:
    return <uint32_t> at[0] << 16 | <uint32_t> at[1] << 8 | at[2]


cdef inline uint32_t read_32(const uint8_t* at) noexcept:
    return <uint32_t> at[0] << 24 | <uint32_t> at[1] << 16 | <uint32_t> at[2] << 8 | at[3]


cdef inline uint32_t read_31(const uint8_t* at) noexcept:
    """Without the reserved bit."""
    return read_32(at) & 0x7FFF_FFFF


cdef inline void write_32(uint8_t* at, uint32_t value) noexcept:
    at[0] = <uint8_t> (value >> 24)
    at[1] = <uint8_t> (value >> 16)
    at[2] = <uint8_t> (value >> 8)
    at[3] = <uint8_t> value


cdef inline void write_frame_header(
    uint8_t* at, uint32_t length, uint8_t kind, uint8_t flags, uint32_t stream_id
) noexcept:
    at[0] = <uint8_t> (length >> 16)
    at[1] = <uint8_t> (length >> 8)
    at[2] = <uint8_t> length
    at[3] = kind
    at[4] = flags
    write_32(at + 5, stream_id)


cdef inline uint8_t* queue_frame(Buffer* out, uint32_t length, uint8_t kind, uint8_t flags, uint32_t stream_id) except NULL:
    """Queue a frame header; the answer is where exactly `length` octets of payload go, at once."""
    cdef uint8_t* at = buffer_extend(out, FRAME_HEADER + length)
    write_frame_header(at, length, kind, flags, stream_id)
    return at + FRAME_HEADER


cdef inline int queue_word(Buffer* out, uint8_t kind, uint32_t stream_id, uint32_t word) except -1:
    """Queue a RST_STREAM or a WINDOW_UPDATE: 4 octets."""
    write_32(queue_frame(out, 4, kind, 0, stream_id), word)
    return 0
