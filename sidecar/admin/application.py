"""The admin API's routes, over aiohttp. `server` imports it once the data path listens, and nothing else does.

What is answered stands in `inspection` and `command`, who may ask in `guard`.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from sidecar.admin.command import Command
from sidecar.admin.guard import local_callers, plain_errors
from sidecar.admin.inspection import Inspection
from sidecar.admin.view import SidecarView

# A command carries nothing in its body.
_LARGEST_BODY: Final = 4_096


def local_application(view: SidecarView, bound_host: str) -> web.Application:
    """Everything, for this machine only. `bound_host` is the host part of its address."""
    app = web.Application(middlewares=[plain_errors, local_callers(bound_host)], client_max_size=_LARGEST_BODY)
    inspection = Inspection(view)
    command = Command(view)
    app.add_routes(
        [
            web.get("/", inspection.front),
            *_probes(inspection),
            web.get("/clusters", inspection.clusters),
            web.get("/events", inspection.events),
            web.get("/upstreams", inspection.upstreams),
            web.get("/config_dump", inspection.config_dump),
            web.get("/server_info", inspection.server_info),
            web.post("/drain", command.drain),
            web.post("/reload", command.reload),
            web.post("/logging", command.logging),
            web.post("/quitquitquit", command.quit),
        ]
    )
    return app


def probe_application(view: SidecarView, bound_host: str) -> web.Application:
    """No Host check: kubelet and Prometheus ask by pod address or by names that only the cluster knows."""
    app = web.Application(middlewares=[plain_errors], client_max_size=_LARGEST_BODY)
    app.add_routes(_probes(Inspection(view)))
    return app


def _probes(inspection: Inspection) -> list[web.RouteDef]:
    return [
        web.get("/ready", inspection.ready),
        web.get("/live", inspection.live),
        web.get("/metrics", inspection.metrics),
    ]
