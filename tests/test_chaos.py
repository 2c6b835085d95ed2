"""The chaos harness: what it computes, that its caller and its instances do as they say, and a small run of a case."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from benchmarks.chaos import behaviour, fleet, ours, recording, report
from benchmarks.chaos.contender import Standing, View
from benchmarks.chaos.drive import Drive, Sight
from benchmarks.chaos.finding import SMOKE, Finding, Table
from benchmarks.chaos.fleet import GRPCLIB, KILLED, Instance
from benchmarks.chaos.one_instance import one_instance
from benchmarks.chaos.recording import INTERNAL, OK, UNAVAILABLE, Recording, Rpc
from benchmarks.stage import Stage

pytestmark = pytest.mark.once


def test_a_stretch_holds_what_departed_in_it() -> None:
    record = Recording([Rpc(2, 11.0, 0.3, UNAVAILABLE, "no"), Rpc(1, 10.0, 0.1, OK, ""), Rpc(3, 12.0, 0.2, OK, "")])
    stretch = record.stretch(10.0, 12.0)
    assert (stretch.count, stretch.failed, stretch.error_rate) == (2, 1, 0.5)
    assert (stretch.p50, stretch.p99) == (0.1, 0.3)
    assert [rpc.id for rpc in record.failures()] == [2]
    assert record.stretch(20.0, 30.0).error_rate == 0.0


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    rpcs = [Rpc(1, 10.0, 0.1, UNAVAILABLE, "gone")]
    recording.save(tmp_path / "record", rpcs)
    assert recording.load(tmp_path / "record").rpcs == rpcs


def test_a_sight_tells_when_an_endpoint_left_and_how_much_it_still_got() -> None:
    views = [
        View(True, "", 10),
        View(True, "dear", 14, avoided=True),
        View(False, "ejected", 15),
        View(True, "dear", 15, avoided=True),
        View(True, "", 15),
    ]
    sight = Sight([(float(at), {"a:1": view}) for at, view in enumerate(views)])
    assert sight.first_sent("a:1", after=0.0) == 1.0
    assert sight.first_sent("a:1", after=2.0) is None
    assert sight.first_avoided("a:1", after=0.5) == 0.5
    assert sight.first_out("a:1", after=0.5) == 1.5
    assert sight.first_back("a:1", after=2.0) == 2.0
    assert sight.first_out("a:1", after=3.0) is None
    assert sight.first_out("a:1", after=0.5, until=1.5) is None
    assert sight.attempts("a:1", 0.0, 2.0) == 5
    assert sight.reasons("a:1", 0.0, 4.0) == ["dear", "ejected"]


def test_a_broken_promise_is_seen_in_every_form_of_the_summary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(report, "DIRECTORY", tmp_path)
    finding = Finding("one", "One thing", [Table("One thing", ("who", "what"), [("a|b", "1")])])
    finding.claim("It holds", False, "3 of 4")
    assert "BROKEN  It holds: 3 of 4" in report.text(finding)
    page, data = report.write("x", report.Heading("now", "scripts/chaos", {"cpu": "Z80"}, {}, 1.0), [finding])
    assert "| It holds | **broken** | 3 of 4 |" in page.read_text()
    assert "| a\\|b | 1 |" in page.read_text()
    assert json.loads(data.read_text())["findings"][0]["claims"][0]["holds"] is False


def test_instances_fail_as_they_are_told_and_every_rpc_is_recorded() -> None:
    with Stage(fleet.everywhere()) as stage:
        plain, resetting = Instance(stage, 1), Instance(stage, 2, module=GRPCLIB)
        behind = {"to-plain": plain, "to-resetting": resetting}
        standings = [Standing(stage, ours.contender(name), [one.address]) for name, one in behind.items()]
        for waiting in (plain, resetting, *standings):
            waiting.wait()
        drive = Drive(stage, standings, rate=40, seconds=1.5)
        drive.look_until(drive.start_at + 0.5)
        plain.begin(behaviour.TRAILERS)
        resetting.begin(behaviour.RESET)
        drive.look_until(drive.start_at + 1.0)
        resetting.cease(behaviour.RESET)
        plain.cease(behaviour.TRAILERS)
        plain.begin(KILLED)
        records = drive.finish()
        executed = [id for _, id in plain.executions()]
    told = records["to-plain"].failures()
    assert len(records["to-plain"].rpcs) == len(records["to-resetting"].rpcs) == 60
    assert len(set(executed)) == len(executed) > 0
    assert {rpc.status for rpc in told} == {UNAVAILABLE}
    assert {INTERNAL} <= {rpc.status for rpc in records["to-resetting"].failures()}


def test_callers_that_wait_for_each_answer_have_so_many_rpcs_out_and_no_more() -> None:
    with Stage(fleet.everywhere()) as stage:
        instance = Instance(stage, 1, "--work=0.01")
        standing = Standing(stage, ours.contender(), [instance.address])
        for waiting in (instance, standing):
            waiting.wait()
        record = Drive(stage, [standing], 0.0, seconds=1.0, timeout=5.0, callers=4).finish()[standing.name]
    departures = [(rpc.planned_at, 1) for rpc in record.rpcs]
    ends = [(rpc.planned_at + rpc.took, -1) for rpc in record.rpcs]
    out = list(itertools.accumulate(step for _, step in sorted(departures + ends)))
    assert (max(out), out[-1]) == (4, 0)
    assert len({rpc.id for rpc in record.rpcs}) == len(record.rpcs) > 8
    assert record.failures() == []


def test_one_small_run_of_a_case_tells_what_the_caller_saw() -> None:
    finding = one_instance(SMOKE, [ours.contender()], [behaviour.TRAILERS])
    ((row),) = finding.tables[0].rows
    assert row[0] == "trailers, sidecar"
    assert [row[column].split()[2] for column in (1, 3, 5)] == ["30", "60", "30"]
