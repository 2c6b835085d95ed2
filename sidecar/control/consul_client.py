"""Requests to one Consul agent. How they travel stands in `consul_transport`, which is imported on first use.

Every failure leaves as a `RegistryError` with a sentence; the token is in no message and no log line.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
from collections.abc import Awaitable, Mapping
from typing import Any

from msgspec import Struct

from sidecar.control.consul_target import Target
from sidecar.control.registry import RegistryDenied, RegistryError

log = logging.getLogger("sidecar.control")

HTTP_OK = 200
# Statuses that the agent's health paths use as verdicts: unknown, warning, critical.
VERDICTS = frozenset((404, 429, 503))
EXCERPT = 160  # characters of a wrong answer that a message shows


class Answer(Struct, frozen=True):
    """One HTTP answer of the agent."""

    status: int
    headers: Mapping[str, str]
    body: str


class AgentError(RegistryError):
    """The agent answered with an error; `text` is its own words."""

    def __init__(self, sentence: str, text: str) -> None:
        super().__init__(sentence)
        self.text = text


class ConsulClient:
    """One agent. Sessions are made on first use, so that it can be built before the event loop runs."""

    def __init__(self, target: Target, timeout: float) -> None:
        self.target = target
        self.label = f"Consul at {target.address.label}"
        self.timeout = timeout
        self._api: Any = None
        self._token = TokenSource(target)

    async def load(self) -> None:
        """Import py-consul and aiohttp in a thread, before the first use: it takes longer than the loop may stall."""
        await asyncio.to_thread(importlib.import_module, "sidecar.control.consul_transport")

    @property
    def api(self) -> Any:
        """py-consul's client."""
        if self._api is None:
            from sidecar.control.consul_transport import build_api

            self._api = build_api(self.target, self.timeout)
        return self._api

    def token(self) -> str:
        """The ACL token as of now; empty: none. Raises RegistryError when its file has never been readable."""
        return self._token.read()

    async def get(
        self,
        what: str,
        path: str,
        params: list[tuple[str, str]],
        *,
        timeout: float | None = None,
        verdicts: bool = False,
    ) -> Answer:
        """GET with parameters of our own. `verdicts`: statuses that the path uses to state a health do not raise."""
        headers = self.api.prepare_headers(self.token())
        request = self.api.http.get(_answer, path, params=params, headers=headers, connections_timeout=timeout)
        answer: Answer = await self.run(what, request)
        if answer.status in (401, 403):
            raise self._denied(what, answer.body)
        if answer.status != HTTP_OK and not (verdicts and answer.status in VERDICTS):
            text = f"{answer.status} {answer.body}"
            raise AgentError(f"{self.label} could not {what}: it answered {self.excerpt(text)}", text)
        return answer

    async def run(self, what: str, request: Awaitable[Any]) -> Any:
        """Await a request of py-consul and turn each failure into a RegistryError. `what` completes "could not ..."."""
        from sidecar.control.consul_transport import DENIALS, FAILURES, REJECTIONS

        try:
            return await request
        except DENIALS as error:
            raise self._denied(what, str(error)) from None
        except REJECTIONS as error:
            text = str(error)
            raise AgentError(f"{self.label} could not {what}: it answered {self.excerpt(text)}", text) from None
        except TimeoutError:
            raise RegistryError(f"{self.label} gave no answer in time to {what}") from None
        except FAILURES as error:
            reason = str(error) or type(error).__name__
            raise RegistryError(f"{self.label} cannot be reached to {what}: {reason}") from None

    def _denied(self, what: str, text: str) -> RegistryDenied:
        return RegistryDenied(
            f"{self.label} refused to {what}: {self.excerpt(text) or 'permission denied'}. Check the ACL token and its"
            " policy: service:read and node:read for what is watched, service:write for the own service"
        )

    def excerpt(self, text: str) -> str:
        """The start of an answer on one line, without the token."""
        token = self._token.last
        line = " ".join(text[: 4 * EXCERPT].split())
        if token:
            line = line.replace(token, "<token>")
        return line if len(line) <= EXCERPT else line[:EXCERPT] + "..."

    async def close(self) -> None:
        """Close the connections."""
        if self._api is not None:
            api, self._api = self._api, None
            await api.close()
            await asyncio.sleep(0)  # aiohttp closes its sockets one turn of the loop later

    def __repr__(self) -> str:
        return f"<ConsulClient {self.target.address.label}>"


class TokenSource:
    """The ACL token: given, or in a file that is read again when it changes (SE-44)."""

    def __init__(self, target: Target) -> None:
        self.path = target.token_file
        self.last = target.token
        self._seen: tuple[int, int, int] | None = None
        self._trouble = ""

    def read(self) -> str:
        """The token as of now. A file that has vanished leaves the last one in force; raises if there never was one."""
        if not self.path:
            return self.last
        try:
            status = os.stat(self.path)
            seen = (status.st_ino, status.st_size, status.st_mtime_ns)
            if seen != self._seen:
                with open(self.path, encoding="utf-8") as file:
                    self.last = file.read(4096).strip()
                if self._seen is not None:
                    log.info("the Consul token file has changed and is in use", extra={"path": self.path})
                self._seen = seen
            self._trouble = ""
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            if self._seen is None:
                raise RegistryError(f"the Consul token file {self.path} cannot be read: {reason}") from None
            if reason != self._trouble:
                self._trouble = str(reason)
                log.warning("the Consul token file cannot be read, the last token stays in use: %s", reason)
        return self.last


def _answer(response: Any) -> Answer:
    """For py-consul: hand the answer over as it is."""
    return Answer(response.code, response.headers, response.body)
