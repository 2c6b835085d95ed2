"""What a benchmark is: a case measures one subject once and returns its figures."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

from benchmarks.process import Placement
from benchmarks.stage import Stage
from benchmarks.subject import Subject

Figures = dict[str, float]
Turns = Generator[None, None, Figures]  # stops before every measurement, so that another subject's may come in between
MINIMUM = 1000  # RPCs of any run, however slow the subject


@dataclass(frozen=True)
class Metric:
    """One figure of a case. Smaller is better unless `larger_is_better`."""

    name: str
    unit: str
    sentence: str
    ratio: bool = True
    larger_is_better: bool = False
    difference: bool = False  # to the run without a proxy: may be near nothing, so its ratios are taken of medians


@dataclass(frozen=True)
class Case:
    """One row of the results.

    `paired`: the baseline and one peer at a time, A B, B A, ..., for a claim about CPU; otherwise rounds of all.
    `direct`: measured without a proxy, too, so that what the hop adds can be told.
    `run` measures at once, or in turns: then the subjects of a round stand all the while and are asked in turn, since
    the machine has moods that last for seconds.
    """

    mode: str
    name: str
    metrics: tuple[Metric, ...]
    run: Callable[[Stage, Subject], Figures | Turns]
    placement: Callable[[], Placement] = Placement.apart
    paired: bool = True
    direct: bool = False
    added: tuple[str, ...] = ()  # metrics for which the difference to direct is reported as `added_...`
    peers: tuple[str, ...] | None = None  # instead of those asked for
    baseline: str | None = None
    without: tuple[str, ...] = ()  # subjects that cannot do it, or for whom it says nothing
    pairs: int | None = None  # at most so many


@dataclass(frozen=True)
class Scale:
    """How much of everything: the full protocol, or a look in under two minutes."""

    quick: bool = False

    def of(self, full: int, quick: int) -> int:
        """One of the two counts."""
        return quick if self.quick else full

    def within(self, wanted: int, pace: float, seconds: float = 12.0) -> int:
        """How many RPCs of `pace` seconds each a run makes: as wanted, or what fits into the time.

        It is settled from the warm-up, before anything is measured.
        """
        return max(MINIMUM, min(wanted, int((seconds / 3 if self.quick else seconds) / pace)))
