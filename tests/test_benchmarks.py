"""The harness's own arithmetic and the small HTTP/2 it speaks. Nothing here looks at a stopwatch.

Numbers of other programs (h2load, strace, callgrind, /proc) are read from texts as those programs write them.
"""

from __future__ import annotations

import json
import math
import platform
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import closedloop, gate, h2load, interleave, machine, report, strace
from benchmarks.accounting import (
    Foreign,
    ProcessTimes,
    Quiet,
    cpu_ns,
    family,
    parse_schedstat,
    parse_stat,
    parse_steal,
)
from benchmarks.backend import Body
from benchmarks.case import Case, Metric, Scale
from benchmarks.interleave import Rules
from benchmarks.process import Failed, Placement
from benchmarks.stage import UNARY, Stage
from benchmarks.stats import CLAIM, UNBOUNDED, Histogram, median, percentile, quotient, spread
from benchmarks.subject import DIRECT, Job, Subject, built_in
from benchmarks.wire import HEAD_SIZE, ReplyBlocks, RequestBlocks, grpc_message, probe

pytestmark = pytest.mark.once


# === statistics ===


def test_the_median_of_an_even_count_is_the_mean_of_the_middle_two() -> None:
    assert median([9.0, 1.0, 2.0, 4.0]) == 3.0
    assert median([9.0, 1.0, 2.0]) == 2.0


def test_a_percentile_is_a_value_that_occurred() -> None:
    values = [float(n) for n in range(1, 101)]
    assert percentile(values, 0.5) == 50.0
    assert percentile(values, 0.99) == 99.0
    assert percentile(values, 0.999) == 100.0
    assert percentile([7.0], 0.5) == 7.0


@pytest.mark.parametrize("function", [median, lambda values: percentile(values, 0.5)])
def test_nothing_has_no_middle(function: object) -> None:
    assert callable(function)
    with pytest.raises(ValueError, match="of nothing"):
        function([])


def test_the_interval_holds_the_median_and_is_the_same_every_time() -> None:
    rng = random.Random(3)
    values = [rng.gauss(0.8, 0.05) for _ in range(CLAIM)]
    one, again = spread(values), spread(values)
    assert one == again
    assert min(values) <= one.low <= one.median <= one.high <= max(values)
    assert one.median == median(values)


def test_a_verdict_needs_the_whole_interval_on_one_side_and_enough_rounds() -> None:
    assert spread([0.7, 0.8] * CLAIM).verdict == "less"
    assert spread([1.2, 1.3] * CLAIM).verdict == "more"
    assert spread([0.9, 1.1] * CLAIM).verdict == "undecided"
    assert spread([0.5] * (CLAIM - 1)).verdict == "too few"


def test_the_true_ratio_lies_in_nearly_every_interval() -> None:
    rng = random.Random(11)
    hits = 0
    for _ in range(100):
        interval = spread([rng.gauss(1.0, 0.1) for _ in range(15)])
        hits += interval.low <= 1.0 <= interval.high
    assert hits >= 88  # of 95 expected; the samples are the same in every run


def test_differences_are_compared_by_their_medians_because_single_ones_may_be_negative() -> None:
    pairs = [(10.0, 100.0), (20.0, 90.0), (-5.0, 110.0), (30.0, -1.0), (10.0, 100.0)]
    ratio = quotient(pairs)
    assert ratio is not None
    assert ratio.median == pytest.approx(0.1)
    assert ratio.low <= ratio.median <= ratio.high <= UNBOUNDED


def test_nothing_is_compared_with_a_difference_that_is_not_there() -> None:
    assert quotient([(10.0, -1.0), (10.0, 0.0), (10.0, 1.0)]) is None
    assert quotient([]) is None


@given(st.lists(st.integers(0, 10**10), min_size=1), st.floats(0.01, 1.0))
def test_a_histogram_is_never_off_by_more_than_one_part_in_128(values: list[int], share: float) -> None:
    histogram = Histogram()
    histogram.record(values)
    exact = percentile(sorted(float(value) for value in values), share)
    assert histogram.total == len(values)
    assert exact * (1 - 1 / 128) - 1 <= histogram.percentile(share) <= exact


@given(st.lists(st.integers(0, 10**9)), st.lists(st.integers(0, 10**9)))
def test_merged_histograms_count_as_if_one_had_seen_everything(left: list[int], right: list[int]) -> None:
    apart, together = Histogram(), Histogram()
    apart.record(left)
    other = Histogram()
    other.record(right)
    apart.merge(other)
    together.record(left + right)
    assert apart.counts == together.counts


# === accounting ===


def test_schedstat_gives_nanoseconds_on_a_cpu() -> None:
    assert parse_schedstat("138169258 3990481 84\n") == 138_169_258


