"""What every folder may use: the codecs that exist here, each test once with each."""

from __future__ import annotations

import os

import pytest

from sidecar.http2.codec import CodecUnavailable, load_codec
from sidecar.http2.interface import Codec


def _codec_names() -> list[str]:
    """`native` where it was built; where it is required its absence must fail the tests, not shorten them."""
    if os.environ.get("SIDECAR_REQUIRE_EXTENSIONS") == "1":
        return ["reference", "native"]
    try:
        load_codec("native")
    except CodecUnavailable:
        return ["reference"]
    return ["reference", "native"]


CODEC_NAMES = _codec_names()


@pytest.fixture(params=CODEC_NAMES)
def codec(request: pytest.FixtureRequest) -> type[Codec]:
    """The codec class under test."""
    return load_codec(request.param)
