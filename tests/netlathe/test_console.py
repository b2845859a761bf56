"""What a terminal shows of things that run side by side, at any width, and what is left of it in a pipe."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from netlathe.cli.console import Terminal, shortened

ADDRESSES = ["tcp:192.168.100.17:5555", "server:192.168.100.18:40635"]
NOTE = "3/110 graphs, round 5, 1 redone, 36.1 °C, mbconv_k7_e6_s2_c24-40_56x56_relu6"


def terminal(width: int | None) -> tuple[Terminal, io.StringIO]:
    """With all that it writes; None for a pipe."""
    found, stream = Terminal(), io.StringIO()
    found.err = Console(
        file=stream,
        force_terminal=width is not None,
        width=width or 160,
        height=24,
        legacy_windows=False,
        color_system=None,
    )
    return found, stream


def frames(written: str) -> list[str]:
    """Lines that were drawn, without what moves the cursor."""
    return [re.sub(r"\x1b\[\??[0-9]*[A-Za-z]", "", line).strip() for line in re.split("[\r\n]", written)]


@pytest.mark.parametrize("width", [50, 60, 80, 100, 200])
def test_percentage_time_left_and_which_device_are_seen_at_any_width(width: int) -> None:
    found, stream = terminal(width)
    with found.watching(ADDRESSES) as watches:
        for watch, share in zip(watches, (0.37, 0.99), strict=True):
            watch(share, 3723.0, NOTE)
    lines = frames(stream.getvalue())
    for tail, share in (("17:5555", "37 %"), ("40635", "99 %")):
        (line,) = {line for line in lines if tail in line and share in line}
        assert "62:03 left" in line
        assert len(line) <= width
        assert ("mbconv_k7" in line) == (width == 200)
    assert not any("left" in line and "%" not in line for line in lines)  # nothing is wrapped


def test_a_wait_says_first_how_long_it_lasts_and_for_how_long_at_most() -> None:
    found, stream = terminal(80)
    with found.watching(ADDRESSES) as watches:
        watches[0](0.4, 60.0, "cooling for 40 s of at most 10 min: skin at 36.1 degC")
    assert any("cooling for 40 s" in line for line in frames(stream.getvalue()))


def test_in_a_pipe_a_line_stands_for_each_tenth_and_what_else_is_logged() -> None:
    found, stream = terminal(None)
    with found.watching(["local"]) as (watch,):
        for percent in range(51):
            watch(percent / 100, 10.0, "a")
        found.log("  local: cooling for 0 s: hot")
    lines = stream.getvalue().splitlines()
    assert lines == [
        *(f"  local: {10 * tenth}/100 %  0:10 left  a" for tenth in range(6)),
        "  local: cooling for 0 s: hot",
    ]


def test_what_is_logged_in_a_pipe_is_not_said_on_a_terminal() -> None:
    found, stream = terminal(80)
    found.log("  local: cooling for 0 s: hot")
    assert stream.getvalue() == ""


def test_prose_is_wrapped_between_words_on_a_terminal_and_one_line_in_a_pipe() -> None:
    words = "the time budget was out before 65 had enough rounds " * 5
    for width in (40, None):
        found, stream = terminal(width)
        found.warn([words.strip()])
        lines = [line.strip() for line in frames(stream.getvalue()) if line.strip()]
        assert " ".join(lines) == f"Warning: {words.strip()}"
        assert (len(lines) == 1) == (width is None)
        assert all(len(line) <= 40 for line in lines) == (width == 40)


def test_a_label_loses_its_middle_and_keeps_its_end() -> None:
    assert shortened("local", 12) == "local"
    assert shortened("tcp:192.168.1.17:5555", 13) == "tcp:….17:5555"
    assert [len(shortened("tcp:192.168.1.17:5555", width)) for width in range(5, 20)] == list(range(5, 20))
