"""The order of runs, which of them count, and the ratios: A B, B A, A B, ... with fresh processes each time.

A ratio is only ever taken within one round, between neighbours in time. A round in which foreign load or steal moved
is repeated, a bounded number of times; it is dropped by that rule and never for its result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from benchmarks.case import Case, Figures, Metric, Turns
from benchmarks.process import Failed
from benchmarks.stage import Stage
from benchmarks.stats import Spread, quotient, spread
from benchmarks.subject import DIRECT, SUBJECTS, Subject

Say = Callable[[str], None]
STUMBLES = 2  # failed runs after which a subject is left out of a case


@dataclass
class Run:
    """One subject, once."""

    subject: str
    figures: Figures
    objection: str | None
    foreign: float = 0.0
    steal: float = 0.0


@dataclass
class Round:
    """Runs next to each other in time."""

    runs: dict[str, Run]

    @property
    def counts(self) -> bool:
        return all(run.objection is None for run in self.runs.values())


@dataclass
class Result:
    """Everything that a case came to."""

    case: Case
    baseline: str
    subjects: list[str]
    rounds: list[Round] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    stumbles: dict[str, int] = field(default_factory=dict)

    def values(self, subject: str, metric: str) -> list[float]:
        """The figures of one subject in the rounds that count."""
        runs = (entry.runs.get(subject) for entry in self.rounds if entry.counts)
        return [run.figures[metric] for run in runs if run and metric in run.figures]

    def pairs(self, peer: str, metric: str) -> list[tuple[float, float]]:
        """Baseline and peer, round by round."""
        found = []
        for entry in self.rounds:
            ours, theirs = entry.runs.get(self.baseline), entry.runs.get(peer)
            if entry.counts and ours and theirs and metric in theirs.figures and metric in ours.figures:
                found.append((ours.figures[metric], theirs.figures[metric]))
        return found

    def spread(self, subject: str, metric: str) -> Spread | None:
        values = self.values(subject, metric)
        return spread(values) if values else None

    def ratio(self, peer: str, metric: Metric) -> Spread | None:
        """Baseline over peer: the median of the rounds' ratios, or for differences the ratio of medians."""
        pairs = self.pairs(peer, metric.name)
        if metric.difference:
            return quotient(pairs)
        ratios = [ours / theirs for ours, theirs in pairs if theirs > 0]
        return spread(ratios) if ratios else None

    @property
    def dropped(self) -> int:
        return sum(not entry.counts for entry in self.rounds)


@dataclass(frozen=True)
class Rules:
    """How often, and whether a restless machine is tolerated."""

    pairs: int
    keep_noisy: bool = False
    in_pairs: bool = True  # else rounds of all, once each: a look, not a claim

    @property
    def attempts(self) -> int:
        """Every round may be repeated once, when a claim is to be made."""
        return 2 * self.pairs if self.in_pairs else self.pairs


def groups(case: Case, baseline: str, peers: Sequence[str]) -> list[list[str]]:
    """The subjects of each kind of round. A paired case compares the baseline with one peer at a time."""
    first = [DIRECT.name] if case.direct else []
    others = [name for name in peers if name != baseline and name not in case.without]
    own = [] if baseline in case.without else [baseline]
    if case.paired and own and others:
        return [[*first, *own, peer] for peer in others]
    return [[*first, *own, *others]]


def measure(case: Case, baseline: str, peers: Sequence[str], rules: Rules, say: Say) -> Result:
    """Run a case to its end. Subjects that fail are named, left out, and the others go on."""
    if not rules.in_pairs:
        case = replace(case, paired=False)
    rules = replace(rules, pairs=min(rules.pairs, case.pairs or rules.pairs))
    plan = groups(case, baseline, peers)
    result = Result(case, baseline, list(dict.fromkeys(name for group in plan for name in group)))
    for group in plan:
        good = attempts = 0
        while good < rules.pairs and attempts < rules.attempts:
            members = [name for name in group if name not in result.failures]
            if not members or (case.paired and len(members) < len(group) and len(group) > 1):
                break
            entry = _round(case, members if attempts % 2 == 0 else members[::-1], result, rules, say)
            attempts += 1
            result.rounds.append(entry)
            good += entry.counts and len(entry.runs) == len(members)
    return result


def _round(case: Case, members: list[str], result: Result, rules: Rules, say: Say) -> Round:
    """Subjects that are measured in turns stand side by side; the others one after the other."""
    runs: dict[str, Run] = {}
    standing = [Standing(case, SUBJECTS[name]) for name in members]

    def go_on(one: Standing) -> None:
        name = one.subject.name
        try:
            one.go_on()
        except Failed as error:
            one.end()
            result.stumbles[name] = result.stumbles.get(name, 0) + 1
            if result.stumbles[name] == STUMBLES:
                result.failures[name] = str(error)
            say(f"  {case.mode:10} {case.name:20} {name:18} failed: {error}")
        else:
            if one.figures is not None:
                runs[name] = one.run(one.figures, rules)
                one.end()
                say(_line(case, runs[name]))

    try:
        for one in standing:
            go_on(one)
        while left := [one for one in standing if not one.ended]:
            for one in left:
                go_on(one)
            standing.reverse()
    finally:
        for one in standing:
            one.end()
    if direct := runs.get(DIRECT.name):
        for run in runs.values():
            for metric in case.added:
                run.figures[f"added_{metric}"] = run.figures[metric] - direct.figures[metric]
    return Round({name: runs[name] for name in members if name in runs})


class Standing:
    """One subject in a round, from its start to its figures."""

    def __init__(self, case: Case, subject: Subject) -> None:
        self.case = case
        self.subject = subject
        self.figures: Figures | None = None  # once it has them
        self.ended = False
        self._stage: Stage | None = None
        self._turns: Turns | None = None

    def go_on(self) -> None:
        """Start and come to the first stop; after that, measure once. Raises Failed."""
        if self._turns is None:
            self._stage = Stage(self.case.placement()).__enter__()
            begun = self.case.run(self._stage, self.subject)
            if isinstance(begun, dict):
                self.figures = begun
                return
            self._turns = begun
        try:
            next(self._turns)
        except StopIteration as over:
            self.figures = over.value

    def run(self, figures: Figures, rules: Rules) -> Run:
        """What it came to, and whether that counts."""
        assert self._stage is not None
        objection = None if rules.keep_noisy else self._stage.objection()
        foreign = max((reading.quiet.foreign for reading in self._stage.readings), default=0.0)
        steal = max((reading.quiet.steal for reading in self._stage.readings), default=0.0)
        return Run(self.subject.name, figures, objection, foreign, steal)

    def end(self) -> None:
        """Its processes end."""
        self.ended = True
        if self._stage is not None:
            self._stage.__exit__(None, None, None)
            self._stage = None
            time.sleep(0.05)  # sockets of the ended processes close


def _line(case: Case, run: Run) -> str:
    figures = "  ".join(
        f"{metric.name} {run.figures[metric.name]:.5g} {metric.unit}"
        for metric in case.metrics
        if metric.name in run.figures
    )
    note = f"  [does not count: {run.objection}]" if run.objection else ""
    return f"  {case.mode:10} {case.name:20} {run.subject:18} {figures}{note}"
