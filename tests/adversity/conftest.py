"""A lane per test on a bench per codec; after each test the sidecar lives and has logged no error of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.adversity.bench import Bench, Lane
from tests.conftest import CODEC_NAMES
from tests.processes import Sidecar

OUR_FAULT = ("Traceback (most recent call last)", "Exception in callback", "Task exception was never retrieved")


@pytest.fixture(scope="package", params=CODEC_NAMES)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("bench"), request.param)
    try:
        yield bench
    finally:
        bench.close()


@pytest.fixture
def lane(bench: Bench) -> Iterator[Lane]:
    lane = bench.lane()
    before = len(lane.sidecar.log())
    yield lane
    lane.close()
    check_unharmed(lane.sidecar, before)


def check_unharmed(sidecar: Sidecar, before: int = 0) -> None:
    """The process lives, and what it logged since `before` shows no bug of ours."""
    assert sidecar.poll() is None, f"the sidecar died:\n{sidecar.log_tail()}"
    logged = sidecar.log()[before:]
    assert not any(words in logged for words in OUR_FAULT), logged
