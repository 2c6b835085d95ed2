"""The arithmetic of a claim: medians, percentiles, and the confidence interval of a median by bootstrap.

Pure functions of numbers. A claim needs the whole interval on one side of 1; a lone ratio says nothing on a noisy
machine, so nothing here returns one without its spread.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

RESAMPLES = 2000  # Efron and Tibshirani: 1000 to 2000 for an interval
CLAIM = 9  # rounds; the interval of a median of fewer says more than it knows
UNBOUNDED = 1000.0  # stands for any ratio above it
SIGNIFICANT_BITS = 7  # a bucket is at most 1/128 of its value wide


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two in the middle."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("the median of nothing")
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the sorted values that at least `share` (0 to 1) of them do not exceed."""
    if not ordered:
        raise ValueError("a percentile of nothing")
    rank = max(1, math.ceil(share * len(ordered) - 1e-9))
    return ordered[rank - 1]


@dataclass(frozen=True)
class Spread:
    """A median with its 95 % bootstrap interval, its extremes and the number of values behind it."""

    median: float
    low: float
    high: float
    minimum: float
    maximum: float
    count: int

    @property
    def verdict(self) -> str:
        """For a ratio: is the whole interval on one side of 1?"""
        if self.count < CLAIM:
            return "too few"
        if self.high < 1:
            return "less"
        return "more" if self.low > 1 else "undecided"


def spread(values: Sequence[float], seed: int = 1) -> Spread:
    """The median of `values` and how sure one may be of it. The same values always give the same interval."""
    rng = random.Random(seed)
    count = len(values)
    medians = sorted(median(rng.choices(values, k=count)) for _ in range(RESAMPLES))
    return Spread(
        median=median(values),
        low=percentile(medians, 0.025),
        high=percentile(medians, 0.975),
        minimum=min(values),
        maximum=max(values),
        count=count,
    )


def quotient(pairs: Sequence[tuple[float, float]], seed: int = 1) -> Spread | None:
    """The ratio of two medians, resampled together. For differences, whose single values may be near nothing or below.

    None if the median below the line is not positive: there is nothing to compare with.
    """

    def divide(sample: Sequence[tuple[float, float]]) -> float:
        above, below = median([ours for ours, _ in sample]), median([theirs for _, theirs in sample])
        return min(UNBOUNDED, above / below) if below > 0 else UNBOUNDED

    if not pairs or median([theirs for _, theirs in pairs]) <= 0:
        return None
    rng = random.Random(seed)
    ratios = sorted(divide(rng.choices(pairs, k=len(pairs))) for _ in range(RESAMPLES))
    low, high = percentile(ratios, 0.025), percentile(ratios, 0.975)
    return Spread(divide(pairs), low, high, minimum=ratios[0], maximum=ratios[-1], count=len(pairs))


class Histogram:
    """Log-linear counts of non-negative integers, as HdrHistogram keeps them: every sample, in bounded memory."""

    def __init__(self, counts: dict[int, int] | None = None) -> None:
        self.counts: dict[int, int] = dict(counts or {})  # lowest value of a bucket -> samples in it

    @staticmethod
    def bucket(value: int) -> int:
        """The lowest value that shares a bucket with `value`."""
        shift = max(0, value.bit_length() - SIGNIFICANT_BITS - 1)
        return value >> shift << shift

    def record(self, values: Iterable[int]) -> None:
        """Count them."""
        for value in values:
            bucket = self.bucket(value)
            self.counts[bucket] = self.counts.get(bucket, 0) + 1

    def merge(self, other: Histogram) -> None:
        """Count everything that the other one counted."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def percentile(self, share: float) -> int:
        """As `percentile`, to the width of a bucket."""
        rank = max(1, math.ceil(share * self.total - 1e-9))
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= rank:
                return bucket
        raise ValueError("a percentile of nothing")
