"""Which endpoints are out of picks for a while: when one goes, for how long, and how it comes back.

`record` hears each attempt's end, `tick` the passing of time; both answer with what changed, and the caller logs it
and sets the timer to `next_at`. An endpoint that is out gets one RPC when its time is over (probation, E10).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sidecar.policy import event as kinds
from sidecar.policy.ejection_settings import EjectionSettings
from sidecar.policy.endpoint import AWAITED, EJECTED, HEALTHY, PROBATION, READY, Endpoint
from sidecar.policy.event import Event
from sidecar.policy.judge import BAD, GOOD, LATE, MUTE, Classifier, Judge
from sidecar.policy.outlier import find_outliers
from sidecar.policy.standing import Standing
from sidecar.rpc.outcome import LOCAL, SUCCESS
from sidecar.rpc.status import RESOURCE_EXHAUSTED, STATUS_NAMES

if TYPE_CHECKING:
    from sidecar.policy.balancer import Rng
    from sidecar.policy.cluster import Cluster

# Why an endpoint is ejected: metric labels, with those of `outlier`.
CONSECUTIVE_FAILURES: Final = "consecutive_failures"
CONSECUTIVE_LOCAL_FAILURES: Final = "consecutive_local_failures"
SUCCESS_RATE: Final = "success_rate"
FAILED_TRIAL: Final = "failed_trial"
# Why an ejection was not carried out: labels too.
CAP: Final = "cap"  # enough are out
LAST: Final = "last"  # no other one that is connected is known to do better
PEERS: Final = "peers"  # the others together do no better
ENFORCE: Final = "enforce"  # the settings say to carry out only a part

# Inputs of the table.
EJECT: Final = 0
EXPIRE: Final = 1  # its time is over
PASS: Final = 2  # the trial went well
FAIL: Final = 3  # it did not
LIFT: Final = 4  # a reload took away what put it out

_ILLEGAL: Final = -1
#    EJECT     EXPIRE     PASS      FAIL      LIFT
_TABLE: Final = (
    (EJECTED, _ILLEGAL, _ILLEGAL, _ILLEGAL, _ILLEGAL),  # HEALTHY
    (_ILLEGAL, PROBATION, _ILLEGAL, _ILLEGAL, HEALTHY),  # EJECTED
    (_ILLEGAL, _ILLEGAL, HEALTHY, EJECTED, HEALTHY),  # PROBATION
)

SPARED: Final = 1.0  # seconds until an ejection that was withheld is thought of again: a tenth of the window
REMIND: Final = 10.0  # seconds until it is told again
RELIEF: Final = 10.0  # seconds of health that undo one doubling: A50 takes one back per interval of 10 s
PATIENCE: Final = 10.0  # seconds until a trial that does not end lets another begin: the window's length
_MOST_DOUBLINGS: Final = 30

# A number of its own, so that the compiled form compares without objects.
_SUCCESS: Final = SUCCESS


class Ejection:
    """Puts endpoints of one cluster out and takes them in."""

    def __init__(
        self,
        cluster: Cluster,
        settings: EjectionSettings,
        rng: Rng,
        now: float,
        classifier: Classifier | None = None,
    ) -> None:
        self.cluster = cluster
        self.rng = rng
        self.out: list[Endpoint] = []  # ejected or in probation
        self.judged_at: float = now  # when A50 last judged, or began to count
        self._configure(settings, classifier)

    def _configure(self, settings: EjectionSettings, classifier: Classifier | None) -> None:
        self.settings = settings
        self.judge = Judge(self.cluster, settings, classifier)
        # The statuses that `record` cannot pass by: bit n stands for grpc-status n.
        self._doubtful: int = self.judge.failures if classifier is None else -1
        rule = settings.outlier_detection
        self._rule = rule if rule is not None and (rule.success_rate or rule.failure_percentage) else None

    def reconfigure(self, settings: EjectionSettings, classifier: Classifier | None, now: float) -> list[Event]:
        """New settings. Who is out stays out as long as it was told, but by A50 only while that is on (OD-02)."""
        former, judged = self.settings, self._rule is not None
        self._configure(settings, classifier)
        if settings.success_rate_window != former.success_rate_window:
            for standing in self._standings():
                standing.resize(settings.success_rate_window, now)
        if judged != (self._rule is not None):
            self.judged_at = now
            self._forget_interval()
        return [] if self._rule is not None else self.lift(now, only_outliers=True)

    def lift(self, now: float, only_outliers: bool = False) -> list[Event]:
        """Take in everybody who is out, and remember no ejections in a row."""
        events = []
        for endpoint in self.cluster.endpoints:
            standing = endpoint.standing
            if standing is None:
                continue
            standing.multiplier = 0
            if endpoint.state != HEALTHY and (standing.outlier or not only_outliers):
                events.append(self._take_in(endpoint, LIFT, "the settings no longer put it out", now))
        return events

    # === at each attempt's end ===

    def record(
        self, endpoint: Endpoint, blame: int, outcome: int, status: int, began_at: float, now: float, path: bytes
    ) -> Event | None:
        """One attempt on `endpoint` ended; `blame` says whose doing it was. What came of it, if anything."""
        standing = endpoint.standing
        if standing is None:
            standing = endpoint.standing = Standing(self.settings.success_rate_window, now)
        state = endpoint.state
        if outcome == _SUCCESS and state == 0 and not self._doubtful >> status & 1:
            standing.succeed(now)
            return None
        # What began before the endpoint went out tells nothing new of it.
        if endpoint.removed or (state != 0 and began_at < endpoint.since_at):
            return None
        verdict = self.judge.judge(endpoint, blame, outcome, status, now - began_at, now, path)
        if state == HEALTHY:
            return self._weigh(endpoint, standing, blame, status, verdict, now)
        if state == PROBATION:
            return self._conclude(endpoint, standing, status, verdict, now)
        return None  # picked because no better one was ready: its time runs on

    def _weigh(
        self, endpoint: Endpoint, standing: Standing, blame: int, status: int, verdict: int, now: float
    ) -> Event | None:
        """A healthy endpoint's attempt. Local and remote failures have counters of their own (E7)."""
        if verdict == MUTE:
            return None
        if verdict == GOOD:
            standing.succeed(now)
            return None
        standing.fail(verdict == LATE, now)
        if blame == LOCAL:
            standing.local += 1
        else:
            if verdict == BAD:
                standing.local = 0  # it answered: its connection is sound
            if status != RESOURCE_EXHAUSTED:  # an instance that sheds load works (E6)
                standing.remote += 1
        return None if now < standing.spared_until else self._detect(endpoint, standing, status, now)

    def _detect(self, endpoint: Endpoint, standing: Standing, status: int, now: float) -> Event | None:
        """Whether that was one failure too many."""
        settings, window = self.settings, standing.window
        if 0 < settings.consecutive_failures <= standing.remote:
            why = f"{standing.remote} failures in a row, the newest {STATUS_NAMES[status]}"
            return self._eject(endpoint, standing, CONSECUTIVE_FAILURES, why, now)
        if 0 < settings.consecutive_local_failures <= standing.local:
            why = f"its connection was lost with RPCs on it {standing.local} times in a row"
            return self._eject(endpoint, standing, CONSECUTIVE_LOCAL_FAILURES, why, now)
        good = window.attempts - window.bad
        if window.attempts < settings.success_rate_volume or good >= settings.success_rate * window.attempts:
            return None
        span = f"{settings.success_rate_window:g}s"
        why = f"{good} of {window.attempts} RPCs in {span} succeeded, less than {settings.success_rate:.0%}"
        withheld = "" if self.judge.fares_worse(endpoint, now) else PEERS
        return self._eject(endpoint, standing, SUCCESS_RATE, why, now, withheld)

    # === out ===

    def _eject(
        self,
        endpoint: Endpoint,
        standing: Standing,
        reason: str,
        why: str,
        now: float,
        withheld: str = "",
    ) -> Event | None:
        """Put it out by a detector of our own, unless something speaks against that."""
        withheld = withheld or self._hindrance(endpoint, self.settings.max_ejected)
        if not withheld and self._spares(100):
            withheld = ENFORCE
        if withheld:
            return self._withhold(endpoint, standing, reason, why, withheld, now)
        standing.level = max(0, standing.level - int((now - endpoint.since_at) / RELIEF))
        return self._put_out(endpoint, standing, EJECT, reason, why, False, now)

    def _hindrance(self, endpoint: Endpoint, cap: int) -> str:
        """What keeps `endpoint` in. A50's rule: the share that is out now, so that one can always go (OD-05, E9)."""
        endpoints = self.cluster.endpoints
        if 100 * self._count_out() >= cap * len(endpoints):
            return CAP
        for peer in endpoints:
            if peer is endpoint or peer.connectivity != READY or peer.checkup == AWAITED:
                continue
            standing = peer.standing
            sound = standing is None or (standing.remote == 0 and standing.local == 0)
            if sound and peer.healthy and not peer.suspect:
                return ""
        return LAST

    def _count_out(self) -> int:
        return sum([endpoint.state != HEALTHY for endpoint in self.cluster.endpoints])

    def _spares(self, enforcement: int) -> bool:
        """Whether the dice say that an ejection is told, but not carried out."""
        chance = self.settings.enforce * enforcement / 100
        return chance < 100 and self.rng.random() * 100 >= chance

    def _withhold(
        self, endpoint: Endpoint, standing: Standing, reason: str, why: str, withheld: str, now: float
    ) -> Event | None:
        """It stays, and is not judged again for a moment."""
        standing.spared_until = now + SPARED
        if withheld == ENFORCE:
            standing.spared_until = now + self.settings.first_time
            standing.clear()
        if now < standing.told_until:
            return None
        standing.told_until = now + REMIND
        because = {
            CAP: f"{self._count_out()} of {len(self.cluster.endpoints)} instances are out already",
            LAST: "no other connected instance is known to do better",
            PEERS: "the other instances fare no better",
            ENFORCE: f"ejection.enforce is {self.settings.enforce} %",
        }[withheld]
        text = f"{endpoint.address} would be ejected ({why}), but {because}"
        return Event(
            at=now, endpoint=endpoint.address, kind=kinds.WITHHELD, reason=reason, text=text, withheld=withheld
        )

    def _put_out(
        self, endpoint: Endpoint, standing: Standing, event: int, reason: str, why: str, outlier: bool, now: float
    ) -> Event:
        seconds = self._time_out(standing, outlier)
        standing.outlier = outlier
        standing.until = now + seconds
        standing.spared_until = standing.told_until = 0.0
        standing.clear()
        if endpoint not in self.out:
            self.out.append(endpoint)
        self._move(endpoint, event, why, now)
        text = f"{endpoint.address} is ejected for {seconds:.1f}s: {why}"
        return Event(at=now, endpoint=endpoint.address, kind=kinds.EJECTED, reason=reason, text=text)

    def _time_out(self, standing: Standing, outlier: bool) -> float:
        """For how many seconds it goes: longer each time in a row."""
        rule, settings = self._rule, self.settings
        if outlier and rule is not None:
            standing.multiplier += 1
            longest = max(rule.base_ejection_time, rule.max_ejection_time)
            return min(rule.base_ejection_time * standing.multiplier, longest)
        standing.level = min(standing.level + 1, _MOST_DOUBLINGS)
        seconds = min(settings.first_time * 2.0 ** (standing.level - 1), max(settings.first_time, settings.max_time))
        return seconds * (1.0 + settings.jitter * self.rng.random())

    # === and back in ===

    def begin_trial(self, endpoint: Endpoint, now: float) -> None:
        """An RPC goes to an endpoint in probation."""
        if endpoint.standing is not None:
            endpoint.standing.until = now + PATIENCE
        self.cluster.begin_trial(endpoint)

    def _conclude(self, endpoint: Endpoint, standing: Standing, status: int, verdict: int, now: float) -> Event | None:
        """An RPC that began in probation ended."""
        if verdict == MUTE:
            if endpoint.on_trial:
                self.cluster.end_trial(endpoint)
            return None
        if verdict == GOOD:
            return self._take_in(endpoint, PASS, "its trial RPC succeeded", now)
        why = f"its trial RPC failed with {STATUS_NAMES[status]}"
        return self._put_out(endpoint, standing, FAIL, FAILED_TRIAL, why, standing.outlier, now)

    def _take_in(self, endpoint: Endpoint, event: int, why: str, now: float) -> Event:
        if endpoint in self.out:
            self.out.remove(endpoint)
        self._move(endpoint, event, why, now)
        text = f"{endpoint.address} is back: {why}"
        return Event(at=now, endpoint=endpoint.address, kind=kinds.RETURNED, reason="", text=text)

    def _move(self, endpoint: Endpoint, event: int, why: str, now: float) -> None:
        """The one door of the table."""
        state = _TABLE[endpoint.state][event]
        if state == _ILLEGAL:
            raise RuntimeError(f"{endpoint!r} cannot take input {event} of ejection")
        self.cluster.set_state(endpoint, state, why, now)

    # === as time passes ===

    def next_at(self) -> float | None:
        """When `tick` has something to do, or None."""
        moments = [self.judged_at + self._rule.interval] if self._rule is not None else []
        for endpoint in self.out:
            standing = endpoint.standing
            if standing is not None and (endpoint.on_trial or (endpoint.state == EJECTED and not standing.outlier)):
                moments.append(standing.until)
        return min(moments, default=None)

    def tick(self, now: float, serves: Callable[[Endpoint], bool]) -> list[Event]:
        """Judge by A50 if its interval is over; let those be tried whose time is over.

        A trial that lasts passes if the endpoint `serves`, that is, has begun to answer it; else another may begin.
        """
        self.out = [endpoint for endpoint in self.out if not endpoint.removed]
        events: list[Event] = []
        if self._rule is not None and now >= self.judged_at + self._rule.interval:
            events += self._judge_interval(now)
        for endpoint in list(self.out):
            standing = endpoint.standing
            if standing is None or now < standing.until:
                continue
            if endpoint.on_trial and serves(endpoint):
                events.append(self._take_in(endpoint, PASS, "its trial RPC is being answered", now))
            elif endpoint.on_trial:
                self.cluster.end_trial(endpoint)
            elif endpoint.state == EJECTED and not standing.outlier:
                events.append(self._try_out(endpoint, now))
        return events

    def _try_out(self, endpoint: Endpoint, now: float) -> Event:
        since = f"out for {now - endpoint.since_at:.1f}s"
        self._move(endpoint, EXPIRE, f"{since}, one RPC is to try it; what had put it out: {endpoint.reason}", now)
        text = f"{endpoint.address} was {since}; one RPC goes there to try it"
        return Event(at=now, endpoint=endpoint.address, kind=kinds.PROBATION, reason="", text=text)

    def _judge_interval(self, now: float) -> list[Event]:
        """A50's timer: the algorithms, then one step of forgiveness, then the end of those whose time is over."""
        assert self._rule is not None
        self.judged_at = now
        events: list[Event] = []
        for endpoint, reason, why, enforcement in list(find_outliers(self.cluster.endpoints, self._rule)):
            standing = endpoint.standing
            if endpoint.state != HEALTHY or standing is None:
                continue
            withheld = self._hindrance(endpoint, self._rule.max_ejection_percent)
            if not withheld and self._spares(enforcement):
                withheld = ENFORCE
            event: Event | None
            if withheld:
                event = self._withhold(endpoint, standing, reason, why, withheld, now)
            else:
                event = self._put_out(endpoint, standing, EJECT, reason, why, True, now)
            if event is not None:
                events.append(event)
        self._forget_interval()
        for endpoint in self.cluster.endpoints:
            standing = endpoint.standing
            if standing is None:
                continue
            if endpoint.state == HEALTHY and standing.multiplier > 0:
                standing.multiplier -= 1
            elif endpoint.state == EJECTED and standing.outlier and now > standing.until:
                events.append(self._try_out(endpoint, now))
        return events

    def _standings(self) -> list[Standing]:
        return [endpoint.standing for endpoint in self.cluster.endpoints if endpoint.standing is not None]

    def _forget_interval(self) -> None:
        for standing in self._standings():
            standing.successes = standing.failures = 0

    def __repr__(self) -> str:
        return f"<Ejection of {self.cluster.name} out={len(self.out)}>"
