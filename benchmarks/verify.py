"""Before numbers count: a real gRPC client calls through every subject, and every status must be right.

HTTP 200 says nothing about a gRPC call. The four RPC kinds and a refusal go to a grpcio server, and unary calls to the
harness's own backend, whose answers the generators take on trust afterwards.
"""

from __future__ import annotations

from benchmarks.process import Failed, Placement, free_port
from benchmarks.stage import UNARY, Stage
from benchmarks.subject import Subject

CALLS = 200


def verify(subject: Subject) -> str | None:
    """What is wrong with a subject, or None."""
    try:
        with Stage(Placement.apart()) as stage:
            stage.open(subject, stage.backend())
            target = f"127.0.0.1:{stage.port}"
            arguments = ["verify-unary", f"--target={target}", f"--rpcs={CALLS}", f"--size={UNARY - 5}"]
            stage.python("benchmarks.greeter", *arguments)
        with Stage(Placement.apart()) as stage:
            open_greeter(stage, subject)
            stage.python("benchmarks.greeter", "verify", f"--target=127.0.0.1:{stage.port}")
    except Failed as failure:
        return str(failure)
    return None


def open_greeter(stage: Stage, subject: Subject) -> None:
    """The subject in front of a grpcio server."""
    port = free_port()
    greeter = stage.python_process("benchmarks.greeter", "serve", f"--port={port}")
    greeter.wait_listening(("127.0.0.1", port), step=0.05)
    stage.open(subject, [("127.0.0.1", port)])
