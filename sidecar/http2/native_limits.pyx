"""What a peer may do before it counts as an attack (SE-04 to SE-12). The readable form and the reasons: `limits`."""

cdef enum:
    # Envoy: inbound WINDOW_UPDATE frames <= 5 + 2 * (streams + 10 * DATA frames sent) (SE-06).
    WINDOW_UPDATES_FREE = 5
    WINDOW_UPDATES_PER_STREAM = 2
    WINDOW_UPDATES_PER_DATA_FRAME = 20
    PRIORITIES_PER_STREAM = 10  # Envoy 100, nginx 128 (SE-10)


cdef class NativeFloodGuard:
    """The counters of one connection."""

    def __cinit__(self, settings):
        self.reset_burst = settings.reset_burst
        self.reset_rate = settings.reset_rate
        self.tokens = self.reset_burst
        self.max_queued_control_frames = settings.max_queued_control_frames
        self.max_empty_data_frames = settings.max_empty_data_frames
        self.max_streams_per_read = settings.max_streams_per_read
        self.max_priority_frames = settings.max_priority_frames

    cdef void refill(self, double now) noexcept:
        if not self.refilled:
            self.refilled = True
            self.refilled_at = now
        self.now = now

    cdef bint one_empty_data_too_many(self) noexcept:
        """SE-08. The codec sets the count to 0 at any other DATA frame."""
        self.empty_data += 1
        return self.empty_data > self.max_empty_data_frames

    cdef bint one_reset_too_many(self) noexcept:
        """SE-04, SE-12: the peer reset an unanswered stream, or made us reset one. Tokens come back when one is asked for."""
        if self.now > self.refilled_at:
            self.tokens = min(self.reset_burst, self.tokens + (self.now - self.refilled_at) * self.reset_rate)
            self.refilled_at = self.now
        if self.tokens < 1:
            return True
        self.tokens -= 1
        return False

    cdef bint one_reply_too_many(self) noexcept:
        """SE-05: an ACK or a RST_STREAM waits for `data_to_send`, which sets the count to 0."""
        self.queued_replies += 1
        return self.queued_replies > self.max_queued_control_frames

    cdef bint one_stream_too_many(self) noexcept:
        """SE-04: new streams in one `receive_data`, which starts with 0."""
        self.streams_this_read += 1
        return self.streams_this_read > self.max_streams_per_read

    cdef bint one_priority_too_many(self) noexcept:
        """SE-10."""
        self.priorities += 1
        return self.priorities > self.max_priority_frames + PRIORITIES_PER_STREAM * self.streams

    cdef bint one_window_update_too_many(self) noexcept:
        """SE-06: for what was sent."""
        self.window_updates += 1
        return self.window_updates > (
            WINDOW_UPDATES_FREE
            + WINDOW_UPDATES_PER_STREAM * self.streams
            + WINDOW_UPDATES_PER_DATA_FRAME * self.data_frames_sent
        )
