"""Waits for sockets, and serves those of the data path without going back to the event loop in between.

asyncio's loop asks its selector what is ready, and runs callbacks that it finds by name, all of it interpreted. Here the channels that are ready are served where they were found, all of one wait in one turn of
their engine, and the wait is taken up again. Only what is not ours comes out of `wait`: other sockets, callbacks that
somebody scheduled, timers that are due.
"""

import logging
import os

from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from cpython.list cimport PyList_GET_SIZE
from libc.errno cimport EINTR, errno
from libc.math cimport ceil
from libc.stdint cimport uint32_t

from sidecar.proxy.channel cimport Channel
from sidecar.proxy.engine cimport Engine

cdef extern from "<sys/epoll.h>" nogil:
    int EPOLL_CTL_ADD
    int EPOLL_CTL_MOD
    int EPOLL_CTL_DEL
    int epoll_ctl(int epoll, int operation, int descriptor, epoll_event* event)
    int epoll_wait(int epoll, epoll_event* events, int most, int milliseconds)

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec* time)

cdef enum:
    MOST_EVENTS = 256  # of one wait; what is left over comes first in the next
    LONGEST = 86_400_000  # milliseconds of one wait, which are counted in an int

log = logging.getLogger("sidecar.proxy")


cdef inline double monotonic() noexcept nogil:
    """What `time.monotonic` says."""
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return time.tv_sec + time.tv_nsec * 1e-9


cdef int _settle(Engine turn) except -1:
    """The turn is over, if there was one."""
    if turn is not None:
        try:
            turn.settle()
        except Exception:
            log.exception("internal error at the end of a turn")
    return 0


cdef class Poll:
    """Waits on the epoll descriptor of a selector, which knows the sockets that are not ours."""

    def __init__(self, int epoll):
        self.epoll = epoll
        self.channels = []
        self.left = False

    def leave(self):
        """End the wait with what is being served: the event loop has work of its own."""
        self.left = True

    def wait(self, timeout):
        """Serve channels until something else is ready or `timeout` (seconds; None: never) has passed.

        Returns what is ready and not a channel, as pairs of a descriptor and epoll's events.
        """
        cdef epoll_event[MOST_EVENTS] events
        cdef double until = 0.0 if timeout is None else monotonic() + max(<double> timeout, 0.0)
        cdef double milliseconds = LONGEST if timeout is None else max(<double> timeout, 0.0) * 1e3
        cdef double now
        cdef int count
        cdef int code
        cdef list found
        self.left = False
        while True:
            with nogil:
                count = epoll_wait(self.epoll, events, MOST_EVENTS, <int> ceil(min(milliseconds, LONGEST)))
                code = errno
                now = monotonic()
            if count < 0:
                if code != EINTR:
                    raise OSError(code, os.strerror(code))
                PyErr_CheckSignals()
                return []
            found = self._serve(events, count, now)
            if found is not None or self.left or count == 0:
                return [] if found is None else found
            if timeout is not None:
                milliseconds = (until - now) * 1e3
                if milliseconds <= 0.0:
                    return []

    cdef list _serve(self, const epoll_event* events, int count, double now):
        """Let every channel do what it is ready for, in one turn of its engine."""
        cdef list found = None
        cdef Engine turn = None
        cdef Engine engine
        cdef Channel channel
        cdef int descriptor
        cdef int i
        for i in range(count):
            descriptor = events[i].data.fd
            channel = self.channels[descriptor] if descriptor < PyList_GET_SIZE(self.channels) else None
            if channel is None:
                if found is None:
                    found = []
                found.append((descriptor, events[i].events))
                continue
            engine = channel.connection.engine
            if engine is not turn:
                _settle(turn)
                turn = engine
                turn.begin_at(now)
            elif not turn.in_turn:  # a callback was a turn of its own
                turn.begin_at(now)
            try:
                channel.serve(events[i].events)
            except Exception:
                log.exception("%r: internal error; cutting this connection", channel)
                channel.abort()
        _settle(turn)
        return found

    cdef int watch(self, int descriptor, object channel, uint32_t before, uint32_t events) except -1:
        """Serve `channel` for `events` from now on, where it was served for `before`; without any, forget it."""
        cdef epoll_event event
        cdef int operation = EPOLL_CTL_ADD if before == 0 else EPOLL_CTL_DEL if events == 0 else EPOLL_CTL_MOD
        event.events = events
        event.data.fd = descriptor
        if events == 0:
            self.channels[descriptor] = None
        else:
            while descriptor >= PyList_GET_SIZE(self.channels):
                self.channels.append(None)
            self.channels[descriptor] = channel
        if epoll_ctl(self.epoll, operation, descriptor, &event) < 0:
            PyErr_SetFromErrno(OSError)
        return 0
