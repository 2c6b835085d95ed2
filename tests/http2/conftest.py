"""The scripts that contract tests are written with: each test with each codec, whole and byte by byte."""

from __future__ import annotations

from typing import Any, Protocol

import pytest

from sidecar.http2.constants import CLIENT, SERVER
from sidecar.http2.interface import Codec, CodecSettings
from tests.http2.script import Script, byte_by_byte, whole


class MakeScript(Protocol):
    """Starts a script; keyword arguments are codec settings."""

    def __call__(self, *, started: bool = True, **settings: Any) -> Script: ...


@pytest.fixture(params=[whole, byte_by_byte], ids=["whole", "bytes"])
def server(request: pytest.FixtureRequest, codec: type[Codec]) -> MakeScript:
    """A codec in the SERVER role against a scripted client."""

    def make(*, started: bool = True, **settings: Any) -> Script:
        return Script(codec, SERVER, CodecSettings(**settings), request.param, started)

    return make


@pytest.fixture(params=[whole, byte_by_byte], ids=["whole", "bytes"])
def client(request: pytest.FixtureRequest, codec: type[Codec]) -> MakeScript:
    """A codec in the CLIENT role against a scripted server."""

    def make(*, started: bool = True, **settings: Any) -> Script:
        return Script(codec, CLIENT, CodecSettings(**settings), request.param, started)

    return make
