"""Envoy as somebody sets it up who expects these failures: outlier detection, keepalive, gRPC retries, its best policy.

Stock settings would lose this comparison without being measured: outlier detection and keepalive are off, an ejection
lasts 30 s. Everything here is from its reference; retries are the only difference between its two contenders.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from benchmarks.chaos.contender import SERVICE, Admin, Contender, View
from benchmarks.subject import SUBJECTS, Job, Subject

_EXTENSIONS = "type.googleapis.com/envoy.extensions"

OUTLIER_DETECTION = {
    "consecutive_5xx": 5,  # its default; a gRPC status counts as the HTTP code it maps to
    "consecutive_gateway_failure": 5,
    "enforcing_consecutive_gateway_failure": 100,
    "interval": "0.5s",  # 10 s by default
    "base_ejection_time": "2s",  # 30 s by default; grows with each ejection
    "max_ejection_percent": 50,
    "success_rate_minimum_hosts": 3,
    "success_rate_request_volume": 10,
    "enforcing_failure_percentage": 100,
    "failure_percentage_threshold": 50,
    "failure_percentage_minimum_hosts": 3,
    "failure_percentage_request_volume": 10,
    "split_external_local_origin_errors": False,  # if they are split, streams that are reset eject nobody
}
RETRY_POLICY = {
    "retry_on": "connect-failure,refused-stream,reset,unavailable,internal",
    "num_retries": 2,
    "per_try_timeout": "0.4s",
    "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {"@type": f"{_EXTENSIONS}.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
        }
    ],
    "host_selection_retry_max_attempts": 5,
}
LEAST_OF_ALL = {
    "policies": [
        {
            "typed_extension_config": {
                "name": "envoy.load_balancing_policies.least_request",
                "typed_config": {
                    "@type": f"{_EXTENSIONS}.load_balancing_policies.least_request.v3.LeastRequest",
                    "selection_method": "FULL_SCAN",
                },
            }
        }
    ]
}


def _socket_address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _connection_manager(retries: bool) -> dict[str, Any]:
    route: dict[str, Any] = {
        "cluster": SERVICE,
        "timeout": "0s",
        "max_stream_duration": {"grpc_timeout_header_max": "0s"},  # the caller's deadline holds
    }
    if retries:
        route["retry_policy"] = RETRY_POLICY
    return {
        "@type": f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": route}]}]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_EXTENSIONS}.filters.http.router.v3.Router"},
            }
        ],
    }


def _cluster(job: Job, retries: bool) -> dict[str, Any]:
    keepalive = {"interval": "1s", "timeout": "1s"}
    cluster: dict[str, Any] = {
        "name": SERVICE,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_balancing_policy": LEAST_OF_ALL,
        "outlier_detection": OUTLIER_DETECTION,
        "load_assignment": {
            "cluster_name": SERVICE,
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": _socket_address(*endpoint)}} for endpoint in job.endpoints]}
            ],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_EXTENSIONS}.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {"connection_keepalive": keepalive}},
            }
        },
    }
    if retries:
        budget = {"budget_percent": {"value": 20.0}, "min_retry_concurrency": 3}
        cluster["circuit_breakers"] = {"thresholds": [{"retry_budget": budget}]}
    return cluster


def config(job: Job, retries: bool) -> dict[str, Any]:
    """The whole bootstrap."""
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": _connection_manager(retries)}]
    listener = {
        "name": "app",
        "address": _socket_address("127.0.0.1", job.port),
        "filter_chains": [{"filters": filters}],
    }
    return {
        "admin": {"address": _socket_address("127.0.0.1", job.admin_port)},
        "static_resources": {"listeners": [listener], "clusters": [_cluster(job, retries)]},
    }


def _command(retries: bool) -> Callable[[Job, str], list[str]]:
    def command(job: Job, program: str) -> list[str]:
        path = job.write("envoy.json", json.dumps(config(job, retries), indent=1))
        return [program, "-c", path, "--concurrency", "1", "--disable-hot-restart", "-l", "error"]

    return command


def views(admin: Admin) -> dict[str, View]:
    """Every host of the cluster."""
    found = {}
    for cluster in admin.ask("/clusters?format=json")["cluster_statuses"]:
        for host in cluster["host_statuses"] if cluster["name"] == SERVICE else ():
            address = host["address"]["socket_address"]
            ejected = bool(host["health_status"].get("failed_outlier_check"))
            counts = {stat["name"]: int(stat.get("value", 0)) for stat in host["stats"]}
            name = f"{address['address']}:{address['port_value']}"
            found[name] = View(not ejected, "failed_outlier_check" if ejected else "", counts["rq_total"])
    return found


def contender(name: str, *, retries: bool) -> Contender:
    """Envoy, with or without retries."""
    stock = SUBJECTS["envoy"]
    return Contender(Subject(name, stock.install, stock.program, _command(retries)), views, ours=False)
