"""What holds for an RPC by its method: the exact name, then the service's, then the upstream's own."""

from __future__ import annotations

import pytest

from sidecar.http2.interface import HeaderBlock
from sidecar.policy.method import MethodTable, build_table
from sidecar.policy.method_settings import MethodSettings, ThrottleSettings, TimeoutSettings
from sidecar.rpc.metadata import read_request


def within(seconds: float) -> MethodSettings:
    return MethodSettings(timeouts=TimeoutSettings(total=seconds))


TABLE = MethodTable(
    within(9), {"/shop.Cart/Add": within(1), "/shop.Cart/*": within(2), "/shop.Bill/*": MethodSettings()}
)


@pytest.mark.parametrize(
    ("path", "name", "timeout"),
    [
        (b"/shop.Cart/Add", "/shop.Cart/Add", 1),
        (b"/shop.Cart/Remove", "/shop.Cart/*", 2),
        (b"/shop.Bill/Pay", "/shop.Bill/*", 9),
        (b"/shop.Other/Add", "*", 9),
        (b"/shop.Cart", "*", 9),
        (b"/a/shop.Cart/Add", "*", 9),
        (b"no path at all", "*", 9),
        (b"", "*", 9),
    ],
)
def test_the_nearest_name_wins_and_a_missing_section_is_the_upstreams(path: bytes, name: str, timeout: float) -> None:
    policy = TABLE.find(path)
    assert (policy.name, policy.timeout) == (name, timeout)


def test_an_upstream_without_any_setting_has_no_table() -> None:
    assert build_table(MethodSettings(), {}) is None
    assert build_table(within(1), {}) is not None
    assert build_table(MethodSettings(), {"/shop.Cart/*": MethodSettings()}) is not None


def test_retries_are_throttled_unless_the_tokens_are_set_to_none() -> None:
    assert repr(MethodTable(MethodSettings(), {}).throttle) == "<RetryThrottle tokens=20 of 20>"
    few = ThrottleSettings(max_tokens=4)
    assert repr(MethodTable(MethodSettings(), {}, throttle=few).throttle) == "<RetryThrottle tokens=4 of 4>"
    assert MethodTable(MethodSettings(), {}, throttle=ThrottleSettings(max_tokens=0)).throttle is None


def test_a_head_remembers_its_policy_until_another_table_is_asked() -> None:
    head = read_request(HeaderBlock([(b":path", b"/shop.Cart/Add")]))
    policy = TABLE.policy_of(head)
    assert policy is TABLE.find(b"/shop.Cart/Add")
    assert TABLE.policy_of(head) is policy
    reloaded = MethodTable(within(9), {})
    assert reloaded.policy_of(head).name == "*"
    assert TABLE.policy_of(head) is policy


@pytest.mark.parametrize(
    ("own", "asked", "given"),
    [(0, None, None), (0, 3.0, 3.0), (2, None, 2.0), (2, 3.0, 2.0), (2, 1.0, 1.0), (2, 0.0, 0.0)],
)
def test_the_earlier_of_both_timeouts_counts(own: float, asked: float | None, given: float | None) -> None:
    assert MethodTable(within(own), {}).find(b"/a.B/C").bound(asked) == given
