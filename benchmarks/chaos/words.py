"""Case `words`: what the sidecar says names the upstream, the reason and the attempts, and /clusters why one is out.

Each way to fail has a sidecar and an instance of its own, so that what is said has one cause.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from benchmarks.chaos import behaviour, fleet, ours
from benchmarks.chaos.contender import SERVICE, Standing
from benchmarks.chaos.drive import Drive
from benchmarks.chaos.finding import Finding, Scale, Table
from benchmarks.chaos.fleet import DROPPED, GRPCIO, GRPCLIB, KILLED, Instance
from benchmarks.stage import Stage

OURS = "sidecar: "  # how it marks what it says itself; other texts are the instance's
SENTENCE = re.compile(rf"{OURS}{SERVICE}: (?P<reason>.+); attempts: \d+")
RATE, SECONDS = 20.0, 2.0  # whatever the scale
SHOWN = 2  # texts of one kind in the table


@dataclass(frozen=True)
class Provocation:
    """A way to make the sidecar speak. `out`: the endpoint is expected to leave the picks."""

    name: str
    fault: str
    module: str = GRPCIO
    out: bool = False
    upstream: dict[str, Any] = field(default_factory=dict)


PROVOCATIONS = (
    Provocation("no answer before the deadline", behaviour.HANG),
    Provocation("too many in flight", behaviour.HANG, upstream={"limits": {"max_in_flight": 1}}),
    Provocation("streams reset", behaviour.RESET, module=GRPCLIB),
    Provocation("killed", KILLED, out=True, upstream={"limits": {"queue_timeout": "300ms"}}),
    Provocation("packets dropped", DROPPED),
)


def words(scale: Scale) -> Finding:
    """Texts to the caller and reasons in /clusters, by provocation; only numbers differ between texts of one kind."""
    finding = Finding("words", "What failures and /clusters say")
    rows: list[tuple[str, ...]] = []
    texts: list[str] = []
    for provocation, said, reasons in _provoke():
        texts += said
        rows += [(provocation.name, "the caller", text) for text in said[:SHOWN]]
        rows += [(provocation.name, "/clusters", reason) for reason in reasons[:SHOWN]]
        if provocation.out:
            told = bool(reasons) and all(reasons)
            finding.claim(f"/clusters says why the instance is out ({provocation.name})", told, "; ".join(reasons[:1]))
    finding.tables.append(Table(finding.title, ("what happens", "who is told", "what"), rows))
    vague = [text for text in texts if not SENTENCE.fullmatch(text)]
    finding.claim(
        "Every failure that the sidecar makes names the upstream, the reason and the attempts",
        not vague and bool(texts),
        vague[0] if vague else f"{len(texts)} different texts",
    )
    return finding


def _provoke() -> list[tuple[Provocation, list[str], list[str]]]:
    """All provocations at once: the texts and the reasons of each."""
    with Stage(fleet.everywhere()) as stage:
        instances = [Instance(stage, number + 1, module=one.module) for number, one in enumerate(PROVOCATIONS)]
        standings = [
            Standing(stage, ours.contender(provocation.name, **provocation.upstream), [instance.address])
            for provocation, instance in zip(PROVOCATIONS, instances, strict=True)
        ]
        for waiting in (*instances, *standings):
            waiting.wait()
        drive = Drive(stage, standings, RATE, SECONDS)
        drive.look_until(drive.start_at + 0.2)
        for provocation, instance in zip(PROVOCATIONS, instances, strict=True):
            instance.begin(provocation.fault)
        records = drive.finish()
        for provocation, instance in zip(PROVOCATIONS, instances, strict=True):
            instance.cease(provocation.fault)
    found = []
    for provocation, instance in zip(PROVOCATIONS, instances, strict=True):
        texts = [rpc.text for rpc in records[provocation.name].failures() if rpc.text.startswith(OURS)]
        kinds = {re.sub(r"\d+", "#", text): text for text in texts}
        sight = drive.sights[provocation.name]
        found.append((provocation, list(kinds.values()), sight.reasons(instance.target, drive.start_at, drive.end_at)))
    return found
