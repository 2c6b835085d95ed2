"""The rules of accounting: what excuses a lost RPC, and what does not."""

from __future__ import annotations

import pytest

from sidecar.demo.ledger import NOTICE, Failure, Kill, Ledger
from sidecar.demo.main import FAILED, INTERRUPTED, OK, exit_code
from sidecar.demo.script import closing

ADDRESS = "127.0.0.1:2345"
LOST = f"sidecar: greeter: lost {ADDRESS} before it answered; the RPC may have run: closed; attempts: 1"
KILLED_AT, OUT_AT = 10.0, 10.005


def kill(in_flight: int = 1, sent_during: int = 0) -> Kill:
    return Kill("greeter-2", ADDRESS, KILLED_AT, in_flight, OUT_AT, sent_during)


def failure(sent_at: float = 9.99, ended_at: float = 10.004, status: str = "UNAVAILABLE", text: str = LOST) -> Failure:
    return Failure(sent_at, ended_at, status, text)


def ledger(*failures: Failure, kills: list[Kill] | None = None, answered: int = 100) -> Ledger:
    lost = list(failures)
    return Ledger(answered + len(lost), answered, lost, [kill()] if kills is None else kills)


def test_a_record_without_failures_is_clean() -> None:
    verdict = ledger().judge(counted=100)
    assert verdict.clean
    assert verdict.excused == {}


def test_an_rpc_that_was_on_the_killed_instance_is_excused() -> None:
    books = ledger(failure())
    assert books.judge(101).clean
    assert books.judge(101).excused == {"greeter-2": 1}
    assert books.lost_to(books.kills[0]) == 1


@pytest.mark.parametrize(
    "lost",
    [
        failure(ended_at=9.995),
        failure(sent_at=10.006, ended_at=10.01),
        failure(ended_at=OUT_AT + NOTICE + 0.001),
        failure(status="INTERNAL"),
        failure(status="DEADLINE_EXCEEDED"),
        failure(text=LOST.replace(ADDRESS, "127.0.0.1:2346")),
        failure(text=LOST.replace(ADDRESS, ADDRESS + "6")),
        failure(text=LOST.replace(ADDRESS, "1" + ADDRESS)),
        failure(text="sidecar: greeter: no instance"),
    ],
    ids=[
        "ended before the kill",
        "sent when it was out of picks",
        "ended long after",
        "another status",
        "a deadline",
        "another instance",
        "a longer port",
        "a longer host",
        "no instance named",
    ],
)
def test_nothing_else_is_excused(lost: Failure) -> None:
    verdict = ledger(lost).judge(101)
    assert not verdict.clean
    assert verdict.excused == {}
    assert verdict.complaints == [f"nothing excuses 1 x {lost.status}: {lost.text}"]


def test_an_rpc_lost_outside_the_kill_is_exit_code_1_however_the_demo_ends() -> None:
    late = ledger(failure(sent_at=10.006, ended_at=10.01)).judge(101)
    assert [exit_code(code, late) for code in (OK, FAILED, INTERRUPTED)] == [1, 1, 1]
    inside = ledger(failure()).judge(101)
    assert [exit_code(code, inside) for code in (OK, FAILED, INTERRUPTED)] == [0, 1, 130]


def test_a_failure_without_a_kill_is_not_excused() -> None:
    assert not ledger(failure(), kills=[]).judge(101).clean


def test_no_more_are_excused_than_can_have_been_in_flight() -> None:
    two = [failure(), failure()]
    assert not ledger(*two, kills=[kill(in_flight=1)]).judge(102).clean
    assert ledger(*two, kills=[kill(in_flight=1, sent_during=1)]).judge(102).clean


def test_each_kill_excuses_its_own_losses() -> None:
    other = Kill("greeter-5", "127.0.0.1:4000", 50.0, 1, 50.01)
    lost = failure(49.99, 50.001, text=LOST.replace(ADDRESS, other.address))
    verdict = ledger(failure(), lost, kills=[kill(), other]).judge(102)
    assert verdict.clean
    assert verdict.excused == {"greeter-2": 1, "greeter-5": 1}


def test_an_rpc_that_never_ended_is_a_complaint() -> None:
    books = ledger()
    books.sent += 2
    assert books.judge(102).complaints == ["2 RPCs were sent and neither answered nor failed"]


def test_the_client_sidecar_must_have_seen_every_rpc() -> None:
    assert not ledger().judge(counted=99).clean
    assert ledger().judge(counted=105).clean, "somebody else may have dialled it too"
    assert ledger().judge(counted=None).clean


def test_equal_failures_are_told_once() -> None:
    lost = failure(text="sidecar: greeter: no instance")
    assert ledger(lost, lost, lost).judge(103).complaints == [
        "nothing excuses 3 x UNAVAILABLE: sidecar: greeter: no instance"
    ]


def test_what_happened_since_a_mark_is_told_apart() -> None:
    books = ledger(failure())
    mark = books.mark()
    books.sent += 3
    books.failures.append(failure())
    assert books.since(mark) == (3, 1)


def test_the_last_line_counts_and_says_how_each_loss_is_accounted_for() -> None:
    assert closing(ledger(failure()), 101) == [
        "101 RPCs were sent, 100 answered, 1 failed; 1 RPC in flight on greeter-2 when it was killed;"
        " the client's sidecar counted 101; every RPC is accounted for."
    ]
    *complaints, last = closing(ledger(failure(status="INTERNAL")), None)
    assert len(complaints) == 1
    assert last == "101 RPCs were sent, 100 answered, 1 failed; NOT every RPC is accounted for, see above."
