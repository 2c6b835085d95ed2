"""Large messages through the relays: whole, counted, held back where the reader is slow, copied only where needed."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.http2 import constants as h2
from sidecar.http2.interface import Codec, CodecSettings
from sidecar.proxy.settings import LimitSettings
from tests.proxy.call import OK, called
from tests.proxy.stage import Stage, on_loop

LARGE = bytes(n % 251 for n in range(300_000))
OTHER = LARGE[::-1]


def exchange_of(stage: Stage) -> Any:
    (exchange,) = stage.downstream[0].list_riders()
    return exchange


@on_loop
async def test_large_messages_pass_whole_in_both_directions_and_are_counted(codec: type[Codec]) -> None:
    stage, call, server, request = await called(codec)
    server.respond(request)
    for at in range(0, len(LARGE), 50_000):
        call.send(LARGE[at : at + 50_000])
        request.send(OTHER[at : at + 50_000])
        await stage.run()
    call.end()
    request.end(OK)
    await stage.run()
    assert (request.data, call.data, call.status) == (LARGE, OTHER, 0)
    (record,) = stage.records
    assert (record.bytes_up, record.bytes_down) == (len(LARGE), len(OTHER))
    assert (stage.metrics.bytes_up, stage.metrics.bytes_down) == (len(LARGE), len(OTHER))
    assert stage.leaks() == []


@on_loop
async def test_what_a_slow_reader_does_not_take_is_held_and_comes_in_order(codec: type[Codec]) -> None:
    stage, call, server, request = await called(codec)
    call.crediting = False
    server.respond(request)
    for _ in range(8):
        request.send(LARGE)
    request.end(OK)
    await stage.run()
    assert 100_000 < len(call.data) < len(LARGE)
    assert stage.process.buffered > 0
    while not call.ended:
        call.give_back(70_000)
        await stage.run()
    assert call.data == 8 * LARGE
    assert (stage.process.buffered, stage.leaks()) == (0, [])


@on_loop
async def test_what_is_passed_on_is_kept_as_long_as_it_may_have_to_be_sent_again(codec: type[Codec]) -> None:
    stage, call, _, request = await called(codec, limits=LimitSettings(replay_size=65_536))
    replay = exchange_of(stage).request.replay
    call.send(LARGE[:60_000])
    await stage.run()
    assert (replay.live, b"".join(replay.chunks) == LARGE[:60_000]) == (True, True)
    call.send(LARGE[60_000:])
    await stage.run()
    assert (replay.live, len(replay.chunks)) == (False, 0)
    assert request.data == LARGE


@on_loop
async def test_a_large_request_that_was_refused_is_sent_again_whole(codec: type[Codec]) -> None:
    stage, call, _, request = await called(codec)
    call.finish = None  # with END_STREAM on the last of it
    call.send(LARGE[:60_000])
    await stage.run()
    assert (request.data == LARGE[:60_000], request.ended) == (True, True)
    request.cancel(h2.REFUSED_STREAM)
    await stage.run()
    _, again = stage.server.requests
    assert (again.data == LARGE[:60_000], again.ended) == (True, True)
    stage.server.connection.answer(again)
    await stage.run()
    assert (call.status, stage.leaks()) == (0, [])


@on_loop
async def test_the_last_octets_of_a_large_request_end_it_upstream(codec: type[Codec]) -> None:
    stage, call, _, request = await called(codec)
    request_relay = exchange_of(stage).request
    call.finish = None  # with END_STREAM on the last of it
    call.send(LARGE)
    await stage.run()
    assert (request.data == LARGE, request.ended, request_relay.finished) == (True, True, True)


@on_loop
async def test_an_endpoint_with_a_small_window_gets_what_fits_and_then_the_rest(codec: type[Codec]) -> None:
    stage, call, _, request = await called(codec, server_settings=CodecSettings(stream_window=70_000))
    call.send(LARGE)
    call.end()
    await stage.run()
    assert request.data == LARGE
    assert request.ended
    assert stage.leaks() != []  # the RPC is under way
    request.peer.answer(request)
    await stage.run()
    assert (call.status, stage.leaks()) == (0, [])


@on_loop
async def test_a_large_answer_for_nobody_is_dropped(codec: type[Codec]) -> None:
    stage, call, server, request = await called(codec)
    server.respond(request)
    request.send(LARGE)
    await stage.run()
    call.cancel()
    request.send(LARGE)
    await stage.run()
    assert request.reset is not None
    assert stage.leaks() == []


@pytest.mark.parametrize("sizes", [(4095, 4096), (16_384, 1, 16_384), (5000, 0, 5000)])
@on_loop
async def test_messages_of_all_sizes_keep_their_order(codec: type[Codec], sizes: tuple[int, ...]) -> None:
    stage, call, server, request = await called(codec)
    server.respond(request)
    expected = b""
    for turn in range(20):
        for size in sizes:
            piece = LARGE[turn : turn + size]
            request.send(piece)
            expected += piece
    request.end(OK)
    await stage.run()
    assert call.data == expected
