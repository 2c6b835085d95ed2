"""Who rides on a connection: a chain through the riders, against a list."""

from __future__ import annotations

import random
import weakref

from sidecar.http2.constants import CLIENT
from sidecar.http2.interface import Codec
from sidecar.proxy.connection import Connection
from sidecar.proxy.rider import Rider
from tests.proxy.stage import Stage, on_loop


class Guest(Rider):
    """One whose end can be seen."""


@on_loop
async def test_riders_are_listed_as_they_came_whoever_leaves_first(codec: type[Codec]) -> None:
    connection = Connection(Stage(codec).engine, CLIENT)
    rng = random.Random(7)
    riding: list[Rider] = []
    for _ in range(500):
        if riding and rng.random() < 0.5:
            connection.dismount(riding.pop(rng.randrange(len(riding))))
        else:
            riding.append(Rider())
            connection.mount(riding[-1])
        assert connection.list_riders() == riding
        assert connection.riders == len(riding)


@on_loop
async def test_who_has_left_holds_nobody_and_is_held_by_nobody(codec: type[Codec]) -> None:
    connection = Connection(Stage(codec).engine, CLIENT)
    guests = [Guest() for _ in range(3)]
    for guest in guests:
        connection.mount(guest)
    for guest in (guests[1], guests[0], guests[2]):
        connection.dismount(guest)
    ends = [weakref.ref(guest) for guest in guests]
    kept = guests[1]
    del guest, guests
    assert [end() for end in ends] == [None, kept, None]
