"""`python -m benchmarks.chaos [case ...]`: break instances under load, print what callers saw, judge the promises.

The exit code is 0 only if every promise held for the sidecar; the peer's figures are reported.
"""

from __future__ import annotations

import argparse
import sys
import time

from benchmarks import machine
from benchmarks.chaos import report
from benchmarks.chaos.call_tree import call_tree
from benchmarks.chaos.connection_age import connection_age
from benchmarks.chaos.duplicate import duplicate
from benchmarks.chaos.finding import FULL, QUICK, Case, Finding
from benchmarks.chaos.going_away import going_away
from benchmarks.chaos.hedging import hedging
from benchmarks.chaos.one_instance import one_instance
from benchmarks.chaos.outage import outage
from benchmarks.chaos.slow_instance import slow_instance
from benchmarks.chaos.words import words
from benchmarks.process import Failed
from benchmarks.subject import SUBJECTS

CASES: dict[str, Case] = {
    "instance": one_instance,
    "outage": outage,
    "tree": call_tree,
    "slow": slow_instance,
    "goaway": going_away,
    "age": connection_age,
    "twice": duplicate,
    "hedge": hedging,
    "words": words,
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="case", help=f"of {', '.join(CASES)}; all of them if none is named")
    parser.add_argument("--quick", action="store_true", help="a look in under three minutes")
    parser.add_argument("--name", help="of the files in benchmarks/results; `none` writes none")
    options = parser.parse_args()
    options.cases = options.cases or list(CASES)
    unknown = [name for name in options.cases if name not in CASES]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    return options


def main() -> int:
    options = arguments()
    scale = QUICK if options.quick else FULL
    if stale := machine.stale_extensions():
        print(stale, flush=True)
    if missing := SUBJECTS["envoy"].missing():
        print(missing, file=sys.stderr)
        return 1
    started, began = time.strftime("%Y-%m-%d %H:%M", time.gmtime()), time.monotonic()
    findings: list[Finding] = []
    for name in options.cases:
        try:
            finding = CASES[name](scale)
        except Failed as failure:
            finding = Finding(name, f"The case `{name}` could not be run")
            finding.claim("The case can be run", False, str(failure))
        findings.append(finding)
        print(report.text(finding) + "\n", flush=True)
    heading = report.Heading(
        started,
        " ".join(["scripts/chaos", *sys.argv[1:]]),
        machine.describe(),
        machine.versions(["sidecar", "envoy"]),
        time.monotonic() - began,
    )
    name = options.name or ("chaos-quick" if options.quick else "chaos")
    if name != "none":
        for path in report.write(name, heading, findings):
            print(f"written: {path}")
    broken = [claim for finding in findings for claim in finding.claims if not claim.holds]
    print(f"{len(broken)} promises are broken." if broken else "Every promise holds.")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
