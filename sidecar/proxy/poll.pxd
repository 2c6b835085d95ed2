# Waits for sockets and serves those of the data path; what it does is written in poll.pyx.

from libc.stdint cimport uint32_t

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        int fd
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    enum:
        CAN_READ "EPOLLIN"
        CAN_WRITE "EPOLLOUT"
        IS_BROKEN "(EPOLLERR | EPOLLHUP)"  # told without being asked for


cdef class Poll:
    cdef int epoll
    cdef list channels  # by descriptor; None: not ours
    cdef bint left

    cdef int watch(self, int descriptor, object channel, uint32_t before, uint32_t events) except -1
    cdef list _serve(self, const epoll_event* events, int count, double now)
