"""A sidecar of its own for a test, with one upstream that the test plays."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.adversity.bench import Bench, Lane
from tests.conftest import CODEC_NAMES


@pytest.fixture
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """On the codec that the test is parametrised with, else the best one there is."""
    bench = Bench(tmp_path_factory.mktemp("bench"), getattr(request, "param", CODEC_NAMES[-1]))
    try:
        yield bench
    finally:
        bench.close()


@pytest.fixture
def lane(bench: Bench) -> Iterator[Lane]:
    (lane,) = bench.open()
    yield lane
    lane.close()
