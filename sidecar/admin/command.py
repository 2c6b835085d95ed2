"""The commands: POST handlers. Each answers with a sentence when it is done; the status says whether it worked."""

from __future__ import annotations

import logging

from aiohttp import web

from sidecar.admin.guard import answer
from sidecar.admin.view import SidecarView

log = logging.getLogger("sidecar.admin")


class Command:
    """The POST handlers over one view."""

    def __init__(self, view: SidecarView) -> None:
        self._view = view

    async def drain(self, request: web.Request) -> web.Response:
        """Deregister and wait. It goes on even when the asker hangs up."""
        log.info("drain was asked for by %s", request.remote)
        problems = await self._view.drain()
        if problems:
            return answer("\n".join(problems), 503)
        return answer(
            "Drained: nothing is registered any more, and callers have had time to notice. Outbound calls go on."
        )

    async def reload(self, request: web.Request) -> web.Response:
        """Read the configuration file again."""
        log.info("reload was asked for by %s", request.remote)
        mistakes = await self._view.reload()
        if mistakes:
            return answer("\n".join([*mistakes, "The former configuration stays in force."]), 422)
        return answer("Reloaded.")

    async def logging(self, request: web.Request) -> web.Response:
        """Change the log level."""
        level = request.query.get("level", "")
        try:
            self._view.set_log_level(level)
        except ValueError as error:
            return answer(str(error), 400)
        log.info("log level set to %s by %s", level, request.remote)
        return answer(f"The log level is {level}.")

    async def quit(self, request: web.Request) -> web.Response:
        """End in good order."""
        log.info("the end was asked for by %s", request.remote)
        self._view.quit()
        return answer("Ending in good order, as on SIGTERM.")
