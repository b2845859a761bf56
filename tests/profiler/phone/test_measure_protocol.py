"""Plans that measure.sh accepts, and events from whatever it leaves."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlathe.profiler.errors import DeviceError
from netlathe.profiler.phone.conditions import Conditions
from netlathe.profiler.phone.measure_protocol import (
    Finished,
    PlannedVisit,
    RoundBegin,
    RoundDone,
    SessionBegin,
    SessionEvent,
    Stopped,
    VisitDone,
    log_lines,
    read_events,
    write_plan,
)

LOG = b"""\
f00d begin 812.31 0b5e-11 5e7up 1754000000.250
f00d round r0 812.33 status=0 skin_c=31.5 freq_mhz=1704,2914 powered=usb
f00d visit a1 812.40
STARTING!
count=5 first=1187 curr=1041
f00d end a1 0
f00d visit b2 812.90
f00d end b2 139
f00d done r0 813.50 status=1 capped=8:900
f00d stop hot
"""
EVENTS: list[SessionEvent] = [
    SessionBegin(812.31, "0b5e-11", "5e7up", 1754000000.25),
    RoundBegin(
        "r0", 812.33, Conditions({"status": 0.0, "skin_c": 31.5, "freq_mhz": "1704,2914", "powered": "usb"})
    ),
    VisitDone("a1", 812.4, 0, "STARTING!\ncount=5 first=1187 curr=1041"),
    VisitDone("b2", 812.9, 139, ""),
    RoundDone("r0", 813.5, Conditions({"status": 1.0, "capped": "8:900"})),
    Stopped("hot"),
]  # fmt: skip
VISIT = PlannedVisit("a1", 5, 2, 20)


def test_a_log_gives_its_events() -> None:
    assert list(read_events(log_lines(LOG))) == EVENTS
    assert list(read_events(log_lines(LOG), "f00d")) == EVENTS


def test_events_come_as_their_lines_come() -> None:
    lines = iter(log_lines(LOG))
    events = read_events(lines, "f00d")
    assert next(events) == EVENTS[0]
    assert next(lines).startswith("f00d round")


@given(length=st.integers(0, len(LOG)))
def test_a_log_that_was_cut_anywhere_gives_the_first_events(length: int) -> None:
    found = list(read_events(log_lines(LOG[:length])))
    assert found == EVENTS[: len(found)]
    assert len(found) >= LOG[:length].count(b" end ") - 1


def test_a_visit_that_was_cut_is_dropped_and_an_empty_log_is_empty() -> None:
    cut = LOG[: LOG.index(b"139")]
    assert list(read_events(log_lines(cut))) == EVENTS[:3]
    assert list(read_events(log_lines(b""))) == []
    assert list(read_events(log_lines(b"f00d begi"))) == []


def test_lines_that_a_shell_says_are_kept_aside() -> None:
    stray: list[str] = []
    lines = ["WARNING: linker: libfoo.so", *log_lines(LOG), "sh: out of memory"]
    assert list(read_events(lines, "f00d", stray)) == EVENTS
    assert stray == ["WARNING: linker: libfoo.so", "sh: out of memory"]


def test_lines_of_another_session_inside_a_visit_are_output() -> None:
    lines = [*log_lines(LOG)[:3], "beef end a1 0", "beef finish", " f00d end a1 0", "f00d end a1 0"]
    assert list(read_events(lines, "f00d"))[-1] == VisitDone(
        "a1", 812.4, 0, "beef end a1 0\nbeef finish\n f00d end a1 0"
    )


def test_line_ends_of_an_old_adbd_do_no_harm() -> None:
    assert [type(event) for event in read_events(f"{line}\r" for line in log_lines(LOG))] == [*map(type, EVENTS)]


def test_hidden_clocks_are_not_numbers() -> None:
    begin = next(read_events(["f00d begin - - 5e7up 1.5"]))
    assert isinstance(begin, SessionBegin)
    assert math.isnan(begin.uptime_s)
    assert begin.boot_id == "-"


def test_a_finished_session_says_so() -> None:
    assert list(read_events([*log_lines(LOG)[:1], "f00d finish"]))[-1] == Finished()


def test_what_is_no_log_is_refused_and_shown() -> None:
    with pytest.raises(DeviceError, match="not the log of a session: it starts with 'sqlite format'"):
        list(read_events(["sqlite format", "f00d begin 1 b s 1"]))


@pytest.mark.parametrize(
    "line",
    [
        "f00d end a1 0", "f00d begin 1 b s 1", "f00d leap x", "f00d visit a1", "f00d", "f00d round r1 soon",
        "f00d finish now", "f00d stop",
    ],
)  # fmt: skip
def test_lines_that_contradict_the_protocol_are_shown(line: str) -> None:
    with pytest.raises(DeviceError, match="does not fit what came before") as caught:
        list(read_events([*log_lines(LOG)[:2], line], "f00d"))
    assert line in str(caught.value)


@pytest.mark.parametrize("line", ["f00d end b2 0", "f00d end a1 x", "f00d visit b2 9", "f00d done r0 9", "f00d finish"])
def test_only_its_own_end_ends_a_visit(line: str) -> None:
    with pytest.raises(DeviceError, match="does not fit"):
        list(read_events([*log_lines(LOG)[:3], line], "f00d"))


def test_bytes_of_any_kind_are_lines() -> None:
    log = LOG.replace(b"STARTING!", bytes(range(1, 10)) + bytes(range(11, 256)))
    visit = list(read_events(log_lines(log)))[2]
    assert isinstance(visit, VisitDone)
    assert visit.output.endswith("\ncount=5 first=1187 curr=1041")
    assert "\x1c" in visit.output


def test_a_plan_has_a_line_for_everything() -> None:
    rounds = [("r0", [VISIT, PlannedVisit("b-2", 1, 0, 0.5)]), ("r1", [VISIT])]
    assert write_plan("5e7up", 12.25, ["--num_threads=1", "--x=*"], "F0", 0, rounds).decode().splitlines() == [
        "setup 5e7up", "stamp 12.250", "flags --num_threads=1 --x=*", "mask F0", "max_status 0",
        "round r0", "visit a1 5 2 20", "visit b-2 1 0 1", "round r1", "visit a1 5 2 20", "end",
    ]  # fmt: skip
    assert write_plan("s", 0, [], None, None, []) == b"setup s\nstamp 0.000\nend\n"


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("s p", 0, [], None, None, []), "s p"),
        (("s", 0, [], None, None, [("", [])]), "''"),
        (("s", 0, [], None, None, [("r", [PlannedVisit("../x", 1, 0, 9)])]), "../x"),
        (("s", 0, [], None, None, [("r", [PlannedVisit("x\nend", 1, 0, 9)])]), "x\\nend"),
        (("s", 0, ["--a=b c"], None, None, []), "--a=b c"),
        (("s", 0, ["--a=\n"], None, None, []), "--a="),
        (("s", 0, ["num_threads=1"], None, None, []), "num_threads=1"),
        (("s", 0, [], "0xf0", None, []), "0xf0"),
        (("s", 0, [], None, None, [("r", [PlannedVisit("x", 0, 0, 9)])]), "runs=0"),
        (("s", 0, [], None, None, [("r", [PlannedVisit("x", 1, -1, 9)])]), "warmups=-1"),
        (("s", 0, [], None, None, [("r", [PlannedVisit("x", 1, 0, math.inf)])]), "timeout_s=inf"),
        (("s", 0, [], None, None, [("r", [PlannedVisit("x", 1, 0, 0)])]), "timeout_s=0"),
    ],
)
def test_what_a_plan_cannot_hold_is_refused_and_shown(arguments: tuple[object, ...], shown: str) -> None:
    with pytest.raises(DeviceError) as caught:
        write_plan(*arguments)  # type: ignore[arg-type]
    assert shown in str(caught.value)
