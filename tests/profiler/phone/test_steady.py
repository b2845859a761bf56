"""The host side of steady.sh."""

from __future__ import annotations

import pytest

from netlathe.profiler.errors import DeviceError
from netlathe.profiler.phone.steady import StepOutcome, parse_outcomes


def test_lines_become_outcomes() -> None:
    text = "wake held Awake\nfixed_performance refused Failed to set  it\nbackground unavailable\nstay_awake restored\n"
    assert parse_outcomes(text) == [
        StepOutcome("wake", "held", "Awake"),
        StepOutcome("fixed_performance", "refused", "Failed to set  it"),
        StepOutcome("background", "unavailable", ""),
        StepOutcome("stay_awake", "restored", ""),
    ]
    assert parse_outcomes("") == []


@pytest.mark.parametrize("text", ["wake", "wake maybe", "sh: not found", "wake held\n\nstay_awake held"])
def test_other_lines_are_an_error(text: str) -> None:
    with pytest.raises(DeviceError, match="where 'STEP held' or the like was expected"):
        parse_outcomes(text)


def test_reports_say_what_to_do() -> None:
    refused = StepOutcome("background", "refused", "load 9.10 on 8 cores").report
    assert refused.startswith("background: refused (load 9.10 on 8 cores); let the phone finish its updates")
    assert StepOutcome("wake", "unavailable").report.startswith("wake: unavailable; turn the screen on by hand")
    assert StepOutcome("cores", "held", "f0").report == "cores: held (f0)"
    assert "could not be put back (denied); run netlathe" in StepOutcome("stay_awake", "failed", "denied").report
