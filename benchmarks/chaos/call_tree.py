"""Case `tree`: four services in a row, each called through the caller's own proxy with retries on; the last one fails.

Three attempts at every hop would make 81 executions of one RPC. What is counted is executions at the last service for
each RPC offered to the first. The services between pass on the status of a failed call and nothing else. Two trees
without the throttle show what the rest is worth: the budgets, and the trailer in which a sidecar says that the retries
are spent, where the services pass that on as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.chaos import behaviour, envoy, fleet, ours
from benchmarks.chaos.contender import Contender, Standing
from benchmarks.chaos.drive import Drive
from benchmarks.chaos.finding import Finding, Scale, Table, percent
from benchmarks.chaos.fleet import Instance
from benchmarks.chaos.recording import Stretch
from benchmarks.stage import Stage

HOPS = 4
REACHED = 0.95  # executions at the last service per RPC: with fewer, the machine was too busy to show anything
RATE, SECONDS = 40.0, 6.0  # whatever the scale: of 180 RPCs a fifth are the nine retries that each hop's tokens allow
SHIPPED = ours.contender("sidecar", **ours.IDEMPOTENT)
ENVOY = envoy.contender("envoy", retries=True)
BUDGETS = ours.contender("sidecar, throttle off", **ours.IDEMPOTENT, **ours.UNTHROTTLED)
PUSHBACK = ours.contender("sidecar, throttle off, pushback passed on", **ours.IDEMPOTENT, **ours.UNTHROTTLED)
TREES: tuple[tuple[Contender, tuple[str, ...]], ...] = (
    (SHIPPED, ()),
    (ENVOY, ()),
    (BUDGETS, ()),
    (PUSHBACK, ("--passes-pushback-on",)),
)
QUICK_TREES = TREES[:1]


@dataclass
class Tree:
    """The services and the proxies in front of them, the first hop's first."""

    contender: Contender
    services: list[Instance]
    standings: list[Standing]


def call_tree(scale: Scale) -> Finding:
    """One tree after the other: each is eight processes that must not wait for a CPU."""
    finding = Finding("tree", f"A call tree of {HOPS} hops whose last service fails, retries on at every hop")
    rows = []
    for contender, options in QUICK_TREES if scale.quick else TREES:
        name = contender.name
        offered, ratios = _shake(contender, options, scale)
        rows.append((name, str(offered.count), *(f"{ratio:.2f}" for ratio in ratios), percent(offered.error_rate)))
        if contender is SHIPPED:
            sentence = f"At most {ours.LIMIT} executions at the last service per RPC offered"
            finding.claim(sentence, REACHED <= ratios[-1] <= ours.LIMIT, f"{ratios[-1]:.2f}")
    headings = ("proxy", "offered", *(f"at service {hop + 1}" for hop in range(HOPS)), "errors")
    finding.tables.append(Table(finding.title, headings, rows))
    return finding


def _shake(contender: Contender, options: Sequence[str], scale: Scale) -> tuple[Stretch, list[float]]:
    """What was offered while the last service failed, and the executions at each service per RPC of it."""
    with Stage(fleet.everywhere()) as stage:
        tree = _grow(stage, contender, *options)
        for waiting in (*tree.services, *tree.standings):
            waiting.wait()
        drive = Drive(stage, tree.standings[:1], RATE, scale.before + SECONDS, timeout=3.0)
        begin = drive.start_at + scale.before
        drive.look_until(begin)
        tree.services[-1].begin(behaviour.TRAILERS_ONLY)
        offered = drive.finish()[contender.name].stretch(begin)
        counts = [sum(at >= begin for at, _ in service.executions()) for service in tree.services]
    return offered, [count / max(1, offered.count) for count in counts]


def _grow(stage: Stage, contender: Contender, *options: str) -> Tree:
    tree = Tree(contender, [], [])
    planted = sum(process.name == fleet.GRPCIO for process in stage.processes)
    for hop in reversed(range(HOPS)):
        following = [f"--next=127.0.0.1:{tree.standings[0].port}"] if tree.standings else []
        tree.services.insert(0, Instance(stage, planted + hop + 1, *following, *options))
        tree.standings.insert(0, Standing(stage, contender, [tree.services[0].address]))
    return tree
