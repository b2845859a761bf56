"""conditions.sh against what real phones of several Android versions say."""

from __future__ import annotations

import pytest
from toybox_phone import ToyboxPhone

from netlathe.profiler.phone.conditions import Conditions

GOLDEN = {
    "thermal_android_10_samsung.txt": {"status": 0.0, "cpu_c": 24.0, "battery_c": 24.4, "skin_c": 25.3},
    "thermal_android_12_a52.txt": {"status": 0.0, "cpu_c": 25.6, "battery_c": 23.8, "skin_c": 24.7},
    "thermal_android_12_pixel_6.txt": {
        "status": 0.0, "cpu_c": 27.000002, "gpu_c": 26.000002, "battery_c": 22.1, "skin_c": 24.83324,
    },
    "thermal_android_13_hot.txt": {"status": 2.0, "cpu_c": 48.2, "gpu_c": 45.9, "battery_c": 43.8, "skin_c": 44.637},
    "thermal_android_14_samsung.txt": {"status": 0.0, "cpu_c": 34.6, "battery_c": 25.2, "skin_c": 28.2},
    "thermal_android_16_xiaomi.txt": {"status": 0.0, "cpu_c": 57.9, "skin_c": 34.351},
}  # fmt: skip


def values(phone: ToyboxPhone, shell: str) -> dict[str, float | str]:
    text = phone.text(shell, "conditions.sh")
    assert text.endswith("\n")
    assert text.count("\n") == 1
    return dict(Conditions.parse(text).values)


@pytest.mark.parametrize("golden", GOLDEN)
def test_the_hottest_current_sensor_of_each_kind_counts(phone: ToyboxPhone, shell: str, golden: str) -> None:
    phone.dumps("thermalservice", golden)
    assert values(phone, shell) == {**GOLDEN[golden], "load1": 0.53, "uptime_s": 1000.25}


def test_decimals_are_compared_as_decimals(phone: ToyboxPhone, shell: str) -> None:
    readings = ["8.9", "30.089", "30.09", "-40.5", "NaN", "2.5E-5", "09.0"]
    lines = [f"\tTemperature{{mValue={one}, mType=3, mName=skin{i}, mStatus=0}}" for i, one in enumerate(readings)]
    text = "\n".join(["Thermal Status: 0", "Current temperatures from HAL:", *lines])
    (phone.state / "dumpsys.thermalservice").write_text(text + "\n")
    assert values(phone, shell)["skin_c"] == 30.09


def test_the_battery_service_knows_charge_power_and_temperature(phone: ToyboxPhone, shell: str) -> None:
    phone.dumps("thermalservice", "thermal_android_13_hot.txt")
    phone.dumps("battery", "battery_usb.txt")
    found = values(phone, shell)
    assert (found["battery"], found["powered"], found["battery_c"]) == (100.0, "usb", 27.4)


@pytest.mark.parametrize(
    ("golden", "expected"),
    [
        ("battery_samsung.txt", (75.0, "none", 35.7)),  # with a log of other values below
        ("battery_samsung_usb.txt", (100.0, "usb", 30.9)),
        ("battery_android_7_tablet.txt", (19.0, "ac", 27.5)),
        ("battery_phone_2025.txt", (67.0, "none", 33.7)),
    ],
)
def test_a_battery_s_state_is_read_whatever_else_a_maker_lists(
    phone: ToyboxPhone, shell: str, golden: str, expected: tuple[float, str, float]
) -> None:
    phone.dumps("battery", golden)
    found = values(phone, shell)
    assert (found["battery"], found["powered"], found["battery_c"]) == expected


def test_the_battery_tells_voltage_and_current(phone: ToyboxPhone, shell: str) -> None:
    phone.dumps("battery", "battery_phone_2025.txt")
    assert "current_ua" not in values(phone, shell)
    current = phone.sysfs / "class/power_supply/battery/current_now"
    current.parent.mkdir(parents=True)
    for text, expected in (("-412000", -412000.0), ("998", 998.0)):
        current.write_text(f"{text}\n")
        found = values(phone, shell)
        assert (found["voltage_mv"], found["current_ua"], found["powered"]) == (3964.0, expected, "none")
    current.write_text("unknown\n")
    assert "current_ua" not in values(phone, shell)


def test_cores_tell_their_frequencies_and_caps(phone: ToyboxPhone, shell: str) -> None:
    phone.core(0, cpuinfo_max_freq=1704000, scaling_max_freq=1704000, scaling_cur_freq=1704000)
    phone.core(1)
    phone.core(2, cpuinfo_max_freq=2914000, scaling_max_freq=2000000, scaling_cur_freq=324000)
    phone.core(3, cpuinfo_max_freq=2914000, scaling_max_freq=900000)
    conditions = Conditions.parse(phone.text(shell, "conditions.sh"))
    assert conditions.values["freq_mhz"] == "1704,-,324,-"
    assert conditions.values["capped"] == "2:2000,3:900"
    assert conditions.caps_mhz == {2: 2000.0, 3: 900.0}


def test_without_a_thermal_service_the_kernel_is_asked(phone: ToyboxPhone, shell: str) -> None:
    readings = {
        "cpu-0-0-usr": "41250", "cpuss-1-usr": "57", "gpuss-0-usr": "39900", "quiet-therm-adc": "33123",
        "cpu-off": "0", "cpu-cold": "-40000", "cpu-broken": "2147483647", "battery": "30100",
    }  # fmt: skip
    for number, (kind, temperature) in enumerate(readings.items()):
        phone.zone(number, kind, temperature)
    assert values(phone, shell) == {"cpu_c": 57.0, "gpu_c": 39.9, "skin_c": 33.1, "load1": 0.53, "uptime_s": 1000.25}


def test_a_service_without_sensors_gives_a_status_alone(phone: ToyboxPhone, shell: str) -> None:
    phone.dumps("thermalservice", "thermal_hal_not_ready.txt")
    assert values(phone, shell) == {"status": 0.0, "load1": 0.53, "uptime_s": 1000.25}


def test_what_cannot_be_read_is_left_out(phone: ToyboxPhone, shell: str) -> None:
    for tool in ("dumpsys", "getprop"):
        (phone.tools / tool).unlink()
    for name in ("loadavg", "uptime"):
        (phone.proc / name).unlink()
    assert values(phone, shell) == {}


def test_a_reading_asks_dumpsys_twice_and_nothing_else(phone: ToyboxPhone, shell: str) -> None:
    phone.core(0, cpuinfo_max_freq=1704000, scaling_max_freq=1704000, scaling_cur_freq=1704000)
    values(phone, shell)
    assert phone.calls == ["dumpsys thermalservice", "dumpsys battery"]
