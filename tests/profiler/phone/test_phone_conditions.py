"""When a phone is too hot, too slow, or another one than before."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest

from netlathe.profiler.phone.conditions import COOL_C, SETTLE_S, WARMER_K, Conditions, SkinWatch

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
        ({"capped": "0:1200,7:1401"}, "frequency capped: core 7 at 1401 MHz"),
        ({"capped": "0:800,7:1401"}, "frequency capped: core 0 at 800 MHz, core 7 at 1401 MHz"),
    ],
)
def test_what_makes_a_phone_unfit_is_said(changes: dict[str, float | str], reason: str) -> None:
    assert now(**changes).hot_reason(START) == reason


@pytest.mark.parametrize(
    "changes", [{"skin_c": 60.0}, {"battery_c": 39.0}, {"cpu_c": 90.0}, {"capped": ""}, {"capped": "0:1300"}]
)
def test_less_than_that_is_fit(changes: dict[str, float | str]) -> None:
    assert now(**changes).hot_reason(START) is None


def test_the_limit_on_the_status_is_the_users() -> None:
    assert now(status=2.0).hot_reason(START, limit_status=2) is None
    assert now(status=3.0).hot_reason(START, limit_status=2) == "thermal status 3 (severe)"


def test_what_a_phone_does_not_tell_is_no_reason() -> None:
    assert Conditions.parse("load1=0.5").hot_reason(START) is None


def test_caps_and_reboots_can_be_asked_for_alone() -> None:
    assert now(status=3.0, capped="1:900").capped_reason(START) == "frequency capped: core 1 at 900 MHz"
    assert now(capped="1:900").capped_reason(START, cores=[1, 2]) is not None
    assert now(capped="1:900").capped_reason(START, cores=[0, 2]) is None
    assert now(status=2.0, skin_c=60.0, capped="1:900").status_reason(1) == "thermal status 2 (moderate)"
    assert now(status=3.0).capped_reason(START) is None
    assert now(uptime_s=5.0).reboot_reason(START) == "the phone rebooted 5 s ago"


def waited_s(watch: SkinWatch, skin_c: Callable[[float], float], at_s: float = 0.0) -> float:
    """How long a phone whose skin follows `skin_c` (of the seconds since the wait began) is left alone."""
    for seconds in range(7200):
        if watch.reason(skin_c(float(seconds)), at_s + seconds) is None:
            return float(seconds)
    raise AssertionError("it waits for ever")


def cooling(start_c: float, rest_c: float, time_constant_s: float = 300.0) -> Callable[[float], float]:
    """Newton's law."""
    return lambda seconds: rest_c + (start_c - rest_c) * math.exp(-seconds / time_constant_s)


def test_a_phone_from_a_cold_room_that_settles_under_load_never_waits() -> None:
    watch = SkinWatch()
    assert [waited_s(watch, lambda _, skin_c=skin_c: skin_c) for skin_c in (24.0, 27.0, 31.0, 34.9, 31.0)] == [0.0] * 5
    assert watch.rest_c is None


def test_a_phone_that_is_plugged_in_hot_is_not_measured_before_it_is_cool() -> None:
    watch = SkinWatch()
    skin_c = cooling(43.0, 29.0)
    assert watch.reason(skin_c(0.0), 0.0) == "skin at 43.0 degC, needs to be below 35.0 degC or to come to rest"
    assert watch.is_cooling
    seconds = waited_s(watch, skin_c)
    assert not watch.is_cooling
    assert skin_c(seconds) < COOL_C <= skin_c(seconds - 1)
    assert watch.rest_c is None


@pytest.mark.parametrize("start_c", [44.0, 40.0, 25.0])
def test_a_phone_in_a_hot_room_is_measured_once_it_rests_and_then_left_alone_when_it_warms_up(start_c: float) -> None:
    watch, rest_c = SkinWatch(), 39.0
    seconds = waited_s(watch, cooling(start_c, rest_c))
    if start_c < COOL_C:
        assert waited_s(watch, lambda _: rest_c) == SETTLE_S
    else:
        assert seconds >= SETTLE_S
    assert watch.rest_c == pytest.approx(rest_c, abs=2.0)
    assert watch.reason(watch.rest_c + WARMER_K - 0.1, 1e5) is None
    reason = watch.reason(watch.rest_c + WARMER_K, 1e5)
    assert (
        reason
        == f"skin at {watch.rest_c + 2:.1f} degC, needs to be below {watch.rest_c + 2:.1f} degC or to come to rest"
    )
    assert waited_s(watch, cooling(watch.rest_c + 3, rest_c), 1e5) < 600


def test_a_room_that_warms_up_meanwhile_does_not_end_the_measuring() -> None:
    watch = SkinWatch()
    rests = []
    for at_s, skin_c in ((0.0, 36.0), (1000.0, 39.0), (2000.0, 42.0)):
        assert waited_s(watch, lambda _, skin_c=skin_c: skin_c, at_s) == SETTLE_S
        rests.append(watch.rest_c)
    assert rests == [36.0, 39.0, 42.0]


def test_a_sensor_that_flickers_is_at_rest_and_one_that_is_missing_is_no_reason() -> None:
    watch = SkinWatch()
    assert waited_s(watch, lambda seconds: 38.0 + 0.3 * (seconds % 2)) == SETTLE_S
    assert watch.reason(60.0, 1e4) is not None
    assert watch.reason(None, 1e4) is None
    assert not watch.is_cooling
