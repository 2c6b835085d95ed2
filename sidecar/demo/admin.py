"""What the client's sidecar says of itself: its admin API, asked as any operator would ask it."""

from __future__ import annotations

import aiohttp
import msgspec
from msgspec import Struct

from sidecar.demo.process import StageError

SERVICE = "greeter"
COUNTED = "sidecar_proxy_exchanges_total{"  # RPCs that ended, by upstream and status
UPSTREAM = f'upstream="{SERVICE}"'
ANSWER_TIMEOUT = 30.0  # seconds for one answer; a sidecar that is kept from the CPU is late with it


class Endpoint(Struct):
    """One endpoint of `/clusters?format=json`, as far as the demo shows it."""

    address: str
    id: str
    state: str
    pickable: bool
    why: str
    in_flight: int
    successes: int
    failures: int
    latency_p50_seconds: float
    latency_p99_seconds: float
    age_seconds: float


class Upstream(Struct):
    """One upstream of it."""

    name: str
    endpoints: list[Endpoint]


class Clusters(Struct):
    """All of it."""

    upstreams: list[Upstream]


class Admin:
    """The admin API of one sidecar."""

    def __init__(self, address: str) -> None:
        self.url = f"http://{address}"
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_TIMEOUT))

    async def ready(self) -> bool:
        """Whether it runs and says that traffic may be sent."""
        try:
            async with self._session.get(f"{self.url}/ready") as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def endpoints(self) -> dict[str, Endpoint]:
        """The greeters by their id. Raises StageError when there is no answer."""
        clusters = msgspec.json.decode(await self._get("/clusters?format=json"), type=Clusters)
        found = next((upstream.endpoints for upstream in clusters.upstreams if upstream.name == SERVICE), [])
        return {endpoint.id: endpoint for endpoint in found}

    async def counted(self) -> int:
        """How many RPCs it has seen end, whatever their status. Raises StageError."""
        lines = (await self._get("/metrics")).decode().splitlines()
        samples = [line for line in lines if line.startswith(COUNTED) and UPSTREAM in line]
        return sum(int(float(sample.rpartition(" ")[2])) for sample in samples)

    async def _get(self, path: str) -> bytes:
        try:
            async with self._session.get(self.url + path) as response:
                response.raise_for_status()
                return await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise StageError(f"the client's sidecar does not answer on {self.url}{path}: {reason}") from None

    async def close(self) -> None:
        """Close the connection to it."""
        await self._session.close()
