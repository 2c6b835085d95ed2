"""`sidecar demo`: arguments in, exit code out. It owns the order of the end: load, then processes, then the directory.

0: every RPC is accounted for. 1: one is not, or the demo could not go on; the logs are then kept. 2: misused.
130: `--once` was interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sidecar.demo.ledger import Verdict
    from sidecar.demo.screen import Screen
    from sidecar.demo.stage import Stage

OK, FAILED, INTERRUPTED = 0, 1, 130
RATE = 100.0  # RPCs a second: little for any codec, enough to lose some if something is wrong
SECONDS_ONCE, SECONDS_FOR_EVER = 4.0, 15.0
SAME_SIGNAL = 0.3  # seconds; nobody means two by what comes as fast
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(argv: Sequence[str]) -> int:
    """Show the main job on this machine."""
    options = parser().parse_args(argv)
    os.environ["GRPC_VERBOSITY"] = "NONE"  # grpcio writes to standard error past our table
    return asyncio.run(show(options))


def parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(
        prog="sidecar demo",
        description="Three greeters with a sidecar each, a client app with its own, load, and failures on purpose:"
        " one instance is killed, one added, one restarted in order, and the registry is restarted.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--registry",
        choices=("auto", "consul", "file"),
        default="auto",
        help="a Consul agent of its own, or a directory of leases; auto takes Consul where it is installed",
    )
    parser.add_argument("--once", action="store_true", help="end after one round, with 1 if any RPC is unaccounted for")
    parser.add_argument("--rate", type=positive, default=RATE, metavar="N", help=f"RPCs a second [{RATE:g}]")
    parser.add_argument(
        "--seconds",
        type=positive,
        metavar="N",
        help=f"of nothing but load between two events [{SECONDS_FOR_EVER:g}; with --once {SECONDS_ONCE:g}]",
    )
    parser.add_argument("--no-color", action="store_true", help="as NO_COLOR=1")
    return parser


def positive(text: str) -> float:
    """A number above 0. Raises ArgumentTypeError."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


async def show(options: argparse.Namespace) -> int:
    """The demo from its first process to its last."""
    from sidecar.demo.process import StageError
    from sidecar.demo.registry import choose
    from sidecar.demo.screen import screen_for
    from sidecar.demo.stage import Stage

    screen = screen_for(sys.stdout, options.no_color)
    directory = Path(tempfile.mkdtemp(prefix="sidecar-demo-"))
    code = FAILED
    try:
        stage = Stage(choose(options.registry, directory), directory)
        code = await play(stage, screen, options)
    except StageError as error:
        screen.say(str(error))
    finally:
        if code == FAILED and any(directory.iterdir()):
            screen.say(f"The logs are kept in {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    return code


async def play(stage: Stage, screen: Screen, options: argparse.Namespace) -> int:
    """The script on its stage, until it ends, fails or is interrupted; then the account, and the end of everything."""
    from sidecar.demo.ledger import Ledger
    from sidecar.demo.load import Load
    from sidecar.demo.process import StageError
    from sidecar.demo.script import Script, closing

    ledger = Ledger()
    load = Load(stage.app_address, options.rate, ledger)
    seconds = options.seconds or (SECONDS_ONCE if options.once else SECONDS_FOR_EVER)
    task = asyncio.get_running_loop().create_task(Script(stage, load, ledger, screen).play(seconds, options.once))
    on_signals(Interruption(task, stage, screen).tell)
    code, counted = OK, None
    try:
        await task
    except asyncio.CancelledError:
        code = INTERRUPTED if options.once else OK
    except StageError as error:
        screen.say(str(error))
        code = FAILED
    finally:
        await load.stop()
        with contextlib.suppress(StageError):  # killed, or what failed; then its count is not to be had
            counted = await stage.admin.counted()
        await stage.close()
    if ledger.sent:
        for sentence in closing(ledger, counted):
            screen.say(sentence, strong=True)
    return exit_code(code, ledger.judge(counted))


def exit_code(code: int, verdict: Verdict) -> int:
    """An RPC that is not accounted for outweighs every other way to end."""
    return code if verdict.clean else FAILED


def on_signals(action: Callable[[], None]) -> None:
    """Instead of what the interpreter would do: nothing may be left behind."""
    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, action)


class Interruption:
    """The first time end in order, the second time at once."""

    def __init__(self, task: asyncio.Task[None], stage: Stage, screen: Screen) -> None:
        self.task = task
        self.stage = stage
        self.screen = screen
        self.told_at: float | None = None

    def tell(self) -> None:
        """A signal has come. Tools such as `timeout` send it to the process and to its group: that is one."""
        now = time.monotonic()
        if self.told_at is None:
            self.told_at = now
            self.screen.say("Ending in order; once more ends at once.")
            self.task.cancel()
        elif now - self.told_at > SAME_SIGNAL:
            self.stage.kill()
