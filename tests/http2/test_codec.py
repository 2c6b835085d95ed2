"""Which codec a name stands for."""

from __future__ import annotations

import pytest

from sidecar.http2.codec import CODEC_NAMES, CodecUnavailable, codec_name, load_codec
from sidecar.http2.reference import ReferenceCodec


def test_every_codec_answers_to_its_name() -> None:
    assert codec_name(load_codec("reference")) == "reference"


def test_auto_is_native_where_it_was_built_and_reference_elsewhere() -> None:
    try:
        assert load_codec("auto") is load_codec("native")
    except CodecUnavailable as error:
        assert load_codec("auto") is ReferenceCodec
        assert "compiler" in str(error)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="auto, native, reference"):
        load_codec("fast")
    assert set(CODEC_NAMES) == {"auto", "native", "reference"}
