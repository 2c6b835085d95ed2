"""Which codec a connection gets: the one place that knows their names. Nothing else imports a codec by class.

A process imports the codec that it uses and not the other one: h2 would be a tenth of the time to start.
"""

from __future__ import annotations

from importlib import import_module

from sidecar.http2.interface import Codec

CODEC_NAMES = ("auto", "native", "reference")


class CodecUnavailable(Exception):
    """The codec that was asked for by name cannot be had here; the message says what to do."""


def load_codec(name: str) -> type[Codec]:
    """The codec class for `auto`, `native` or `reference`. `auto` is native where it was built, else reference.

    Raises `CodecUnavailable` for `native` where it was not built, `ValueError` for any other name.
    """
    if name not in CODEC_NAMES:
        raise ValueError(f"no codec is called {name!r}; there are {', '.join(CODEC_NAMES)}")
    if name == "reference":
        return _reference()
    try:
        codec: type[Codec] = import_module("sidecar.http2.native").NativeCodec  # absent where no compiler was
    except ImportError as error:
        if name == "auto":
            return _reference()
        raise CodecUnavailable(
            f"the native codec is not built here ({error}); install the package with a C compiler at hand "
            "(SIDECAR_REQUIRE_EXTENSIONS=1 pip install . shows what is missing), or set http2.codec to auto"
        ) from error
    return codec


def codec_name(codec: type[Codec]) -> str:
    """`reference` or `native`, for `sidecar version`, `/server_info` and the build metric."""
    return codec.__module__.rpartition(".")[2]


def _reference() -> type[Codec]:
    from sidecar.http2.reference import ReferenceCodec

    return ReferenceCodec