def test_a_process_name_may_contain_spaces_and_parentheses() -> None:
    line = "4242 (a (b) c) S 17 4242 4242 0 -1 4194304 100 0 0 0 11 7 3 2 20 0 4 0 12345 0 0\n"
    assert parse_stat(line) == ProcessTimes(parent=17, ticks=11 + 7 + 3 + 2)


def test_steal_is_read_beside_the_total() -> None:
    assert parse_steal("cpu  100 1 50 800 9 0 10 30 5 5\n") == (30, 1000)


def test_a_family_is_a_process_with_all_its_descendants() -> None:
    table = {pid: ProcessTimes(parent, 0) for pid, parent in ((1, 0), (5, 1), (9, 5), (7, 9), (8, 1))}
    assert family(5, table) == {5, 9, 7}


def test_the_cpu_of_a_process_includes_its_threads_and_only_grows() -> None:
    before = cpu_ns(_own_pid())
    for _ in range(1000):
        if cpu_ns(_own_pid()) > before:
            return
    raise AssertionError("the clock of this process stands still")


def _own_pid() -> int:
    import os

    return os.getpid()


def test_a_run_beside_other_work_does_not_count() -> None:
    before = Foreign(ticks=1000, stolen=10, total=10_000)
    quiet = Quiet.between(before, Foreign(ticks=1001, stolen=10, total=10_200), seconds=1.0)
    busy = Quiet.between(before, Foreign(ticks=1050, stolen=10, total=10_200), seconds=1.0)
    stolen = Quiet.between(before, Foreign(ticks=1000, stolen=30, total=10_200), seconds=1.0)
    assert quiet.objection() is None
    assert busy.objection() == "other processes used 0.50 CPUs"
    assert stolen.objection() == "the hypervisor took 10%"


# === what other programs report ===

H2LOAD = """
finished in 286.27ms, 174663.34 req/s, 17.82MB/s
requests: 50000 total, 50000 started, 50000 done, 49999 succeeded, 1 failed, 0 errored, 0 timeout
status codes: 49999 2xx, 0 3xx, 0 4xx, 1 5xx
traffic: 5.10MB (5350476) total, 146.73KB (150248) headers (space savings 96.29%), 3.62MB (3800000) data
"""

STRACE = """% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.55    0.060000          15      4000           write
 30.10    0.030000           7      4002         1 read
  9.35    0.010000           2      4100           epoll_pwait
------ ----------- ----------- --------- --------- ----------------
100.00    0.100000           8     12102         1 total
"""


def test_the_report_of_h2load_is_read_strictly() -> None:
    outcome = h2load.parse(H2LOAD)
    assert outcome.seconds == pytest.approx(0.28627)
    assert (outcome.requests, outcome.succeeded, outcome.failed, outcome.body_octets) == (50_000, 49_999, 1, 3_800_000)
    assert outcome.pace == pytest.approx(0.28627 / 50_000)


@pytest.mark.parametrize("unit, seconds", [("12us", 12e-6), ("1.50s", 1.5), ("2m", 120.0)])
def test_h2load_writes_durations_in_four_units(unit: str, seconds: float) -> None:
    assert h2load.parse(H2LOAD.replace("286.27ms", unit)).seconds == pytest.approx(seconds)


def test_a_report_that_lacks_a_line_is_no_report() -> None:
    with pytest.raises(Failed, match="not understood"):
        h2load.parse(H2LOAD.replace("traffic", "tariff"))


def test_strace_counts_calls_whether_or_not_some_failed() -> None:
    calls = strace.parse(STRACE)
    assert calls == {"write": 4000, "read": 4002, "epoll_pwait": 4100}
    assert calls.total() == 12_102


def test_callgrind_states_a_total() -> None:
    assert gate.parse_callgrind("version: 1\nsummary: 914121\n\ntotals: 914121\n") == 914_121
    with pytest.raises(Failed, match="no total"):
        gate.parse_callgrind("version: 1\n")


# === the gate ===


def test_the_gate_complains_above_its_tolerance_and_not_below() -> None:
    limits = {"native.syscalls_lone": 6.0}
    assert gate.complaints("native", {"syscalls_lone": 6.1}, limits) == []
    (complaint,) = gate.complaints("native", {"syscalls_lone": 7.0}, limits)
    assert complaint.startswith("syscalls_lone of the native codec is 7.000 per RPC; the limit is 6.000")


def test_a_count_without_a_limit_is_not_judged() -> None:
    assert gate.complaints("native", {"instructions_lone": 1e9}, {"native.syscalls_lone": 6.0}) == []


