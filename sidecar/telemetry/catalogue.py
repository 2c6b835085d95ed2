"""Every metric once: its name, type, labels and sentence. The collector emits what stands here and nothing else.

`docs/metrics.md` is made from this page. Names read `sidecar_<room>_<noun>[_<unit>][_total]`; a label's values come
from the configuration, from a closed list or from the registry's own service names, never from an RPC (SE-22).
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct


class Metric(Struct, frozen=True):
    """One metric family. `meaning` is its HELP line and its row in the docs."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str


def _counter(name: str, labels: tuple[str, ...], meaning: str) -> Metric:
    return Metric(name, "counter", labels, meaning)


def _gauge(name: str, labels: tuple[str, ...], meaning: str) -> Metric:
    return Metric(name, "gauge", labels, meaning)


def _histogram(name: str, labels: tuple[str, ...], meaning: str) -> Metric:
    return Metric(name, "histogram", labels, meaning)


UPSTREAM: Final = ("upstream",)
LISTENER: Final = ("listener",)

# === what the app saw ===

EXCHANGES_STARTED: Final = _counter("sidecar_proxy_exchanges_started_total", UPSTREAM, "RPCs that the app began.")
EXCHANGES: Final = _counter(
    "sidecar_proxy_exchanges_total",
    ("upstream", "grpc_status"),
    "RPCs that ended, by the status the app saw. A status appears once it has been seen; OK is always there.",
)
EXCHANGE_DURATION: Final = _histogram(
    "sidecar_proxy_exchange_duration_seconds",
    UPSTREAM,
    "From the request head to the end of the RPC, as the app saw it.",
)
RETRIES: Final = _counter(
    "sidecar_proxy_retries_total", ("upstream", "reason"), "Attempts after the first, by why another one was made."
)
RETRIES_SUPPRESSED: Final = _counter(
    "sidecar_proxy_retries_suppressed_total",
    ("upstream", "reason"),
    "Failures that the method's policy would have tried again, by why they were the answer all the same.",
)
HEDGE_WINS: Final = _counter(
    "sidecar_proxy_hedge_wins_total", UPSTREAM, "Hedges that answered first; all of them are retries by reason `hedge`."
)
HEDGES_SUPPRESSED: Final = _counter(
    "sidecar_proxy_hedges_suppressed_total", ("upstream", "reason"), "Hedges that were due and not made, by why."
)
OVERSTAYS: Final = _counter(
    "sidecar_proxy_overstays_total",
    ("upstream", "reason"),
    "RPCs that were ended because of `timeouts.idle` or `timeouts.max_duration` of their method.",
)
REFUSALS: Final = _counter(
    "sidecar_proxy_refusals_total",
    ("upstream", "reason"),
    "RPCs that the sidecar answered itself because no endpoint could be picked or a limit was reached.",
)
ROUTED: Final = _counter(
    "sidecar_proxy_routed_total",
    ("upstream", "target"),
    "RPCs that the app sent to the upstream and a route led to `target`, under whose name everything else counts.",
)
FAULTS: Final = _counter(
    "sidecar_proxy_faults_total",
    ("upstream", "kind"),
    "Faults injected on purpose: delay, abort, reset, bandwidth; `spared` would have been one too many at a time.",
)
MIRRORED: Final = _counter(
    "sidecar_proxy_mirrored_total",
    ("upstream", "result"),
    "Copies of the upstream's RPCs, by what became of them; they are no RPCs in any other metric.",
)
CONCURRENCY_LIMIT: Final = _gauge(
    "sidecar_policy_concurrency_limit", UPSTREAM, "The adaptive limit of RPCs in flight, where one is configured."
)
QUEUED: Final = _gauge("sidecar_proxy_queued_exchanges", UPSTREAM, "RPCs that wait for a connection now.")
PAYLOAD: Final = _counter(
    "sidecar_proxy_payload_bytes_total",
    ("upstream", "direction"),
    "Octets of DATA payload: `up` to the endpoints, `down` to the app.",
)

# === what the endpoints saw ===

ATTEMPTS_STARTED: Final = _counter(
    "sidecar_proxy_attempts_started_total", UPSTREAM, "Tries of RPCs on an upstream stream, retries included."
)
ATTEMPTS: Final = _counter(
    "sidecar_proxy_attempts_total",
    ("upstream", "grpc_status"),
    "Tries that ended, by the endpoint's status. A status appears once it has been seen; OK is always there.",
)
ATTEMPT_DURATION: Final = _histogram(
    "sidecar_proxy_attempt_duration_seconds", UPSTREAM, "From the pick to the end of the upstream stream."
)
OUTCOMES: Final = _counter(
    "sidecar_proxy_attempt_outcomes_total",
    ("upstream", "outcome"),
    "Tries that did not simply succeed, by what the balancer and ejection take them for.",
)
LOAD_REPORTS: Final = _counter(
    "sidecar_proxy_load_reports_total",
    ("upstream", "result"),
    "Reports of load by endpoints, for balancers that ask for them: taken, or of no use because of `result`.",
)
CROSS_ZONE_ATTEMPTS: Final = _counter(
    "sidecar_proxy_cross_zone_attempts_total",
    UPSTREAM,
    "Of the tries that ended, those on endpoints in another zone than the sidecar's, as far as both are known.",
)
CROSS_ZONE_PAYLOAD: Final = _counter(
    "sidecar_proxy_cross_zone_payload_bytes_total",
    ("upstream", "direction"),
    "Octets of DATA payload of those tries: what a cloud bills for.",
)

