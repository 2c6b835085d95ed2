"""Whose word counts for an upstream's retries: its own sections, then gRPC's service config, then the defaults."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.app.upstream import methods_of
from sidecar.config.model import UpstreamEntry
from sidecar.policy.method_settings import RetrySettings, ThrottleSettings

THROTTLED = json.dumps({"retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1}})


@pytest.mark.parametrize(
    ("says", "tokens", "ratio"),
    [
        ({}, 20, 1.0),
        ({"service_config": "{}"}, 20, 1.0),
        ({"service_config": THROTTLED}, 10, 0.1),
        ({"retry_throttle": ThrottleSettings(max_tokens=50)}, 50, 1.0),
        ({"retry_throttle": ThrottleSettings(max_tokens=50), "service_config": THROTTLED}, 50, 1.0),
    ],
)
def test_the_throttle_is_the_files_then_the_service_configs_then_the_default(
    says: dict[str, Any], tokens: int, ratio: float
) -> None:
    table = methods_of(UpstreamEntry(service="shop", retry=RetrySettings(idempotent=True), **says))
    assert table is not None
    assert table.throttle is not None
    assert (table.throttle.most, table.throttle.ratio) == (tokens, ratio)


@pytest.mark.parametrize("service_config", [None, "{}", THROTTLED])
def test_no_tokens_are_no_throttle_whatever_the_service_config_says(service_config: str | None) -> None:
    table = methods_of(
        UpstreamEntry(
            service="shop",
            retry=RetrySettings(idempotent=True),
            retry_throttle=ThrottleSettings(max_tokens=0),
            service_config=service_config,
        )
    )
    assert table is not None
    assert table.throttle is None
