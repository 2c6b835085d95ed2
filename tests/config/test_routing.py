"""Upstreams that lead to one another: every route ends somewhere, and every upstream is reached."""

from __future__ import annotations

import pytest

from tests.config.test_loader import load, problems

TWO = """\
upstreams:
  - {{service: orders, listen: '127.0.0.1:1', endpoints: ['127.0.0.1:9'], {keys}}}
  - {{service: orders, name: orders-canary, endpoints: ['127.0.0.1:8'], {more}}}
"""


def two(keys: str, more: str = "") -> str:
    return TWO.format(keys=keys, more=more)


def test_several_upstreams_of_one_service_have_names_of_their_own() -> None:
    config = load(two("routes: [{to: [{upstream: orders-canary}]}]"))
    assert [(entry.service, entry.known_as) for entry in config.upstreams] == [
        ("orders", "orders"),
        ("orders", "orders-canary"),
    ]


def test_an_upstream_may_be_a_target_of_its_own_routes() -> None:
    text = two("routes: [{to: [{upstream: orders-canary, weight: 5}, {upstream: orders, weight: 95}]}]")
    assert problems(text) == []


@pytest.mark.parametrize(
    ("keys", "more", "sentence"),
    [
        (
            "routes: [{to: [{upstream: orders-canry}, {upstream: orders-canary}]}]",
            "",
            "upstreams[0].routes[0].to[0].upstream 'orders-canry' is no upstream, did you mean 'orders-canary'?",
        ),
        (
            "routes: [{to: [{upstream: orders-canary, weight: 0}]}]",
            "",
            "upstreams[0].routes[0].to has no target with a weight, so that it leads nowhere",
        ),
        ("", "", "3:5: upstreams[1] 'orders-canary' has no listen, and nothing leads to it;"),
        (
            "routes: [{to: [{upstream: orders-canary}]}]",
            "routes: [{to: [{upstream: orders}]}]",
            "3:80: upstreams[1].routes are never asked, as the app cannot send here: give listen, or leave them out",
        ),
        (
            "routes: [{match: {metadata: [{name: a, exact: x, absent: true}]}, to: [{upstream: orders-canary}]}]",
            "",
            "upstreams[0].routes[0].match.metadata[0] has exact and absent; keep one of them",
        ),
        (
            "routes: [{match: {metadata: [{name: a-bin}]}, to: [{upstream: orders-canary}]}]",
            "",
            "upstreams[0].routes[0].match.metadata[0].name 'a-bin': the value of a binary header cannot be written",
        ),
        (
            "routes: [{to: [{upstream: orders-canary}], sticky: key-bin}]",
            "",
            "upstreams[0].routes[0].sticky 'key-bin': a binary header cannot be hashed on",
        ),
        (
            "routes: [{match: {method: shop.Orders/Get}, to: [{upstream: orders-canary}]}]",
            "",
            "upstreams[0].routes[0].match.method must match",
        ),
    ],
)
def test_a_mistake_is_said_at_its_place(keys: str, more: str, sentence: str) -> None:
    (found,) = problems(two(keys, more))
    assert sentence in found


# === what an upstream's RPCs pass ===


def one(keys: str) -> str:
    return f"upstreams:\n  - {{service: orders, listen: '127.0.0.1:1', endpoints: ['127.0.0.1:9'], {keys}}}\n"


def test_a_mirror_reaches_an_upstream_that_nobody_dials() -> None:
    assert problems(two("mirror: {upstream: orders-canary, percent: 5}")) == []


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ("mirror: {upstream: order}", "upstreams[0].mirror.upstream 'order' is no upstream, did you mean 'orders'?"),
        ("faults: [{percent: 5}]", "upstreams[0].faults[0] does nothing; give delay, abort, reset or bandwidth"),
        ("faults: [{abort: OK}]", "upstreams[0].faults[0].abort must be one of ABORTED,"),
        ("faults: [{abort: INTERNAL, reset: true}]", "upstreams[0].faults[0] has abort and reset; keep one of them"),
        (
            "faults: [{reset: true, match: {metadata: [{name: a-bin}]}}]",
            "upstreams[0].faults[0].match.metadata[0].name 'a-bin': the value of a binary header cannot be written",
        ),
        (
            "limits: {adaptive: {min_limit: 9, max_limit: 8}}",
            "limits.adaptive: min_limit is above max_limit",
        ),
        ("rate: {}", "'per_second' is missing in upstreams[0].rate"),
    ],
)
def test_a_mistake_in_it_is_said(keys: str, sentence: str) -> None:
    (found,) = problems(one(keys))
    assert sentence in found
