"""The process: read the configuration, take the event loop, translate signals, end with an exit code."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from sidecar.config.problem import ConfigErrors
from sidecar.config.reload import ConfigSource

log = logging.getLogger("sidecar.app")

OK, FAILED, MISUSED = 0, 1, 2


def run(path: str, environment: Mapping[str, str], overrides: Mapping[str, str]) -> int:
    """Run a sidecar until it is told to end. 0 after an end in order, 1 when it could not start, 2 for a bad file."""
    source = ConfigSource(path, environment, overrides)
    try:
        config = source.load()
    except ConfigErrors as errors:
        print(errors, file=sys.stderr)
        return MISUSED
    from sidecar.admin.log import configure
    from sidecar.app.sidecar import Sidecar

    configure(config.log)

    async def main() -> int:
        try:
            sidecar = Sidecar(source, config, environment)
            install_signals(sidecar.quit, sidecar.reload)
            await sidecar.start()
        except (OSError, ValueError, ImportError) as error:
            log.error("cannot start: %s", error)
            return FAILED
        await sidecar.ended.wait()
        await sidecar.stop()
        return OK

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(main())


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """The loop that serves connections itself where it was built, else uvloop's, else asyncio's own."""
    try:
        from sidecar.proxy.loop import ServingLoop
    except ImportError:
        pass
    else:
        return ServingLoop
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def install_signals(quit: Callable[[], None], reload: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """SIGTERM and SIGINT end, a second one at once; SIGHUP reloads."""
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[object]] = set()

    def on_hangup() -> None:
        task = loop.create_task(reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGTERM, quit)
    loop.add_signal_handler(signal.SIGINT, quit)
    loop.add_signal_handler(signal.SIGHUP, on_hangup)
