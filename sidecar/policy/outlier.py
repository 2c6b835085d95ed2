"""The two algorithms of gRFC A50: who is an outlier among the endpoints, by what was counted in one interval.

They find; `ejection` carries out, with the cap and the dice. Percentages are compared as A50's text has it: a failure
percentage of exactly the threshold is none too many (Envoy and A50's comment on the field say otherwise).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import sqrt
from typing import Final, NamedTuple

from sidecar.policy.ejection_settings import FailurePercentageSettings, OutlierSettings, SuccessRateSettings
from sidecar.policy.endpoint import Endpoint
from sidecar.policy.standing import Standing

OUTLIER_SUCCESS_RATE: Final = "outlier_success_rate"
OUTLIER_FAILURE_PERCENTAGE: Final = "outlier_failure_percentage"


class Finding(NamedTuple):
    """An endpoint to eject, with the label and the words of why; `enforcement` is the chance in per cent."""

    endpoint: Endpoint
    reason: str
    why: str
    enforcement: int


def find_outliers(endpoints: Sequence[Endpoint], settings: OutlierSettings) -> Iterator[Finding]:
    """Success rate first, then failure percentage, each in the order of the endpoints."""
    if settings.success_rate is not None:
        yield from _by_success_rate(endpoints, settings.success_rate)
    if settings.failure_percentage is not None:
        yield from _by_failure_percentage(endpoints, settings.failure_percentage)


def threshold_of(rates: Sequence[float], stdev_factor: int) -> float:
    """The success rate below which one is an outlier: the mean less so many thousandths of the standard deviation."""
    mean = sum(rates) / len(rates)
    variance = sum((rate - mean) ** 2 for rate in rates) / len(rates)
    return mean - sqrt(variance) * stdev_factor / 1000


def _by_success_rate(endpoints: Sequence[Endpoint], settings: SuccessRateSettings) -> Iterator[Finding]:
    judged = _with_volume(endpoints, settings.request_volume)
    if len(judged) < settings.minimum_hosts:
        return
    rates = [standing.successes / (standing.successes + standing.failures) for _, standing in judged]
    threshold = threshold_of(rates, settings.stdev_factor)
    for (endpoint, _), rate in zip(judged, rates, strict=True):
        if rate < threshold:
            why = f"{rate:.1%} of its RPCs succeeded, less than {threshold:.1%}, by {len(judged)} instances"
            yield Finding(endpoint, OUTLIER_SUCCESS_RATE, why, settings.enforcement)


def _by_failure_percentage(endpoints: Sequence[Endpoint], settings: FailurePercentageSettings) -> Iterator[Finding]:
    judged = _with_volume(endpoints, settings.request_volume)
    if len(judged) < settings.minimum_hosts:
        return
    for endpoint, standing in judged:
        total = standing.successes + standing.failures
        if 100 * standing.failures > settings.threshold * total:
            why = f"{standing.failures} of its {total} RPCs failed, more than {settings.threshold} %"
            yield Finding(endpoint, OUTLIER_FAILURE_PERCENTAGE, why, settings.enforcement)


def _with_volume(endpoints: Sequence[Endpoint], volume: int) -> list[tuple[Endpoint, Standing]]:
    known = [(endpoint, endpoint.standing) for endpoint in endpoints if endpoint.standing is not None]
    return [(endpoint, standing) for endpoint, standing in known if standing.successes + standing.failures >= volume]
