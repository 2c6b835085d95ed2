"""py-consul's asyncio client, on a transport of our own. `consul_client` imports it on first use: it is heavy.

py-consul knows Consul's paths and fields; the transport adds what a long-lived client needs: unix sockets, no
redirects (they would carry the token elsewhere), a bound on the size of an answer, a time limit per request.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, Final

import aiohttp

from sidecar.control.consul_package import consul
from sidecar.control.consul_target import Target
from sidecar.control.registry import RegistryError

MAX_ANSWER = 64 * 1024 * 1024  # octets; 5000 instances are about 10 MiB

# What a request raises: the agent says no, the agent says what is wrong, or nobody answers.
DENIALS: Final = (consul.exceptions.ACLPermissionDenied, consul.exceptions.ACLDisabled)
REJECTIONS: Final = (consul.ConsulException,)
FAILURES: Final = (aiohttp.ClientError, OSError, ValueError)


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


def build_api(target: Target, timeout: float) -> Any:
    """py-consul's API on our transport."""
    transport = Transport(target, timeout)

    class Api(consul.aio.Consul):  # type: ignore[misc]  # py-consul has no types
        """py-consul's own would make its own transport."""

        def http_connect(self, *_: object, **__: object) -> Transport:
            return transport

    api = Api(host="agent", port=1, scheme="http", verify=True)
    api.token = None  # py-consul took it from the environment; we pass ours with every request
    return api


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
