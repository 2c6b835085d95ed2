"""Compiles what moves bytes; everything else about the package is in setup.cfg.

SIDECAR_NO_EXTENSIONS=1 skips the compiling, SIDECAR_REQUIRE_EXTENSIONS=1 makes its failure an error. Without either,
a failure costs a loud notice: the package then runs on the reference codec.
"""

from __future__ import annotations

import os
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# One line per module: a .pyx, or a .py with a .pxd beside it that turns its classes into extension types.
EXTENSIONS = (
    "sidecar/http2/interface.py",
    "sidecar/http2/buffer.pyx",
    "sidecar/http2/parts.pyx",
    "sidecar/http2/huffman.pyx",
    "sidecar/http2/hpack_table.pyx",
    "sidecar/http2/native_block.pyx",
    "sidecar/http2/hpack_decoder.pyx",
    "sidecar/http2/hpack_encoder.pyx",
    "sidecar/http2/native_stream.pyx",
    "sidecar/http2/native_limits.pyx",
    "sidecar/http2/native_sending.pyx",
    "sidecar/http2/native_receiving.pyx",
    "sidecar/http2/native.pyx",
    "sidecar/telemetry/metrics.py",
    "sidecar/rpc/deadline.py",
    "sidecar/rpc/metadata.py",
    "sidecar/policy/window.py",
    "sidecar/policy/standing.py",
    "sidecar/policy/endpoint.py",
    "sidecar/policy/method.py",
    "sidecar/policy/balancer.py",
    "sidecar/policy/xxh64.py",
    "sidecar/policy/maglev.py",
    "sidecar/policy/rotation.py",
    "sidecar/policy/weighted_round_robin.py",
    "sidecar/policy/aperture.py",
    "sidecar/policy/least_request.py",
    "sidecar/policy/peak_ewma.py",
    "sidecar/policy/cluster.py",
    "sidecar/policy/ejection.py",
    "sidecar/proxy/wheel.py",
    "sidecar/proxy/engine.py",
    "sidecar/proxy/outlet.py",
    "sidecar/proxy/rider.py",
    "sidecar/proxy/connection.py",
    "sidecar/proxy/channel.pyx",
    "sidecar/proxy/poll.pyx",
    "sidecar/proxy/replay.py",
    "sidecar/proxy/relay.py",
    "sidecar/proxy/attempt.py",
    "sidecar/proxy/deadline.py",
    "sidecar/proxy/exchange.py",
    "sidecar/proxy/upstream.py",
    "sidecar/proxy/downstream.py",
    "sidecar/proxy/pool.py",
    "sidecar/proxy/footprint.py",
    "sidecar/proxy/heap_footprint.pyx",
    "sidecar/proxy/dispatch.py",
    "sidecar/app/own_balancer.py",
)

# Types come from the .pxd alone: an annotation says nothing about layout.
SHARED = {"language_level": 3, "initializedcheck": False, "annotation_typing": False}
# A .pyx is written for C: its indices are checked by hand. A .py must behave compiled as it does interpreted, so a
# mistake in it is an exception that costs one RPC, and not a fault that costs the process.
UNCHECKED = {**SHARED, "boundscheck": False, "wraparound": False, "cdivision": True}
CHECKED = {**SHARED, "boundscheck": True, "wraparound": True, "nonecheck": True, "cdivision": False}
# No -march: one wheel serves every machine of its architecture. -O3 is no faster and 0.3 MiB larger.
COMPILE_ARGS = ["-O2", "-fno-plt", "-g0", "-include", "sidecar/refcount.h"]
REQUIRED = os.environ.get("SIDECAR_REQUIRE_EXTENSIONS", "") not in ("", "0")
SKIPPED = os.environ.get("SIDECAR_NO_EXTENSIONS", "") not in ("", "0")

NOTICE = """
**********************************************************************************************************
 sidecar: the compiled codec could not be built:
   {reason}
 The package works without it, on the reference codec, at many times the CPU per RPC.
 A C compiler and the Python headers build it (Debian: apt-get install gcc libc6-dev python3-dev).
 SIDECAR_REQUIRE_EXTENSIONS=1 makes this an error, SIDECAR_NO_EXTENSIONS=1 skips the attempt.
**********************************************************************************************************
"""


def complain(reason: object) -> None:
    """Say it where nobody overlooks it."""
    print(NOTICE.format(reason=reason), file=sys.stderr, flush=True)


def extensions() -> list[Extension]:
    """The extensions as C sources, or none if they are not wanted or Cython is missing."""
    if SKIPPED:
        return []
    try:
        from Cython.Build import cythonize
    except ImportError as error:
        if REQUIRED:
            raise
        complain(error)
        return []
    built: list[Extension] = []
    for ending, directives in ((".pyx", UNCHECKED), (".py", CHECKED)):
        modules = [
            Extension(
                path.removesuffix(ending).replace("/", "."),
                [path],
                extra_compile_args=COMPILE_ARGS,
                depends=["sidecar/refcount.h"],
            )
            for path in EXTENSIONS
            if path.endswith(ending)
        ]
        built += cythonize(modules, compiler_directives=directives, nthreads=os.cpu_count() or 1)
    return built


class BuildAllOrNone(build_ext):
    """The modules share their layout through .pxd files: a part of them is worth nothing and is not installed."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:
            if REQUIRED:
                raise
            complain(error)
            self.remove_built()

    def remove_built(self) -> None:
        """Take away what was built before the failure."""
        for extension in self.extensions:
            for path in (self.get_ext_fullpath(extension.name), self.get_ext_filename(extension.name)):
                if os.path.exists(path):
                    os.unlink(path)
        self.extensions = []


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildAllOrNone})
