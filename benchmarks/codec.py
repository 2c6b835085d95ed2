"""`python -m benchmarks.codec`: what the codec work of one relayed unary RPC costs, without sockets, loop or policy.

Four native codecs in one process: a caller, the relay's two sides, an instance. Only the relay's two are timed, in
batches as they would arrive together; the relay between them is compiled (`codec_relay.pyx`) and does the least it can.
The best batch is what the code costs, the median is what this machine was like.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

from sidecar.http2.codec import load_codec
from sidecar.http2.constants import CLIENT, SERVER
from sidecar.http2.interface import Codec, CodecSettings, HeaderBlock, Sink

REQUEST = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/helloworld.Greeter/SayHello"),
    (b":authority", b"127.0.0.1:50051"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
    (b"user-agent", b"grpc-python/1.76.0"),
    (b"grpc-accept-encoding", b"identity, deflate, gzip"),
)
RESPONSE = HeaderBlock(((b":status", b"200"), (b"content-type", b"application/grpc")))
TRAILERS = HeaderBlock(((b"grpc-status", b"0"), (b"grpc-message", b"")))
BATCHES = (1, 16, 64)  # RPCs that arrive together: a lone caller, a busy one, a saturated relay
RPCS = 20_000
BUILD = """
from Cython.Build import cythonize
from setuptools import Extension, setup
relay = Extension("codec_relay", [{source!r}], extra_compile_args=["-O3", "-fno-plt", "-g0"])
directives = {{"language_level": 3, "boundscheck": False, "wraparound": False}}
setup(ext_modules=cythonize([relay], include_path=[{root!r}], build_dir={out!r}, compiler_directives=directives),
      script_args=["-q", "build_ext", "--build-lib", {out!r}, "--build-temp", {out!r}])
"""


def compiled_relay(out: str) -> ModuleType:
    """`codec_relay`, built into `out`."""
    source = Path(__file__).with_name("codec_relay.pyx")
    script = BUILD.format(source=str(source), root=str(source.parent.parent), out=out)
    subprocess.run([sys.executable, "-c", script], cwd=out, check=True, stdout=subprocess.DEVNULL)
    sys.path.insert(0, out)
    import codec_relay

    module: ModuleType = codec_relay
    return module


class Bench:
    """The four codecs, connected by hand."""

    def __init__(self, relay: ModuleType, body: bytes, timeouts: bool) -> None:
        codec = load_codec("native")
        self.relay_module, self.body, self.timeouts = relay, body, timeouts
        self.relay, self.instance_sink = relay.Relay(), relay.Instance()
        self.caller = codec(CLIENT, CodecSettings(), Sink())
        self.near = self.relay.near = codec(SERVER, CodecSettings(), self.relay)
        self.far = self.relay.far = codec(CLIENT, CodecSettings(), self.relay)
        self.instance = self.instance_sink.codec = codec(SERVER, CodecSettings(), self.instance_sink)
        self.instance_sink.head, self.instance_sink.trailers, self.instance_sink.body = RESPONSE, TRAILERS, body
        self.head = HeaderBlock(REQUEST)
        self.sent = self.done = 0
        for one in (self.caller, self.near, self.far, self.instance):
            one.initiate_connection()
        self.settle()

    def settle(self) -> None:
        """Carry what is not part of an RPC: SETTINGS and credit."""
        pairs: tuple[tuple[Codec, Codec], ...] = ((self.caller, self.near), (self.far, self.instance))
        while any(one.has_data_to_send() or other.has_data_to_send() for one, other in pairs):
            for one, other in pairs:
                other.receive_data(one.data_to_send())
                one.receive_data(other.data_to_send())

    def batch(self, size: int) -> int:
        """So many RPCs at once; the nanoseconds that the relay's codecs took."""
        ends = [self.call() for _ in range(size)]
        written = self.caller.data_to_send()
        started = time.perf_counter_ns()
        forwarded = self.relay.requests(written)
        took = time.perf_counter_ns() - started
        self.instance.receive_data(forwarded)
        answered = self.instance.data_to_send()
        started = time.perf_counter_ns()
        returned = self.relay.responses(answered)
        took += time.perf_counter_ns() - started
        self.caller.receive_data(returned)
        self.settle()
        assert all(end.done for end in ends), "an RPC was lost"
        return took

    def call(self) -> object:
        """One request, whole. With `timeouts` no two heads are alike, as with deadlines."""
        end = self.relay_module.Caller()
        end.codec, end.stream = self.caller, self.caller.open_stream(end)
        self.sent += 1
        head = HeaderBlock((*REQUEST, (b"grpc-timeout", b"%du" % self.sent))) if self.timeouts else self.head
        self.caller.send_headers(end.stream, head, False)
        self.caller.send_data(end.stream, self.body, True)
        return end


def main() -> None:
    """Print a table."""
    print(f"{'heads':>10} {'RPCs/batch':>10} {'body':>7} {'best ns/RPC':>12} {'median':>8}")
    with tempfile.TemporaryDirectory() as out:
        relay = compiled_relay(out)
        for timeouts, size, body in [(t, s, 12) for t in (False, True) for s in BATCHES] + [(False, 4, 60_000)]:
            bench = Bench(relay, bytes(body), timeouts)
            for _ in range(5):
                bench.batch(size)
            took = [bench.batch(size) / size for _ in range(RPCS // size // (1 if body < 1000 else 10))]
            heads = "varying" if timeouts else "alike"
            print(f"{heads:>10} {size:>10} {body:>7} {min(took):>12.0f} {statistics.median(took):>8.0f}")


if __name__ == "__main__":
    main()
