"""A user's classifier: how it is found, that it is asked, and that its mistakes cost no RPC."""

from __future__ import annotations

import logging

import pytest

from sidecar.app.own_classifier import load_classifier
from sidecar.http2.interface import Codec
from sidecar.policy.ejection_settings import EjectionSettings
from sidecar.policy.endpoint import EJECTED, HEALTHY
from tests.proxy.stage import on_loop, started

HERE = "tests.app.classifiers"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no.such.module:judge", "cannot be loaded: ModuleNotFoundError"),
        (f"{HERE}:missing", "cannot be loaded: AttributeError"),
        (f"{HERE}:NOT_A_FUNCTION", "is not a function"),
    ],
)
def test_a_classifier_that_cannot_be_had_is_a_sentence(name: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        load_classifier(name)


@on_loop
async def test_it_judges_every_answer_and_sees_status_time_and_path(codec: type[Codec]) -> None:
    stage = await started(codec, servers=2)
    stage.dispatch.ejector.reconfigure(EjectionSettings(), load_classifier(f"{HERE}:by_status"))
    app = stage.app()
    await stage.run()
    for _ in range(10):
        app.call(end=True)
    await stage.run()
    for request in stage.server.requests:
        stage.server.connection.answer(request, status=5)
    await stage.run()
    assert stage.endpoint(stage.server.address).state == EJECTED
    assert stage.endpoint(stage.servers[1].address).state == HEALTHY
    await stage.advance(2)
    for request in stage.servers[1].requests:
        stage.servers[1].connection.answer(request)
    await stage.run()
    standing = stage.endpoint(stage.servers[1].address).standing
    assert standing is not None
    assert standing.window.bad == 5  # OK, but slow


@on_loop
async def test_what_it_raises_is_logged_and_the_rpc_is_not_affected(
    codec: type[Codec], caplog: pytest.LogCaptureFixture
) -> None:
    stage = await started(codec)
    stage.dispatch.ejector.reconfigure(EjectionSettings(), load_classifier(f"{HERE}:fails"))
    app = stage.app()
    await stage.run()
    call = app.call(end=True)
    await stage.run()
    with caplog.at_level(logging.ERROR):
        stage.server.connection.answer(stage.server.request, b"answer")
        await stage.run()
    assert (call.data, call.status) == (b"answer", 0)
    assert "the classifier tests.app.classifiers:fails failed" in caplog.text
    assert stage.leaks() == []
