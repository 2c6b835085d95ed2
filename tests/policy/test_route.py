"""Which RPCs a rule is for, and which upstream a route leads them to."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from sidecar.policy.match import HeaderMatch, Match, MatchSettings
from sidecar.policy.route import Router, RouteSettings, TargetSettings

Fields = list[tuple[bytes, bytes]]
GET = b"/shop.Orders/Get"


def fits(path: bytes, fields: Fields, method: str = "", **header: object) -> bool:
    metadata = (HeaderMatch(name="x-a", **header),) if header else ()  # type: ignore[arg-type]
    return Match(MatchSettings(method=method, metadata=metadata)).fits(path, fields)


def to(*targets: str, sticky: str = "", **match: object) -> RouteSettings:
    """A route to `name` or `name=weight` each."""
    made = []
    for target in targets:
        name, _, weight = target.partition("=")
        made.append(TargetSettings(upstream=name, weight=int(weight or 1)))
    return RouteSettings(match=MatchSettings(**match), to=tuple(made), sticky=sticky)  # type: ignore[arg-type]


def router(*routes: RouteSettings) -> Router[str]:
    return Router(routes, {target.upstream: target.upstream for route in routes for target in route.to})


# === matching ===


@pytest.mark.parametrize(
    ("method", "path", "fit"),
    [
        ("", GET, True),
        ("/shop.Orders/Get", GET, True),
        ("/shop.Orders/Get", b"/shop.Orders/GetAll", False),
        ("/shop.Orders/*", GET, True),
        ("/shop.Orders/*", b"/shop.OrdersOld/Get", False),
    ],
)
def test_a_method_is_given_in_full_or_as_all_of_its_service(method: str, path: bytes, fit: bool) -> None:
    assert fits(path, [], method) is fit


@pytest.mark.parametrize(
    ("header", "fields", "fit"),
    [
        ({"absent": False}, [(b"x-a", b"")], True),
        ({"absent": False}, [], False),
        ({"absent": True}, [], True),
        ({"absent": True}, [(b"x-a", b"1")], False),
        ({"exact": "1"}, [(b"x-a", b"1")], True),
        ({"exact": "1"}, [(b"x-a", b"12")], False),
        ({"exact": ""}, [], False),
        ({"prefix": "can"}, [(b"x-a", b"canary")], True),
        ({"prefix": "can"}, [(b"x-a", b"scan")], False),
        ({"exact": "1,2"}, [(b"x-a", b"1"), (b"x-b", b"3"), (b"x-a", b"2")], True),
    ],
)
def test_a_header_is_judged_by_its_joined_values(header: dict[str, object], fields: Fields, fit: bool) -> None:
    assert fits(GET, fields, **header) is fit


def test_everything_that_is_given_must_fit() -> None:
    match = Match(MatchSettings(method="/shop.Orders/*", metadata=(HeaderMatch(name="a"), HeaderMatch(name="b"))))
    assert match.fits(GET, [(b"a", b"1"), (b"b", b"1")])
    assert not match.fits(GET, [(b"a", b"1")])
    assert not match.fits(b"/shop.Prices/Get", [(b"a", b"1"), (b"b", b"1")])


# === choosing ===


def test_the_first_route_that_fits_decides() -> None:
    routes = router(to("one", method="/shop.Orders/Get"), to("two", method="/shop.Orders/*"))
    rng = random.Random(1)
    assert routes.choose(GET, [], rng) == "one"
    assert routes.choose(b"/shop.Orders/Put", [], rng) == "two"
    assert routes.choose(b"/shop.Prices/Get", [], rng) is None


def test_rpcs_are_split_by_weight() -> None:
    routes = router(to("canary=1", "off=0", "stable=9"))
    rng = random.Random(1)
    shares = Counter(routes.choose(GET, [], rng) for _ in range(10_000))
    assert 900 < shares["canary"] < 1100
    assert shares["off"] == 0


def test_one_value_of_the_sticky_header_always_goes_one_way_and_the_values_are_split_by_weight() -> None:
    routes = router(to("canary=1", "stable=3", sticky="user"))
    ways: dict[int, set[str | None]] = {}
    for user in range(2000):
        for seed in range(3):
            chosen = routes.choose(GET, [(b"user", b"%d" % user)], random.Random(seed))
            ways.setdefault(user, set()).add(chosen)
    assert all(len(way) == 1 for way in ways.values())
    assert 440 < sum(way == {"canary"} for way in ways.values()) < 560


def test_nobody_leaves_the_first_target_while_its_share_grows() -> None:
    users = [[(b"user", b"%d" % user)] for user in range(500)]
    before: set[int] = set()
    for weight in (1, 5, 20, 60):
        routes = router(to(f"canary={weight}", f"stable={100 - weight}", sticky="user"))
        with_canary = {
            number for number, fields in enumerate(users) if routes.choose(GET, fields, random.Random(1)) == "canary"
        }
        assert before < with_canary
        before = with_canary


def test_an_rpc_without_the_sticky_header_goes_by_chance() -> None:
    routes = router(to("a", "b", sticky="user"))
    rng = random.Random(1)
    assert {routes.choose(GET, [], rng) for _ in range(50)} == {"a", "b"}
