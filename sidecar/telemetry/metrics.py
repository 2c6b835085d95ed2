"""Counters as plain slots: the data path adds to them, the collector reads them at scrape time.

No labels, no locks, no clock. Which slot becomes which metric stands in `catalogue`.
"""

from __future__ import annotations

# A latency histogram is log-linear: 8 steps per power of two, so a quantile is off by at most 1/8.
STEPS = 8
SHIFT = 3
OCTAVES = 32  # of microseconds: up to 71 minutes
STATUSES = 17  # grpc-status 0..16

# Numbers of its own, so that the compiled form reckons without objects; there they are not seen from outside.
_STEPS = STEPS
_SHIFT = SHIFT
_LAST = STEPS * (OCTAVES - SHIFT + 1) - 1  # index of the bucket for everything that is longer
_LONGEST = 2.0**OCTAVES / 1e6  # seconds

# How an array of counts begins. Compiled it is an array in C: what is read from outside is a copy, and an element is
# not to be set there.
_NO_DURATIONS = (0,) * (_LAST + 1)
_NO_STATUSES = (0,) * STATUSES


def bucket_of(seconds: float) -> int:
    """The place in a histogram of a duration that is not negative."""
    micros = int(min(seconds, _LONGEST) * 1e6)
    shift = 0
    while micros >= 2 * _STEPS:
        micros >>= 1
        shift += 1
    return min((shift << _SHIFT) + micros, _LAST)


class Histogram:
    """Durations in seconds, counted per log-linear bucket of microseconds."""

    def __init__(self) -> None:
        self.counts: list[int] = list(_NO_DURATIONS)
        self.count: int = 0
        self.total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration; a negative one counts as zero."""
        seconds = max(seconds, 0.0)
        self.count_in(bucket_of(seconds), seconds)

    def count_in(self, bucket: int, seconds: float) -> None:
        """Count one duration of which the bucket is known: what goes into two histograms is looked up once."""
        self.counts[bucket] += 1
        self.count += 1
        self.total += seconds

    def quantile(self, fraction: float) -> float:
        """The upper edge in seconds of the bucket that holds this fraction of all; 0.0 when empty."""
        rank = fraction * self.count
        seen = 0
        for index, count in enumerate(self.counts):
            seen += count
            if count and seen >= rank:
                return upper_edge(index)
        return 0.0


def upper_edge(index: int) -> float:
    """The exclusive upper edge of bucket `index`, in seconds."""
    if index < STEPS:
        return (index + 1) / 1e6
    shift = (index >> SHIFT) - 1
    return ((index - (shift << SHIFT) + 1) << shift) / 1e6


class UpstreamMetrics:
    """One upstream. `exchange_*` is what the app saw, `attempt_*` what the endpoints saw."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.exchange_started: int = 0
        self.exchange_status: list[int] = list(_NO_STATUSES)
        self.exchange_latency = Histogram()
        self.attempt_started: int = 0
        self.attempt_status: list[int] = list(_NO_STATUSES)
        self.attempt_latency = Histogram()
        self.retries: dict[str, int] = {}  # by reason
        self.retries_suppressed: dict[str, int] = {}  # by why
        self.hedge_wins: int = 0  # hedges that answered first; how many were made stands among the retries
        self.hedges_suppressed: dict[str, int] = {}  # by why
        self.overstays: dict[str, int] = {}  # by which of its timeouts an RPC was ended
        self.refusals: dict[str, int] = {}  # by reason: RPCs that no attempt was made for
        self.outcomes: dict[str, int] = {}  # by Outcome name
        self.faults: dict[str, int] = {}  # injected on purpose, by kind
        self.mirrored: dict[str, int] = {}  # copies of RPCs, by what became of them
        self.concurrency_limit: int = 0  # that adapts; 0: none is configured
        self.routed: dict[str, int] = {}  # by the upstream that a route led to
        self.ejections: dict[str, int] = {}  # carried out, by reason
        self.withheld: dict[tuple[str, str], int] = {}  # ejections that were not, by reason and by why not
        self.load_reports: dict[str, int] = {}  # by what came of them, and of requests for them out of band
        self.queued: int = 0
        self.bytes_up: int = 0
        self.bytes_down: int = 0
        self.foreign_attempts: int = 0  # on endpoints in another zone
        self.foreign_up: int = 0  # octets, likewise
        self.foreign_down: int = 0
        self.connects: int = 0
        self.connect_failures: dict[str, int] = {}  # by reason
        # By reason: idle, max_age, goaway, removed, ...; lost, ping_timeout, unacknowledged.
        self.disconnects: dict[str, int] = {}
        self.health_checks: dict[str, int] = {}  # by result: passed, denied, missed, unimplemented
        self.ping_timeouts: dict[str, int] = {}  # by what the PING was for: reuse, keepalive


class ListenerMetrics:
    """One listener."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.accepted: int = 0
        self.open: int = 0
        self.refused: dict[str, int] = {}  # by reason: not_http2, too_many, ...
        self.protocol_errors: dict[str, int] = {}  # by error code name


class RegistryMetrics:
    """The registry as this process sees it."""

    def __init__(self) -> None:
        self.up: bool = False
        self.errors: int = 0
        self.registrations: int = 0
        self.lost: int = 0  # times the registry had forgotten our registration
        self.updates: dict[str, int] = {}  # snapshots applied, by service
        self.held: dict[str, int] = {}  # answers that were not taken at their word, by reason
        self.known_leader: bool = True  # by the newest answer (X-Consul-KnownLeader)
        self.last_contact: float = 0.0  # seconds since the answering server heard the leader (X-Consul-LastContact)
        self._answers: dict[str, bool] = {}  # by asker: whether its last request was answered

    def note(self, asker: str, answered: bool) -> None:
        """One of several that ask the registry was answered, or not. It is up while it answers anybody."""
        self._answers[asker] = answered
        self.up = any(self._answers.values())

    def forget(self, asker: str) -> None:
        """This one asks no more."""
        self._answers.pop(asker, None)
        self.up = any(self._answers.values())


class ProcessMetrics:
    """The process as a whole."""

    def __init__(self) -> None:
        self.loop_lag = Histogram()
        self.buffered: int = 0  # octets on their way, all streams together
        self.shed_share: float = 0.0  # of new RPCs, refused because the event loop is late
        self.config_reloads: dict[str, int] = {}  # by result: success, failure
        self.config_reload_success: bool = True


def bump(counts: dict[str, int], key: str) -> None:
    """Add one to a counter that is labelled by reason. For rare paths: an RPC that succeeds never comes here."""
    counts[key] = counts.get(key, 0) + 1
