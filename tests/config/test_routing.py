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
