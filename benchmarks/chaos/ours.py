"""The sidecar as the comparison runs it: shipped defaults, and retries where they are asked for."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.chaos.contender import SERVICE, Admin, Contender, View
from benchmarks.subject import Job, Subject

# The counterpart of `envoy.RETRY_POLICY`; attempts, backoff and budget are the defaults, which are Envoy's numbers.
RETRIES: dict[str, Any] = {"retry": {"codes": ["UNAVAILABLE", "INTERNAL"], "per_try_timeout": "400ms"}}
IDEMPOTENT: dict[str, Any] = {"retry": {"idempotent": True}}  # what opting in takes, and nothing else
UNTHROTTLED: dict[str, Any] = {"retry_throttle": {"max_tokens": 0}}  # so that the budget alone is what holds them down
HEDGING: dict[str, Any] = {"hedge": {}}

LIMIT = 1.2  # executions per RPC offered, at most, while everything fails
FLOOR = 3  # retries beside that, whatever was offered: `retry_budget.floor`


def config(job: Job, upstream: dict[str, Any]) -> dict[str, Any]:
    """A whole configuration; `upstream` is added to the entry of the service."""
    entry = {
        "service": SERVICE,
        "listen": f"127.0.0.1:{job.port}",
        "endpoints": [f"{host}:{port}" for host, port in job.endpoints],
        **upstream,
    }
    return {"upstreams": [entry], "admin": {"listen": f"127.0.0.1:{job.admin_port}"}}


def _command(upstream: dict[str, Any]) -> Callable[[Job, str], list[str]]:
    def command(job: Job, program: str) -> list[str]:
        path = job.write("sidecar.yaml", json.dumps(config(job, upstream), indent=1))  # JSON is YAML, too
        return [program, "-m", "sidecar", "run", "--config", path]

    return command


def views(admin: Admin) -> dict[str, View]:
    """Every endpoint of the upstream."""
    (upstream,) = admin.ask("/clusters?format=json")["upstreams"]
    return {
        endpoint["address"]: View(
            endpoint["pickable"],
            endpoint["why"],
            endpoint["successes"] + endpoint["failures"] + endpoint["in_flight"],
            endpoint["avoided"],
        )
        for endpoint in upstream["endpoints"]
    }


def contender(name: str = "sidecar", **upstream: Any) -> Contender:
    """The sidecar with these keys in the upstream's entry."""
    return Contender(Subject(name, "", lambda: sys.executable, _command(upstream)), views, ours=True)
