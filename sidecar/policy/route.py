"""Which upstream an RPC goes to: the first route that it fits, then a share of that route's targets.

Routes are looked at once, where the app dials. The targets' own routes are not, so that routes cannot go in circles,
and an upstream may be one of its own targets: the rest that a canary leaves it.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Generic, TypeVar

from msgspec import Meta, Struct

from sidecar.http2.interface import Field
from sidecar.policy.balancer import Rng
from sidecar.policy.match import HEADER, Match, MatchSettings, value_of
from sidecar.policy.xxh64 import xxh64
from sidecar.units import Name

T = TypeVar("T")


class TargetSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One upstream that a route leads to, and its share."""

    upstream: Annotated[Name, Meta(description="The name of an upstream of this file.", examples=["orders"])]
    weight: Annotated[
        int, Meta(ge=0, le=1_000_000, description="Its share of the route's RPCs, against the weights of the others.")
    ] = 1


class RouteSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the RPCs go that are meant; the first route that fits decides. What fits none stays with the upstream."""

    match: Annotated[MatchSettings, Meta(description="Which RPCs are meant.")] = MatchSettings()
    to: Annotated[tuple[TargetSettings, ...], Meta(description="The upstreams they are split over.")]
    sticky: Annotated[
        str,
        Meta(
            pattern=rf"({HEADER})|^$",
            description="A header whose value decides the share, so that one value always goes one way; empty: chance.",
        ),
    ] = ""


class Route(Generic[T]):
    """One route. `targets` are what RPCs are given to: the policy does not ask what they are."""

    __slots__ = ("_match", "_sticky", "_targets", "_total")

    def __init__(self, settings: RouteSettings, targets: Sequence[T]) -> None:
        self._match = Match(settings.match)
        self._sticky = settings.sticky.encode("ascii")
        self._targets = [(target, each.weight) for target, each in zip(targets, settings.to, strict=True)]
        self._total = sum(each.weight for each in settings.to)

    def fits(self, path: bytes, fields: Sequence[Field]) -> bool:
        """Whether the RPC is one of its."""
        return self._match.fits(path, fields)

    def choose(self, fields: Sequence[Field], rng: Rng) -> T:
        """One of the targets by weight; by the sticky header's value where the RPC has it.

        The shares lie in the order of the file, so that while the first target's grows, nobody who was with it leaves.
        """
        value = value_of(self._sticky, fields) if self._sticky else None
        share = rng.random() if value is None else xxh64(value, 0) / 2**64
        place = share * self._total
        for target, weight in self._targets:
            place -= weight
            if place < 0:
                return target
        return self._targets[-1][0]  # a share that rounding pushed to the very end


class Router(Generic[T]):
    """The routes of one upstream that the app dials."""

    def __init__(self, routes: Sequence[RouteSettings], upstreams: Mapping[str, T]) -> None:
        self._routes = [Route(route, [upstreams[each.upstream] for each in route.to]) for route in routes]

    def choose(self, path: bytes, fields: Sequence[Field], rng: Rng) -> T | None:
        """Where the RPC goes; None where no route is for it."""
        for route in self._routes:
            if route.fits(path, fields):
                return route.choose(fields, rng)
        return None
