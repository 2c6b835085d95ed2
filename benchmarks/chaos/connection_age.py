"""Case `age`: servers that end every connection after one second, at full load; no RPC may fail (RL-12).

The callers wait for each answer and then call again, so that the load is what the machine takes. One proxy after the
other: the sidecar for as long as the promise says, Envoy long enough to be seen.
"""

from __future__ import annotations

from benchmarks.chaos import envoy, fleet, ours
from benchmarks.chaos.contender import Contender, Standing
from benchmarks.chaos.drive import Drive
from benchmarks.chaos.finding import Finding, Scale, Table, milliseconds, percent
from benchmarks.chaos.recording import Recording
from benchmarks.stage import Stage

INSTANCES = 5
MAX_AGE = 1000  # milliseconds; grpcio spreads it by 10 %
CALLERS = 32
SIDECAR, ENVOY = ours.contender("sidecar"), envoy.contender("envoy", retries=False)
SECONDS = {"sidecar": 120.0, "envoy": 20.0}
QUICK_SECONDS = {"sidecar": 6.0, "envoy": 3.0}


def connection_age(scale: Scale) -> Finding:
    """Without retries but the transparent ones."""
    finding = Finding("age", f"Servers with max_connection_age 1 s, {CALLERS} callers at full load")
    rows = []
    for contender in (SIDECAR, ENVOY):
        duration = (QUICK_SECONDS if scale.quick else SECONDS)[contender.name]
        record, connections = _load(contender, duration)
        whole = record.stretch()
        rows.append(
            (
                contender.name,
                f"{duration:.0f} s",
                f"{whole.count} ({whole.count / duration:.0f}/s)",
                f"{whole.failed} ({percent(whole.error_rate)})",
                milliseconds(whole.p50),
                milliseconds(whole.p99),
                connections,
            )
        )
        if contender.ours:
            words = sorted({rpc.text for rpc in record.failures()})
            finding.claim(
                f"No RPC of {duration:.0f} s fails while every connection is told to go each second",
                not whole.failed,
                f"{whole.failed} of {whole.count} failed" + "".join(f"; {text}" for text in words[:3]),
            )
    headings = ("proxy", "load", "RPCs", "failed", "p50", "p99", "connections that went")
    finding.tables.append(Table(finding.title, headings, rows))
    return finding


def _load(contender: Contender, seconds: float) -> tuple[Recording, str]:
    """What the callers saw, and how many upstream connections ended meanwhile, where the proxy counts them."""
    with Stage(fleet.everywhere()) as stage:
        instances = fleet.start(stage, INSTANCES, f"--max-age={MAX_AGE}")
        standing = Standing(stage, contender, fleet.addresses(instances))
        standing.wait()
        record = Drive(stage, [standing], 0.0, seconds, timeout=5.0, callers=CALLERS).finish()[contender.name]
        ended = f"{standing.metric('sidecar_proxy_disconnects_total'):.0f}" if contender.ours else "-"
    return record, ended
