"""Probing the app: does it answer, and what does it say of itself?

A probe is one question with a time limit and comes to a `Finding`; `Judgement` counts findings into the app's Health.
Nothing here knows a registry.
"""

from __future__ import annotations

import abc
import asyncio
import importlib
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from sidecar.control.registry import Health
from sidecar.control.settings import CheckSettings, ServiceSettings
from sidecar.policy.snapshot import PASSING, WARNING

if TYPE_CHECKING:
    import aiohttp

CRITICAL = "critical"
TOO_MANY_REQUESTS = 429  # Consul's word for warning
# The app comes back within seconds; gRPC's own reconnect backoff (1 s to 120 s) would hide that.
CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


class Finding(Struct, frozen=True):
    """What one probe came to. `final`: the app itself has said so, there is no need to ask again."""

    status: str
    reason: str
    final: bool = False


class Judgement:
    """The app's health from its findings: `passes` good ones in a row to rise, `failures` bad ones to fall."""

    def __init__(self, passes: int, failures: int) -> None:
        self.passes = passes
        self.failures = failures
        self.health = Health(status=CRITICAL, output="not probed yet")
        self._good = 0
        self._bad = 0

    def add(self, finding: Finding) -> Health:
        """Count one finding; the health it leads to."""
        if finding.status == CRITICAL:
            self._good = 0
            self._bad += 1
            self._fall(finding)
        else:
            self._bad = 0
            self._good += 1
            self._rise(finding)
        return self.health

    def _fall(self, finding: Finding) -> None:
        if finding.final or self._bad >= self.failures or self.health.status == CRITICAL:
            self.health = Health(status=CRITICAL, output=finding.reason)
        else:
            output = f"{self._bad} of {self.failures} probes failed: {finding.reason}"
            self.health = Health(status=self.health.status, output=output)

    def _rise(self, finding: Finding) -> None:
        if self.health.status != CRITICAL or self._good >= self.passes:
            self.health = Health(status=finding.status, output=finding.reason)
        else:
            output = f"{self._good} of {self.passes} probes passed: {finding.reason}"
            self.health = Health(status=CRITICAL, output=output)


class Probe(abc.ABC):
    """One way of asking. `ask` never raises for the app's sake; it may be called again and again."""

    def __init__(self, host: str, port: int, timeout: float) -> None:
        self.host = host
        self.port = port
        self.timeout = timeout
        self.where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @abc.abstractmethod
    async def ask(self) -> Finding:
        """Probe once."""

    async def close(self) -> None:
        """Give back what is kept open between probes."""
        return


class TcpProbe(Probe):
    """Only connect."""

    async def ask(self) -> Finding:
        """Connect and close."""
        try:
            async with asyncio.timeout(self.timeout):
                _, writer = await asyncio.open_connection(self.host, self.port)
        except TimeoutError:
            return Finding(CRITICAL, f"TCP {self.where}: no connection within {self.timeout:g}s")
        except OSError as error:
            return Finding(CRITICAL, f"TCP {self.where}: {os_reason(error)}")
        writer.transport.abort()
        return Finding(PASSING, f"TCP {self.where}: connected")


class HttpProbe(Probe):
    """GET a path: 2xx passes, 429 warns, all else is critical."""

    def __init__(self, host: str, port: int, timeout: float, path: str) -> None:
        super().__init__(host, port, timeout)
        self.url = f"http://{self.where}{path}"
        self._session: aiohttp.ClientSession | None = None

    async def ask(self) -> Finding:
        """One GET, on a connection of its own so that a restarted app is noticed.

        aiohttp is imported in a thread on first use: it takes longer than the loop may stall.
        """
        if self._session is None:
            await asyncio.to_thread(importlib.import_module, "aiohttp")
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self.timeout), connector=aiohttp.TCPConnector(force_close=True)
            )
        try:
            async with self._session.get(self.url, allow_redirects=False) as response:
                status = response.status
        except TimeoutError:
            return Finding(CRITICAL, f"HTTP GET {self.url}: no answer within {self.timeout:g}s")
        except aiohttp.ClientConnectorError as error:
            return Finding(CRITICAL, f"HTTP GET {self.url}: {os_reason(error.os_error)}")
        except (aiohttp.ClientError, OSError) as error:
            return Finding(CRITICAL, f"HTTP GET {self.url}: {str(error) or type(error).__name__}")
        reason = f"HTTP GET {self.url}: {status}"
        if status // 100 == 2:
            return Finding(PASSING, reason)
        return Finding(WARNING if status == TOO_MANY_REQUESTS else CRITICAL, reason)

    async def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()
            self._session = None


class GrpcProbe(Probe):
    """Ask grpc.health.v1. grpcio is imported in a thread on first use: it takes longer than the loop may stall."""

    def __init__(self, host: str, port: int, timeout: float, service: str) -> None:
        super().__init__(host, port, timeout)
        self.service = service
        self.name = f"gRPC health {self.where}" + (f"/{service}" if service else "")
        self._grpc: Any = None
        self._messages: Any = None
        self._channel: Any = None
        self._check: Any = None

    async def _open(self) -> None:
        self._grpc = await asyncio.to_thread(importlib.import_module, "grpc.aio")
        self._messages = await asyncio.to_thread(importlib.import_module, "grpc_health.v1.health_pb2")
        stubs = await asyncio.to_thread(importlib.import_module, "grpc_health.v1.health_pb2_grpc")
        self._channel = self._grpc.insecure_channel(self.where, options=CHANNEL_OPTIONS)
        self._check = stubs.HealthStub(self._channel).Check

    async def ask(self) -> Finding:
        """One Check call."""
        if self._channel is None:
            await self._open()
        try:
            request = self._messages.HealthCheckRequest(service=self.service)
            reply = await self._check(request, timeout=self.timeout)
        except self._grpc.AioRpcError as error:
            return self._explain(error.code().name, error.details() or "")
        word = self._messages.HealthCheckResponse.ServingStatus.Name(reply.status)
        if word == "SERVING":
            return Finding(PASSING, f"{self.name}: SERVING")
        return Finding(CRITICAL, f"{self.name}: the app says {word}", final=word == "NOT_SERVING")

    def _explain(self, code: str, details: str) -> Finding:
        """What a failed call means for whoever reads the check's output."""
        if code == "UNIMPLEMENTED":
            reason = "the app does not implement grpc.health.v1; add it, or use a tcp check"
        elif code == "NOT_FOUND":
            reason = f"the app's health service does not know the service {self.service!r}"
        elif code == "DEADLINE_EXCEEDED":
            reason = f"no answer within {self.timeout:g}s"
        else:
            reason = f"{code}: {details}"
        return Finding(CRITICAL, f"{self.name}: {reason}")

    async def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            channel, self._channel = self._channel, None
            await channel.close()


def probe_of(settings: ServiceSettings) -> Probe:
    """The probe that the settings ask for; tcp if they name none."""
    check: CheckSettings = settings.check
    host, port, timeout = settings.probe_address, settings.port, check.timeout
    if check.grpc is not None:
        return GrpcProbe(host, check.grpc.port or port, timeout, check.grpc.service)
    if check.http is not None:
        return HttpProbe(host, check.http.port or port, timeout, check.http.path)
    return TcpProbe(host, check.tcp.port if check.tcp is not None and check.tcp.port else port, timeout)


def os_reason(error: OSError) -> str:
    """An OSError in a few words, the same every time it happens."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return error.strerror or str(error) or type(error).__name__
