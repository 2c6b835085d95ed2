"""`python -m benchmarks [mode ...]`: verify every subject, run the modes, print and write the results."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable

from benchmarks import bulk, clients, footprint, growth, h2load, machine, rate, report, unary
from benchmarks.accounting import open_many_files
from benchmarks.case import Case, Scale
from benchmarks.interleave import Result, Rules, measure
from benchmarks.subject import PEERS, SUBJECTS
from benchmarks.verify import verify

MODES: dict[str, Callable[[Scale], list[Case]]] = {
    "same": unary.same,
    "saturated": unary.saturated,
    "lone": unary.lone,
    "rate": rate.rate,
    "bulk": bulk.bulk,
    "growth": growth.growth,
    "memory": footprint.memory,
    "start": footprint.start,
    "syscalls": footprint.syscalls,
    "grpc": clients.grpc,
}


def say(line: str) -> None:
    """A line of progress, at once."""
    print(line, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("modes", nargs="*", metavar="mode", help=f"of {', '.join(MODES)}; all of them if none is named")
    parser.add_argument("--quick", action="store_true", help="a look in under two minutes; proves nothing")
    parser.add_argument("--pairs", type=int, help="rounds per comparison: 9, or 2 with --quick")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"of {', '.join(SUBJECTS)}")
    parser.add_argument("--codec", choices=("native", "reference"), help="the sidecar's codec, instead of its default")
    parser.add_argument("--baseline", help="what the peers are compared with, instead of the sidecar")
    parser.add_argument("--keep-noisy", action="store_true", help="let rounds count in which the machine was not quiet")
    parser.add_argument("--skip-verify", action="store_true", help="take correctness on trust (while developing)")
    parser.add_argument("--name", help="of the files in benchmarks/results; `none` writes none")
    options = parser.parse_args()
    unknown = [mode for mode in options.modes if mode not in MODES]
    unknown += [name for name in options.peers.split(",") if name and name not in SUBJECTS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    return options


def able(names: list[str], skip_verify: bool, notes: list[str]) -> list[str]:
    """The subjects that are installed and right. The others are named, with what to install."""
    found = []
    for name in names:
        objection = SUBJECTS[name].missing()
        if objection is None and not skip_verify:
            objection = verify(SUBJECTS[name])
            if objection:
                objection = f"{name} fails the verification with a real gRPC client: {objection}"
        if objection:
            notes.append(objection)
            say(objection)
        else:
            found.append(name)
    return found


def main() -> int:
    options = arguments()
    if shutil.which("h2load") is None:
        say(h2load.MISSING)
        return 1
    open_many_files()
    scale = Scale(options.quick)
    rules = Rules(options.pairs or scale.of(9, 2), options.keep_noisy)
    baseline = options.baseline or (f"sidecar-{options.codec}" if options.codec else "sidecar")
    peers = [name for name in options.peers.split(",") if name and name != baseline]
    notes: list[str] = []
    started = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    subjects = able([baseline, *peers], options.skip_verify, notes)
    if not subjects:
        return 1
    if baseline not in subjects:
        notes.append(f"{baseline} cannot be measured; the peers are compared with {subjects[0]}.")
        say(notes[-1])
    baseline = subjects[0]
    results: list[Result] = []
    for mode in options.modes or MODES:
        for case in MODES[mode](scale):
            results.append(measure(case, baseline, subjects[1:], rules, say))
            say(report.text(results[-1:]) + "\n")
    heading = report.Heading(
        started, "scripts/bench " + " ".join(sys.argv[1:]), machine.describe(), machine.versions(subjects), notes
    )
    name = options.name or f"{started[:10]}-{'-'.join(options.modes) or 'all'}{'-quick' * options.quick}"
    if name != "none":
        for path in report.write(name, heading, results):
            say(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
