"""The gate on our own process: what an RPC costs in system calls, which is a count and no stopwatch."""

from __future__ import annotations

import pytest

from benchmarks import gate
from tests.conftest import CODEC_NAMES

pytestmark = pytest.mark.once


@pytest.mark.parametrize("name", CODEC_NAMES)
def test_an_rpc_makes_no_more_system_calls_than_the_committed_limits(name: str) -> None:
    assert gate.check(name, gate.syscalls(name)) == []