# === connections ===

UPSTREAM_CONNECTIONS: Final = _gauge(
    "sidecar_proxy_upstream_connections", UPSTREAM, "Open connections to the endpoints of the upstream."
)
UPSTREAM_STREAMS: Final = _gauge("sidecar_proxy_upstream_streams", UPSTREAM, "Streams in flight on those connections.")
CONNECTS: Final = _counter("sidecar_proxy_connects_total", UPSTREAM, "Connections to endpoints that were begun.")
CONNECT_FAILURES: Final = _counter(
    "sidecar_proxy_connect_failures_total", ("upstream", "reason"), "Of these, the ones that did not come up, by why."
)
DISCONNECTS: Final = _counter(
    "sidecar_proxy_disconnects_total", ("upstream", "reason"), "Connections to endpoints that ended, by why."
)
PING_TIMEOUTS: Final = _counter(
    "sidecar_proxy_ping_timeouts_total",
    ("upstream", "question"),
    "Connections found dead because a PING was not answered: before `reuse`, or as `keepalive` of open streams.",
)
LISTENER_CONNECTIONS: Final = _gauge("sidecar_proxy_listener_connections", LISTENER, "Open connections from the app.")
LISTENER_ACCEPTED: Final = _counter(
    "sidecar_proxy_listener_accepted_total", LISTENER, "Connections from the app that were accepted."
)
LISTENER_REFUSED: Final = _counter(
    "sidecar_proxy_listener_refused_total", ("listener", "reason"), "Connections from the app that were turned away."
)
LISTENER_PROTOCOL_ERRORS: Final = _counter(
    "sidecar_proxy_listener_protocol_errors_total",
    ("listener", "error"),
    "Breaches of HTTP/2 by the app's side, by RFC 9113 error code.",
)

# === endpoints ===

ENDPOINTS: Final = _gauge(
    "sidecar_policy_endpoints",
    ("upstream", "state", "connectivity"),
    "Endpoints by health as the data path sees it and by connectivity. The sum is the membership.",
)
EJECTIONS: Final = _counter(
    "sidecar_policy_ejections_total",
    ("upstream", "reason"),
    "Times an endpoint was put out of picks, by what spoke against it.",
)
EJECTIONS_WITHHELD: Final = _counter(
    "sidecar_policy_ejections_withheld_total",
    ("upstream", "reason", "withheld"),
    "Ejections that were not carried out, by what spoke against the endpoint and by why it stayed: `cap` (enough are"
    " out), `last` (no other is known to do better), `peers` (the others fare no better), `enforce`. Counted when"
    " logged: for one endpoint every 10 s at most.",
)
PICKABLE: Final = _gauge("sidecar_policy_pickable_endpoints", UPSTREAM, "Endpoints that RPCs are balanced over now.")

HEALTH_CHECKS: Final = _counter(
    "sidecar_proxy_health_checks_total",
    ("upstream", "result"),
    "Findings of active health checks: `passed`, `denied` by the endpoint, `missed` (no answer), `unimplemented`.",
)
FAILING_CHECK: Final = _gauge(
    "sidecar_policy_endpoints_failing_check", UPSTREAM, "Endpoints that active health checks keep out of the picks now."
)

# === registry ===

DISCOVERED: Final = _gauge(
    "sidecar_control_discovered", UPSTREAM, "1 once any membership, even an empty one, is known."
)
DISCOVERY_AGE: Final = _gauge(
    "sidecar_control_discovery_age_seconds",
    UPSTREAM,
    "Time since the registry last confirmed the membership; 0 for a static one, absent while nothing is known.",
)
REGISTRY_UP: Final = _gauge(
    "sidecar_control_registry_up", (), "1 while the registry answers; 0 too when none is configured."
)
REGISTRY_ERRORS: Final = _counter(
    "sidecar_control_registry_errors_total", (), "Requests to the registry that failed or made no sense."
)
REGISTRATIONS: Final = _counter(
    "sidecar_control_registrations_total", (), "Times the service was registered, repairs included."
)
REGISTRATIONS_LOST: Final = _counter(
    "sidecar_control_registrations_lost_total", (), "Times the registry had forgotten the registration."
)
ANSWERS_HELD: Final = _counter(
    "sidecar_control_answers_held_total",
    ("reason",),
    "Answers of the registry that were not taken at their word; the last good membership was kept.",
)
KNOWN_LEADER: Final = _gauge(
    "sidecar_control_known_leader", (), "0 while the registry's newest answer says that it has no leader."
)
LAST_CONTACT: Final = _gauge(
    "sidecar_control_last_contact_seconds",
    (),
    "How old the newest answer may be: since the server that gave it heard of its leader.",
)
SNAPSHOTS: Final = _counter(
    "sidecar_control_snapshots_total", ("service",), "Memberships taken over from the registry."
)