def test_the_committed_limits_belong_to_gauges() -> None:
    limits = json.loads(gate.LIMITS.read_text())
    names = {gauge.name for gauge in gate.GAUGES}
    assert limits
    assert {key.split(".")[1] for key in limits} <= names
    assert {key.split(".")[0] for key in limits} <= {"native", "reference"}


# === who is measured ===


def test_another_checkout_is_measured_by_its_own_program(tmp_path: Path) -> None:
    assert "scripts/venv" in (built_in(tmp_path).missing() or "")
    program = tmp_path / ".venv-3.13" / "bin" / "sidecar"
    program.parent.mkdir(parents=True)
    program.touch()
    before = built_in(tmp_path)
    assert before.missing() is None
    command = before.command(Job(1, [("127.0.0.1", 2)], 3, tmp_path), str(before.program()))
    assert command[:2] == [str(program), "run"]


# === the order of runs ===


def _case(outcomes: Iterator[dict[str, float] | Failed], seen: list[str], **more: object) -> Case:
    def run(stage: Stage, subject: Subject) -> dict[str, float]:
        seen.append(subject.name)
        outcome = next(outcomes)
        if isinstance(outcome, Failed):
            raise outcome
        return outcome

    metrics = (Metric("cpu", "us", "CPU"), Metric("added_cpu", "us", "CPU", difference=True))
    return Case("mode", "case", metrics, run, **more)  # type: ignore[arg-type]


def _cpu(*values: float) -> Iterator[dict[str, float]]:
    return iter([{"cpu": value} for value in values])


def _silent(line: str) -> None:
    pass


QUIETLY = Rules(pairs=2, keep_noisy=True)


def test_pairs_alternate_their_order_and_never_mix_two_peers() -> None:
    seen: list[str] = []
    case = _case(_cpu(*[1.0] * 8), seen)
    interleave.measure(case, "nghttpx", ["envoy", "haproxy"], QUIETLY, _silent)
    assert seen == ["nghttpx", "envoy", "envoy", "nghttpx", "nghttpx", "haproxy", "haproxy", "nghttpx"]


def test_ratios_are_taken_within_a_round_only() -> None:
    case = _case(_cpu(1.0, 2.0, 8.0, 2.0), [])
    result = interleave.measure(case, "nghttpx", ["envoy"], QUIETLY, _silent)
    ratio = result.ratio("envoy", case.metrics[0])
    assert ratio is not None
    assert (ratio.minimum, ratio.maximum) == (0.25, 0.5)  # 1:2, and 2:8 in the round that ran the other way round


def test_what_a_hop_adds_is_the_difference_to_the_run_without_one() -> None:
    case = _case(_cpu(100.0, 130.0, 160.0), [], paired=False, direct=True, added=("cpu",))
    result = interleave.measure(case, "nghttpx", ["envoy"], Rules(pairs=1, keep_noisy=True), _silent)
    assert result.values("nghttpx", "added_cpu") == [30.0]
    ratio = result.ratio("envoy", case.metrics[1])
    assert ratio is not None
    assert ratio.median == 0.5
    assert "envoy" in report.text([result])
    assert DIRECT.name not in {row[0] for row in report.rows(result, case.metrics[1])}


def test_a_subject_that_fails_twice_is_left_out_and_the_others_go_on() -> None:
    no, yes = Failed("no"), {"cpu": 1.0}
    seen: list[str] = []
    case = _case(iter([yes, no, yes, yes, no, yes, yes, yes, yes, yes]), seen, paired=False)
    result = interleave.measure(case, "nghttpx", ["envoy", "nginx"], Rules(pairs=2, keep_noisy=True), _silent)
    assert seen == ["nghttpx", "envoy", "nginx", "nginx", "envoy", "nghttpx", "nghttpx", "nginx", "nginx", "nghttpx"]
    assert result.failures == {"envoy": "no"}


def test_a_case_ends_when_a_peer_cannot_do_it() -> None:
    outcomes = iter([{"cpu": 1.0}, Failed("no"), Failed("no"), {"cpu": 1.0}])
    case = _case(outcomes, [])
    result = interleave.measure(case, "nghttpx", ["envoy"], Rules(pairs=9, keep_noisy=True), _silent)
    assert result.failures == {"envoy": "no"}
    assert "envoy is left out: no" in report.text([result])


def test_a_result_names_the_distribution_and_the_build_of_the_interpreter() -> None:
    described = machine.describe()
    assert described["system"] == platform.freedesktop_os_release()["PRETTY_NAME"]
    assert described["python"].startswith(f"{platform.python_version()} ({platform.python_compiler()}, ")
    shared = subprocess.run(["ldd", sys.executable], capture_output=True, text=True, check=True).stdout
    assert described["python"].endswith("shared library)" if "libpython" in shared else "static)")


