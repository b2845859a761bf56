"""When a phone is too hot, too slow, or another one than before."""

from __future__ import annotations

import json

import pytest

from profiler.phone.conditions import Conditions

START = Conditions.parse("status=0 cpu_c=41.0 skin_c=31.5 battery_c=30.0 capped=0:1200 uptime_s=1000.00")


def now(**changes: float | str) -> Conditions:
    return Conditions({**START.values, "uptime_s": 1300.0, **changes})


def test_words_become_numbers_and_lists_stay_text() -> None:
    words = "status=0 cpu_c=57.9 freq_mhz=1704,-,2914 capped=4:900 load1=0.53 powered=usb battery=87\n"
    found = Conditions.parse(words)
    assert found.values == {
        "status": 0.0, "cpu_c": 57.9, "freq_mhz": "1704,-,2914", "capped": "4:900", "load1": 0.53, "powered": "usb",
        "battery": 87.0,
    }  # fmt: skip
    assert found.number("cpu_c") == 57.9
    assert found.number("powered") is None
    assert found.number("gpu_c") is None
    json.dumps(dict(found.values), allow_nan=False)


def test_one_core_is_a_list_too() -> None:
    assert Conditions.parse("freq_mhz=1704 capped=0").values == {"freq_mhz": "1704", "capped": "0"}


def test_torn_words_and_nonsense_are_left_out() -> None:
    assert Conditions.parse("status= =3 cpu_c skin_c=31.0").values == {"skin_c": 31.0}
    assert Conditions.parse("cpu_c=nan gpu_c=inf").values == {}
    assert Conditions.parse("").values == {}


def test_a_phone_as_at_the_start_is_fit() -> None:
    assert now().hot_reason(START) is None
    assert START.hot_reason(START) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": 1.0}, "thermal status 1 (light)"),
        ({"status": 9.0}, "thermal status 9 (unknown)"),
        ({"skin_c": 33.5}, "skin at 33.5 degC, 2.0 K warmer than at the start (below 33.5 degC needed)"),
        ({"capped": "0:1200,7:1401"}, "frequency capped: core 7 at 1401 MHz"),
        ({"capped": "0:800,7:1401"}, "frequency capped: core 0 at 800 MHz, core 7 at 1401 MHz"),
    ],
)
def test_what_makes_a_phone_unfit_is_said(changes: dict[str, float | str], reason: str) -> None:
    assert now(**changes).hot_reason(START) == reason


@pytest.mark.parametrize(
    "changes", [{"skin_c": 33.4}, {"battery_c": 39.0}, {"cpu_c": 90.0}, {"capped": ""}, {"capped": "0:1300"}]
)
def test_less_than_that_is_fit(changes: dict[str, float | str]) -> None:
    assert now(**changes).hot_reason(START) is None


def test_the_limit_on_the_status_is_the_users() -> None:
    assert now(status=2.0).hot_reason(START, limit_status=2) is None
    assert now(status=3.0).hot_reason(START, limit_status=2) == "thermal status 3 (severe)"


def test_what_a_phone_does_not_tell_is_no_reason() -> None:
    assert Conditions.parse("load1=0.5").hot_reason(START) is None
    assert now(skin_c=50.0).hot_reason(Conditions.parse("status=0 capped=0:1200")) is None


def test_caps_and_reboots_can_be_asked_for_alone() -> None:
    assert now(status=3.0, capped="1:900").capped_reason(START) == "frequency capped: core 1 at 900 MHz"
    assert now(capped="1:900").capped_reason(START, cores=[1, 2]) is not None
    assert now(capped="1:900").capped_reason(START, cores=[0, 2]) is None
    assert now(status=2.0, skin_c=60.0, capped="1:900").status_reason(1) == "thermal status 2 (moderate)"
    assert now(status=3.0).capped_reason(START) is None
    assert now(uptime_s=5.0).reboot_reason(START) == "the phone rebooted 5 s ago"
