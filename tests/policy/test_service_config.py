"""gRPC's service config as settings: what is taken, what is refused (RT-01), what is ignored."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.policy.method_settings import (
    HedgeSettings,
    MethodSettings,
    RetrySettings,
    ThrottleSettings,
    TimeoutSettings,
)
from sidecar.policy.service_config import ServiceConfigError, parse_service_config

RETRY = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


def one(**entry: Any) -> str:
    return json.dumps({"methodConfig": [{"name": [{"service": "shop.Cart"}], **entry}]})


def problems(text: str) -> list[str]:
    with pytest.raises(ServiceConfigError) as caught:
        parse_service_config(text)
    return caught.value.problems


def test_every_part_that_is_known_becomes_a_setting() -> None:
    found = parse_service_config(
        json.dumps(
            {
                "loadBalancingConfig": [{"round_robin": {}}],
                "methodConfig": [
                    {
                        "name": [{"service": "shop.Cart", "method": "Add"}, {"service": "shop.Bill"}],
                        "timeout": "1.5s",
                        "waitForReady": True,
                        "retryPolicy": {**RETRY, "retryableStatusCodes": ["unavailable", 10]},
                    },
                    {
                        "name": [{"service": "shop.Search", "method": ""}],
                        "hedgingPolicy": {"maxAttempts": 3, "hedgingDelay": "0.5s", "nonFatalStatusCodes": [14]},
                    },
                    {"name": [{}], "timeout": "10s"},
                ],
                "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
            }
        )
    )
    retry = RetrySettings(
        codes=("UNAVAILABLE", "ABORTED"), max_attempts=4, backoff_base=0.1, backoff_max=1.0, backoff_factor=2.0
    )
    settings = MethodSettings(retry=retry, timeouts=TimeoutSettings(total=1.5))
    hedge = HedgeSettings(max_attempts=3, delay=0.5, codes=("UNAVAILABLE",))
    assert found.methods == {
        "/shop.Cart/Add": settings,
        "/shop.Bill/*": settings,
        "/shop.Search/*": MethodSettings(hedge=hedge),
    }
    assert found.own == MethodSettings(timeouts=TimeoutSettings(total=10.0))
    assert found.throttle == ThrottleSettings(max_tokens=10, token_ratio=0.1)
    assert found.ignored == ("loadBalancingConfig", "methodConfig[0].waitForReady")


def test_an_empty_config_sets_nothing() -> None:
    found = parse_service_config("{}")
    assert (found.own, found.methods, found.throttle, found.ignored) == (MethodSettings(), {}, None, ())


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ({"maxAttempts": 1}, "maxAttempts must be a whole number above 1, not 1"),
        ({"maxAttempts": "3"}, "maxAttempts must be a whole number above 1, not '3'"),
        ({"initialBackoff": "0s"}, "initialBackoff must be a duration such as 0.1s, not '0s'"),
        ({"maxBackoff": "-1s"}, "maxBackoff must be a duration such as 0.1s, not '-1s'"),
        ({"maxBackoff": 1}, "maxBackoff must be a duration such as 0.1s, not 1"),
        ({"backoffMultiplier": 0}, "backoffMultiplier must be a number above 0, not 0"),
        ({"retryableStatusCodes": []}, "retryableStatusCodes must not be empty"),
        ({"retryableStatusCodes": ["OK"]}, "retryableStatusCodes[0] is no status that an RPC can fail with: 'OK'"),
        ({"retryableStatusCodes": [17]}, "retryableStatusCodes[0] is no status that an RPC can fail with: 17"),
    ],
)
def test_a_policy_that_breaks_the_rules_is_refused_at_its_place(policy: dict[str, Any], sentence: str) -> None:
    (found, *_) = problems(one(retryPolicy={**RETRY, **policy}))
    assert found == f"methodConfig[0].retryPolicy.{sentence}"


def test_every_problem_is_told_at_once() -> None:
    found = problems(
        json.dumps(
            {
                "methodConfig": [
                    {"name": [{"method": "Add"}], "timeout": "1"},
                    {"name": [{"service": "a"}, {"service": "a"}], "retryPolicy": {}},
                ],
                "retryThrottling": {"maxTokens": 1001, "tokenRatio": 0},
            }
        )
    )
    assert found[:2] == [
        "methodConfig[0].timeout must be a duration such as 0.1s, not '1'",
        "methodConfig[0].name[0] has a method and no service",
    ]
    assert "methodConfig[1].retryPolicy has no maxAttempts" in found
    assert "methodConfig[1].name[1] was given already" in found
    assert "retryThrottling.maxTokens must be a whole number of at most 1000" in found
    assert "retryThrottling.tokenRatio must be a number above 0, not 0" in found


def test_retries_and_hedges_exclude_one_another() -> None:
    assert "has retryPolicy and hedgingPolicy" in problems(one(retryPolicy=RETRY, hedgingPolicy={"maxAttempts": 2}))[0]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"methodConfig": {}}', '{"methodConfig": [1]}', '{"methodConfig": [{"name": 1}]}']
)
def test_what_has_not_the_form_is_refused(text: str) -> None:
    assert len(problems(text)) == 1