def test_a_noisy_machine_is_tried_twice_as_often_and_no_more() -> None:
    seen: list[str] = []

    def run(stage: Stage, subject: Subject) -> dict[str, float]:
        seen.append(subject.name)
        with stage.measured() as reading:
            reading.excuse = "a brass band passed"
        return {"cpu": 1.0}

    case = Case("mode", "case", (Metric("cpu", "us", "CPU"),), run)
    result = interleave.measure(case, "nghttpx", ["envoy"], Rules(pairs=3), _silent)
    assert len(seen) == 2 * 2 * 3
    assert result.dropped == 6
    assert result.spread("nghttpx", "cpu") is None
    assert "6 of 6 rounds do not count" in report.text([result])


def test_what_costs_much_is_made_less_often() -> None:
    assert Scale().within(50_000, pace=1e-5) == 50_000
    assert Scale().within(50_000, pace=1e-3, seconds=12) == 12_000
    assert Scale(quick=True).within(50_000, pace=1e-3, seconds=12) == 4_000
    assert Scale().within(50_000, pace=1.0) == 1_000


def test_a_result_is_written_as_json_and_markdown(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(report, "DIRECTORY", tmp_path)
    result = interleave.measure(_case(_cpu(1.0, 2.0, 2.0, 1.0), []), "nghttpx", ["envoy"], QUIETLY, _silent)
    heading = report.Heading("2026-01-01 00:00", "scripts/bench saturated", {"cpu": "2 x Z80"}, {"nghttpx": "1"}, [])
    page, data = report.write("one", heading, [result])
    document = json.loads(data.read_text())
    assert document["results"][0]["metrics"]["cpu"]["ratios"]["envoy"]["median"] == 0.5
    assert "| nghttpx | 1 |" in page.read_text()
    assert "2 x Z80" in page.read_text()


@pytest.mark.parametrize("value, words", [(1234567.0, "1,234,567"), (123.4, "123"), (12.34, "12.3"), (0.1234, "0.123")])
def test_three_digits_are_enough(value: float, words: str) -> None:
    assert report.number(value) == words


# === the small HTTP/2 ===


@given(st.lists(st.sampled_from(["reply", "forget"]), max_size=12), st.booleans())
def test_a_decoder_understands_every_order_of_replies(steps: list[str], early: bool) -> None:
    decoder = hpack.Decoder()
    decoder.max_allowed_table_size = 4096
    blocks = ReplyBlocks()
    head = [(":status", "200"), ("content-type", "application/grpc")]
    head.append(("grpc-accept-encoding", "identity, deflate, gzip"))
    for step in steps:
        if step == "forget" and early:
            blocks.forget()
            decoder.max_allowed_table_size = 0
        else:
            assert decoder.decode(blocks.head(1)[HEAD_SIZE:]) == head
            if step == "forget":
                blocks.forget()
                decoder.max_allowed_table_size = 0
            assert decoder.decode(blocks.trailers(1)[HEAD_SIZE:]) == [("grpc-status", "0")]


def test_the_second_request_says_the_same_as_the_first_in_seven_octets() -> None:
    decoder = hpack.Decoder()
    blocks = RequestBlocks(b"127.0.0.1:50051")
    first = decoder.decode(blocks.first)
    assert (":path", "/helloworld.Greeter/SayHello") in first
    assert ("te", "trailers") in first
    assert decoder.decode(blocks.others) == first
    assert len(blocks.others) == 7


@pytest.mark.parametrize("size", [76, 65_536, 131_072, 1_048_576, 4_194_309])
def test_a_reply_is_whole_grpc_messages_however_it_is_cut(size: int) -> None:
    body = Body(size)
    octets = b"".join(bytes(body.cut(at, min(16_384, size - at))) for at in range(0, size, 16_384))
    assert len(octets) == size
    assert octets == grpc_message(body.cycle) * math.ceil(size / body.cycle)


@pytest.mark.parametrize("reply", [UNARY, 300_000, 8 * 65_536])
def test_the_backend_answers_every_rpc_whole(reply: int) -> None:
    with Stage(Placement.apart()) as stage:
        (first, *_, last) = stage.backend(3, reply=reply)
        assert probe(first) == reply
        assert probe(last) == reply
        with closedloop.connected(first, 2, reply=reply) as connections:
            closedloop.run(connections, 40, 5)


def test_the_backend_holds_streams_open_for_the_delay() -> None:
    with Stage(Placement.apart()) as stage:
        (address,) = stage.backend(delay=0.2)
        with closedloop.connected(address, 1) as connections:
            closedloop.run(connections, 50, 50)
        assert connections[0].next_stream == 1 + 2 * 51
