"""What every folder may use: the codecs that exist here, each test once with each."""

from __future__ import annotations

import os
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from sidecar.http2.codec import CodecUnavailable, load_codec
from sidecar.http2.interface import Codec


def stale_extensions() -> list[str]:
    """Compiled modules that are older than their source: what would be tested is not what is written there."""
    package = Path(__file__).parent.parent / "sidecar"
    suffix = EXTENSION_SUFFIXES[0]
    stale = []
    for built in package.rglob(f"*{suffix}"):
        module = built.with_name(built.name.removesuffix(suffix))
        sources = [module.with_suffix(ending) for ending in (".py", ".pyx", ".pxd")]
        if any(source.exists() and source.stat().st_mtime > built.stat().st_mtime for source in sources):
            stale.append(str(module.relative_to(package)))
    return sorted(stale)


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to test what is not there."""
    stale = stale_extensions()
    if stale:
        raise pytest.UsageError(f"compiled before it was last changed: {', '.join(stale)}; scripts/venv test builds it")


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