# === process ===

LOOP_LAG: Final = _histogram(
    "sidecar_process_loop_lag_seconds", (), "How late the event loop ran a timer: what everything else waits for, too."
)
SHED_SHARE: Final = _gauge(
    "sidecar_process_shed_share", (), "The share of new RPCs that is refused because the event loop is late; 0 to 0.9."
)
BUFFERED: Final = _gauge("sidecar_process_buffered_bytes", (), "Octets on their way through, all streams together.")
RELOADS: Final = _counter("sidecar_config_reloads_total", ("result",), "Reloads of the configuration file.")
RELOAD_SUCCESS: Final = _gauge(
    "sidecar_config_last_reload_success", (), "0 after a reload that was refused; the former configuration stays."
)
BUILD: Final = _gauge(
    "sidecar_build_info",
    ("version", "python", "codec", "loop", "compiled"),
    "Always 1; the labels say what runs. `compiled` is yes or no.",
)

SECTIONS: Final[tuple[tuple[str, tuple[Metric, ...]], ...]] = (
    (
        "RPCs as the app saw them",
        (
            EXCHANGES_STARTED,
            EXCHANGES,
            EXCHANGE_DURATION,
            RETRIES,
            RETRIES_SUPPRESSED,
            HEDGE_WINS,
            HEDGES_SUPPRESSED,
            OVERSTAYS,
            REFUSALS,
            ROUTED,
            FAULTS,
            MIRRORED,
            QUEUED,
            PAYLOAD,
        ),
    ),
    (
        "Attempts as the endpoints saw them",
        (ATTEMPTS_STARTED, ATTEMPTS, ATTEMPT_DURATION, OUTCOMES, LOAD_REPORTS, CROSS_ZONE_ATTEMPTS, CROSS_ZONE_PAYLOAD),
    ),
    (
        "Connections",
        (
            UPSTREAM_CONNECTIONS,
            UPSTREAM_STREAMS,
            CONNECTS,
            CONNECT_FAILURES,
            DISCONNECTS,
            PING_TIMEOUTS,
            LISTENER_CONNECTIONS,
            LISTENER_ACCEPTED,
            LISTENER_REFUSED,
            LISTENER_PROTOCOL_ERRORS,
        ),
    ),
    (
        "Endpoints",
        (ENDPOINTS, PICKABLE, EJECTIONS, EJECTIONS_WITHHELD, HEALTH_CHECKS, FAILING_CHECK, CONCURRENCY_LIMIT),
    ),
    (
        "The registry",
        (
            DISCOVERED,
            DISCOVERY_AGE,
            REGISTRY_UP,
            REGISTRY_ERRORS,
            REGISTRATIONS,
            REGISTRATIONS_LOST,
            ANSWERS_HELD,
            KNOWN_LEADER,
            LAST_CONTACT,
            SNAPSHOTS,
        ),
    ),
    ("The process", (LOOP_LAG, SHED_SHARE, BUFFERED, RELOADS, RELOAD_SUCCESS, BUILD)),
)

CATALOGUE: Final[tuple[Metric, ...]] = tuple(metric for _, metrics in SECTIONS for metric in metrics)

_INTRODUCTION: Final = """\
# Metrics

`GET /metrics` on the admin address (and on `admin.probe_listen`, where that is set) answers in the Prometheus text
format. This page is made from `sidecar/telemetry/catalogue.py`.

* An RPC is counted twice: once as the app saw it (`exchange`) and once per try on an endpoint (`attempt`). A retry
  that rescued an RPC shows as a failed attempt and a successful exchange.
* Label values come from the configuration, from closed lists and from service names. No RPC can add a series.
* A counter labelled by reason, outcome, error, result or service has a series once that has happened.
* Histogram buckets are powers of two of a microsecond, from 64 us to 67 s, so that every bucket is an exact sum of the
  finer ones kept inside. The p50 and p99 of `/clusters` come from those and are at most 1/8 too high.
* Counters live as long as their upstream is configured: a reload that keeps an upstream keeps its counters.
* The standard `process_*` metrics (CPU seconds, memory, open files, start time) are there too.
"""


def to_markdown() -> str:
    """The text of docs/metrics.md."""
    lines = [_INTRODUCTION]
    for title, metrics in SECTIONS:
        lines += [f"## {title}", "", "| metric | type | labels | meaning |", "|---|---|---|---|"]
        for metric in metrics:
            labels = ", ".join(f"`{label}`" for label in metric.labels) or "-"
            lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.meaning} |")
        lines.append("")
    return "\n".join(lines)
