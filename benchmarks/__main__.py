"""`python -m benchmarks [mode ...]`: verify every subject, run the modes, print and write the results."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks import bulk, clients, footprint, growth, h2load, machine, rate, report, unary
from benchmarks.accounting import open_many_files
from benchmarks.case import Case, Scale
from benchmarks.interleave import Result, Rules, measure
from benchmarks.subject import PEERS, QUICK_PEERS, SUBJECTS, built_in, sidecars
from benchmarks.verify import verify

MODES: dict[str, Callable[[Scale], list[Case]]] = {
    "same": unary.same,
    "saturated": unary.saturated,
    "lone": unary.lone,
    "balancer": unary.own_balancer,
    "rate": rate.rate,
    "bulk": bulk.bulk,
    "growth": growth.growth,
    "memory": footprint.memory,
    "start": footprint.start,
    "syscalls": footprint.syscalls,
    "grpc": clients.grpc,
}


LONG = ("same", "balancer")  # left out of a quick look unless named


def say(line: str) -> None:
    """A line of progress, at once."""
    print(line, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("modes", nargs="*", metavar="mode", help=f"of {', '.join(MODES)}; all of them if none is named")
    parser.add_argument("--quick", action="store_true", help="a look in under two minutes; proves nothing")
    parser.add_argument("--pairs", type=int, help="rounds per comparison: 9, or 1 with --quick")
    parser.add_argument("--peers", help=f"{', '.join(PEERS)} (the default), ...; fewer with --quick")
    parser.add_argument("--codec", choices=("native", "reference"), help="the sidecar's codec, instead of its default")
    parser.add_argument("--case", default="", help="only the cases whose names begin like this")
    parser.add_argument("--baseline", default="sidecar", help="whom the peers are compared with")
    parser.add_argument("--before", type=Path, metavar="DIR", help="compare with the sidecar of another checkout, only")
    parser.add_argument("--keep-noisy", action="store_true", help="let rounds count in which the machine was not quiet")
    parser.add_argument("--skip-verify", action="store_true", help="take correctness on trust (while developing)")
    parser.add_argument("--name", help="of the files in benchmarks/results; `none` writes none")
    options = parser.parse_args()
    if options.before:
        SUBJECTS["before"] = built_in(options.before)
        options.peers = options.peers or "before"
    options.peers = options.peers.split(",") if options.peers else list(QUICK_PEERS if options.quick else PEERS)
    options.modes = options.modes or [mode for mode in MODES if not (options.quick and mode in LONG)]
    unknown = [mode for mode in options.modes if mode not in MODES]
    unknown += [name for name in (options.baseline, *options.peers) if name not in SUBJECTS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    return options


def names(case: Case, baseline: str, peers: list[str]) -> list[str]:
    """The subjects of one case, its baseline first."""
    return list(dict.fromkeys([case.baseline or baseline, *(peers if case.peers is None else case.peers)]))


def able(subjects: Iterable[str], skip_verify: bool, notes: list[str]) -> set[str]:
    """The subjects that are installed and right. The others are named, with what to install."""
    found = set()
    for name in dict.fromkeys(subjects):
        objection = SUBJECTS[name].missing()
        if objection is None and not skip_verify:
            wrong = verify(SUBJECTS[name])
            objection = wrong and f"{name} fails the verification with a real gRPC client: {wrong}"
        if objection:
            notes.append(objection)
            say(objection)
        else:
            found.add(name)
    return found


def run(cases: list[Case], options: argparse.Namespace, rules: Rules, able: set[str]) -> list[Result]:
    """Every case with the subjects that can. Without its baseline, the first of the others takes that place."""
    results = []
    for case in cases:
        left = [name for name in names(case, options.baseline, options.peers) if name in able]
        if not left:
            say(f"{case.mode} {case.name}: none of its subjects can be measured")
            continue
        results.append(measure(case, left[0], left[1:], rules, say))
        say(report.text(results[-1:]) + "\n")
    return results


def main() -> int:
    options = arguments()
    if shutil.which("h2load") is None:
        say(h2load.MISSING)
        return 1
    open_many_files()
    if options.codec:
        SUBJECTS.update(sidecars(options.codec))
    scale = Scale(options.quick)
    rules = Rules(options.pairs or scale.of(9, 1), options.keep_noisy, in_pairs=not options.quick)
    cases = [case for mode in options.modes for case in MODES[mode](scale) if case.name.startswith(options.case)]
    notes: list[str] = []
    if stale := machine.stale_extensions():
        notes.append(stale)
        say(stale)
    started = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    everyone = (name for case in cases for name in names(case, options.baseline, options.peers))
    subjects = able(everyone, options.skip_verify, notes)
    results = run(cases, options, rules, subjects)
    heading = report.Heading(
        started,
        " ".join(["scripts/bench", *sys.argv[1:]]),
        machine.describe(),
        machine.versions(sorted(subjects)),
        notes,
    )
    modes = "-".join(options.modes) if len(options.modes) < len(MODES) - 1 else "all"
    name = options.name or f"{started[:10]}-{modes}{'-quick' * options.quick}"
    if name != "none":
        for path in report.write(name, heading, results):
            say(f"written: {path}")
    return 0 if results else 1


if __name__ == "__main__":
    sys.exit(main())
