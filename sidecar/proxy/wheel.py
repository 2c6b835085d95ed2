"""Every deadline and timeout of the data path, in one wheel that one timer drives.

Setting and cancelling an alarm costs a dictionary entry, so an RPC may have one. The wheel is pure: it is told
the time and rings what is due. It never rings early, and late by at most one tick plus the timer's own delay.
"""

from __future__ import annotations

import heapq
import logging

log = logging.getLogger("sidecar.proxy")

TICK = 0.001  # seconds; the deadline of an RPC must be answered within 10 ms (GR-43)
# A deadline or timeout noticed so much after it passed was slept through, by the process or by its machine; the answer
# may be here already, unread. Seconds.
OVERSLEPT = 0.1

_TICK = TICK  # a number of its own, so that the compiled form reckons without objects


class Alarm:
    """Something that happens at an instant unless cancelled. Subclasses say what in `ring`."""

    __slots__ = ("tick",)

    def __init__(self) -> None:
        self.tick: int = 0  # 0: not set

    @property
    def is_set(self) -> bool:
        """Whether it will ring."""
        return self.tick != 0  # negative: due in the turn that runs now

    def ring(self, now: float) -> None:
        """It is time. The alarm is no longer set and may be set again."""
        raise NotImplementedError


class Wheel:
    """Alarms by the tick they are due at."""

    __slots__ = ("_buckets", "_ticks")

    def __init__(self) -> None:
        self._buckets: dict[int, dict[Alarm, None]] = {}
        self._ticks: list[int] = []  # a heap; may hold ticks whose bucket is gone

    def set(self, alarm: Alarm, due_at: float) -> None:
        """Ring `alarm` at `due_at`; an alarm that was set before rings only then."""
        if alarm.tick:
            self.cancel(alarm)
        tick = int(due_at / _TICK) + 1
        alarm.tick = tick
        bucket = self._buckets.get(tick)
        if bucket is None:
            self._buckets[tick] = {alarm: None}
            heapq.heappush(self._ticks, tick)
            if len(self._ticks) > 64 + 2 * len(self._buckets):
                self._compact()
        else:
            bucket[alarm] = None

    def cancel(self, alarm: Alarm) -> None:
        """Do not ring. Does nothing when it is not set."""
        tick = alarm.tick
        alarm.tick = 0
        if tick <= 0:
            return
        bucket = self._buckets[tick]
        del bucket[alarm]
        if not bucket:
            del self._buckets[tick]

    def next_at(self) -> float | None:
        """When something is due next, or None."""
        ticks = self._ticks
        while ticks and ticks[0] not in self._buckets:
            heapq.heappop(ticks)
        return ticks[0] * TICK if ticks else None

    def advance(self, now: float) -> int:
        """Ring everything due; returns how many. What is set by a ring for now or earlier rings the next time."""
        tick = int(now / _TICK + 1e-6)
        due: list[Alarm] = []
        ticks = self._ticks
        while ticks and ticks[0] <= tick:
            bucket = self._buckets.pop(heapq.heappop(ticks), None)
            if bucket:
                due.extend(bucket)
        rung = 0
        for alarm in due:
            alarm.tick = -alarm.tick  # taken from its bucket, not rung yet: another ring may still cancel it
        for alarm in due:
            if alarm.tick < 0:
                alarm.tick = 0
                rung += 1
                try:
                    alarm.ring(now)
                except Exception:
                    log.exception("%r: internal error; the other alarms ring all the same", alarm)
        return rung

    def _compact(self) -> None:
        """Forget the ticks of cancelled alarms: most deadlines are cancelled long before they are due."""
        self._ticks = list(self._buckets)
        heapq.heapify(self._ticks)

    def __len__(self) -> int:
        return sum(len(bucket) for bucket in self._buckets.values())
