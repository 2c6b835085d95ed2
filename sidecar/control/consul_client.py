"""Requests to one Consul agent: py-consul's asyncio client on a transport of our own.

py-consul knows Consul's paths and fields; the transport adds what a long-lived client needs: unix sockets, no
redirects (they would carry the token elsewhere), a bound on the size of an answer, a time limit per request. Every
failure leaves as a `RegistryError` with a sentence; the token is in no message and no log line.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp
import consul
import consul.aio
import consul.base
import consul.exceptions
from msgspec import Struct

from sidecar.control.consul_target import Target
from sidecar.control.registry import RegistryDenied, RegistryError

log = logging.getLogger("sidecar.control")

MAX_ANSWER = 64 * 1024 * 1024  # octets; 5000 instances are about 10 MiB
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


class Transport(consul.aio.HTTPClient):  # type: ignore[misc]  # py-consul has no types
    """py-consul's transport, with our session and our rules for a request."""

    def __init__(self, target: Target, timeout: float) -> None:
        address = target.address
        consul.base.HTTPClient.__init__(self, address.host, address.port, address.scheme)
        self.base_uri = f"{address.scheme}://{address.authority}"
        connector: aiohttp.BaseConnector
        # limit=0: each upstream holds one blocking query, and a renewal must never queue behind them.
        if address.socket:
            self.base_uri = "http://consul"
            connector = aiohttp.UnixConnector(address.socket, limit=0)
        else:
            connector = aiohttp.TCPConnector(limit=0, ssl=tls_context(target))
        self._timeout = timeout
        pairs = (("ns", target.namespace), ("partition", target.partition))
        self._scope = [(key, value) for key, value in pairs if value]
        self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

    def uri(self, path: str, params: list[tuple[str, Any]] | None = None) -> str:
        """The URL of a request, with the namespace and the partition that py-consul leaves out."""
        return str(super().uri(path, self._scope + (params or [])))

    async def _request(
        self,
        callback: Callable[[Any], Any],
        method: str,
        uri: str,
        headers: dict[str, str] | None,
        data: str | bytes | None = None,
        connections_timeout: float | None = None,
        raw: bool = False,
    ) -> Any:
        timeout = aiohttp.ClientTimeout(total=connections_timeout or self._timeout)
        async with self._session.request(
            method, uri, headers=headers, data=data, timeout=timeout, allow_redirects=False
        ) as response:
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MAX_ANSWER:
                    raise consul.ConsulException(f"the answer is longer than {MAX_ANSWER >> 20} MiB")
            text = bytes(body) if raw else body.decode("utf-8", "replace")
            return callback(consul.base.Response(response.status, response.headers, text))


class ConsulClient:
    """One agent. Sessions are made on first use, so that it can be built before the event loop runs."""

    def __init__(self, target: Target, timeout: float) -> None:
        self.target = target
        self.label = f"Consul at {target.address.label}"
        self.timeout = timeout
        self._api: Any = None
        self._token = TokenSource(target)

    @property
    def api(self) -> Any:
        """py-consul's client."""
        if self._api is None:
            transport = Transport(self.target, self.timeout)

            class Api(consul.aio.Consul):  # type: ignore[misc]  # py-consul has no types
                """py-consul's API on our transport."""

                def http_connect(self, *_: object, **__: object) -> Transport:
                    return transport

            self._api = Api(host="agent", port=1, scheme="http", verify=True)
            self._api.token = None  # py-consul took it from the environment; we pass ours with every request
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
        try:
            return await request
        except (consul.exceptions.ACLPermissionDenied, consul.exceptions.ACLDisabled) as error:
            raise self._denied(what, str(error)) from None
        except consul.ConsulException as error:
            text = str(error)
            raise AgentError(f"{self.label} could not {what}: it answered {self.excerpt(text)}", text) from None
        except TimeoutError:
            raise RegistryError(f"{self.label} gave no answer in time to {what}") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
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


def tls_context(target: Target) -> ssl.SSLContext | bool:
    """How the agent's certificate is judged. Raises RegistryError when a file cannot be used."""
    if target.address.scheme != "https":
        return True
    try:
        context = ssl.create_default_context(cafile=target.ca_file or None)
        if target.cert_file:
            context.load_cert_chain(target.cert_file, target.key_file or None)
    except (OSError, ssl.SSLError) as error:
        raise RegistryError(f"the TLS files for Consul at {target.address.label} cannot be used: {error}") from None
    if not target.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _answer(response: Any) -> Answer:
    """For py-consul: hand the answer over as it is."""
    return Answer(response.code, response.headers, response.body)
