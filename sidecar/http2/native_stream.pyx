"""Streams by number: those that are open, and how those ended that are not.

No rule of the protocol is here: the codec decides, these remember.
"""

from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free

from sidecar.http2.interface cimport Stream, StreamSink

cdef enum:
    FIRST_SLOTS = 4
    MOST_IDLE_SLOTS = 1024  # a larger table shrinks when a burst is over
    FIRST_CLOSED = 64
    # Our resets that are remembered: rust h2 50, python h2 65536. Only a connection with many resets grows to this.
    MOST_CLOSED = 1024
    LATE = 0x8000_0000  # marks PEER_MAY_NOT_KNOW; ids have 31 bits


cdef class NativeStream(Stream):
    """Made by the codec only; its fields are the codec's."""

    def __cinit__(self):
        self.octets_left = -1


cdef class StreamTable:
    """Open addressing with linear probing; at most half full. Ids rise by two, which the hash spreads evenly."""

    def __cinit__(self):
        self._empty(FIRST_SLOTS)

    cdef int _empty(self, uint32_t capacity) except -1:
        self.slots = [None] * capacity
        self.mask = capacity - 1
        self.count = 0
        return 0

    cdef uint32_t _home(self, uint32_t stream_id) noexcept:
        return (stream_id * <uint32_t> 0x9E3779B1) >> 8 & self.mask  # Knuth's multiplicative hashing

    cdef NativeStream get(self, uint32_t stream_id):
        cdef uint32_t slot = self._home(stream_id)
        cdef object found = self.slots[slot]
        while found is not None:
            if (<NativeStream> found).id == stream_id:
                return <NativeStream> found
            slot = slot + 1 & self.mask
            found = self.slots[slot]
        return None

    cdef int add(self, NativeStream stream) except -1:
        cdef uint32_t slot
        if 2 * (self.count + 1) > self.mask + 1:
            self._rebuild(2 * (self.mask + 1))
        slot = self._home(stream.id)
        while self.slots[slot] is not None:
            slot = slot + 1 & self.mask
        self.slots[slot] = stream
        self.count += 1
        stream.live = True
        return 0

    cdef int remove(self, uint32_t stream_id) except -1:
        """Close the gap, so that no probe ends early: what may move back over the gap does."""
        cdef uint32_t gap = self._home(stream_id)
        cdef uint32_t slot
        cdef uint32_t home
        cdef object found = self.slots[gap]
        while found is not None and (<NativeStream> found).id != stream_id:
            gap = gap + 1 & self.mask
            found = self.slots[gap]
        if found is None:
            return 0
        (<NativeStream> found).live = False
        self.count -= 1
        slot = gap
        while True:
            slot = slot + 1 & self.mask
            found = self.slots[slot]
            if found is None:
                break
            home = self._home((<NativeStream> found).id)
            if (slot - home & self.mask) >= (slot - gap & self.mask):
                self.slots[gap] = found
                gap = slot
        self.slots[gap] = None
        if self.mask + 1 > MOST_IDLE_SLOTS and 32 * self.count < self.mask + 1:
            self._rebuild((self.mask + 1) // 4)
        return 0

    cdef int _rebuild(self, uint32_t capacity) except -1:
        cdef list streams = [stream for stream in self.slots if stream is not None]
        cdef object stream
        self._empty(capacity)
        for stream in streams:
            self.add(<NativeStream> stream)
        return 0

    cdef list in_order(self):
        return sorted([stream for stream in self.slots if stream is not None], key=_by_id)


def _by_id(NativeStream stream):
    return stream.id


cdef class ClosedStreams:
    """Bounded: an older stream gives way to a younger one in its slot."""

    def __dealloc__(self):
        free(self.ids)

    cdef int remember(self, uint32_t stream_id, bint peer_knows) except -1:
        cdef uint32_t slot
        if self.capacity == 0:
            self._grow(FIRST_CLOSED)
        slot = stream_id >> 1 & (self.capacity - 1)
        while self.ids[slot] & LATE and self.capacity < MOST_CLOSED:  # ours would be forgotten too early
            self._grow(2 * self.capacity)
            slot = stream_id >> 1 & (self.capacity - 1)
        self.ids[slot] = stream_id if peer_knows else stream_id | LATE
        return 0

    cdef Closed how(self, uint32_t stream_id) noexcept:
        cdef uint32_t found
        if self.capacity == 0:
            return NOT_KNOWN
        found = self.ids[stream_id >> 1 & (self.capacity - 1)]
        if found & ~LATE != stream_id or stream_id == 0:
            return NOT_KNOWN
        return PEER_MAY_NOT_KNOW if found & LATE else PEER_KNOWS

    cdef int _grow(self, uint32_t capacity) except -1:
        cdef uint32_t i
        cdef uint32_t* ids = <uint32_t*> calloc(capacity, sizeof(uint32_t))
        if ids == NULL:
            raise MemoryError("no memory for closed streams")
        for i in range(self.capacity):
            ids[(self.ids[i] & ~LATE) >> 1 & (capacity - 1)] = self.ids[i]
        free(self.ids)
        self.ids = ids
        self.capacity = capacity
        return 0
