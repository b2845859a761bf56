"""describe.sh says what it can read, leaves out the rest, and gives a description that the host understands."""

from __future__ import annotations

import shutil
import subprocess

from toybox_phone import ToyboxPhone

from netlathe.archspace.resources import device_script_path
from netlathe.profiler.phone.description import PhoneDescription
from netlathe.profiler.phone.topology import core_mask, core_summary

DF = """
echo "Filesystem     1K-blocks     Used Available Use% Mounted on"
echo "/dev/block/dm-44 115249236 31420988 83697176 28% /data"
"""


def pixel(phone: ToyboxPhone) -> ToyboxPhone:
    """A Pixel 8 whose core 6 is offline and whose core 8 keeps its governor to itself."""
    for key, value in {
        "ro.product.manufacturer": "Google", "ro.product.model": "Pixel 8", "ro.board.platform": "zuma",
        "ro.soc.model": "Tensor G3", "ro.build.version.release": "14", "ro.build.fingerprint": "google/shiba:14/UD1A",
        "ro.product.cpu.abilist": "arm64-v8a", "ro.serialno": "37281FDJH004",
    }.items():  # fmt: skip
        phone.set_property(key, value)
    for number, khz in enumerate([1704000] * 4 + [2367000] * 4 + [2914000]):
        related = {1704000: "0 1 2 3", 2367000: "4 5 6 7", 2914000: "8"}[khz]
        fields: dict[str, int | str] = {"cpuinfo_max_freq": khz, "related_cpus": related}
        if number < 8:
            fields["scaling_governor"] = "sched_pixel"
        phone.core(number, **({} if number == 6 else fields))
    (phone.sysfs / "devices/system/cpu/online").write_text("0-5,7-8\n")
    (phone.proc / "self/status").write_text("Name:\tsh\nCpus_allowed_list:\t0-7\nMems_allowed:\t1\n")
    phone.tool("df", DF)
    return phone


def test_a_whole_phone_is_described(phone: ToyboxPhone, shell: str) -> None:
    text = pixel(phone).text(shell, "describe.sh")
    found = PhoneDescription.parse(text)
    assert (found.manufacturer, found.model, found.soc, found.release) == ("Google", "Pixel 8", "Tensor G3", "14")
    assert (found.sdk, found.abis, found.serial) == (34, ("arm64-v8a",), "37281FDJH004")
    assert (found.boot_id, found.uptime_s, found.data_free_kb) == ("11111111-aaaa", 1000.25, 83697176)
    assert found.kernel
    assert found.screen_on is True
    assert found.governors == ("sched_pixel",) * 7
    assert [core.number for core in found.cores if not core.is_online] == [6]
    assert found.allowed_cores == frozenset(range(8))
    assert core_summary(found) == "4x1.70 + 4x2.37 + 1x2.91 GHz"
    assert core_mask(found, "little") == "f"


def test_tools_are_those_that_the_phone_has(phone: ToyboxPhone, shell: str) -> None:
    for missing in ("svc", "flock", "setsid"):
        (phone.tools / missing).unlink()
    text = pixel(phone).text(shell, "describe.sh")
    wanted = "tar timeout taskset sha256sum pkill pgrep dumpsys settings cmd input"
    assert f"tools={wanted}\n" in text


def test_a_dark_screen_is_off(phone: ToyboxPhone, shell: str) -> None:
    (phone.state / "wakefulness").write_text("Dozing\n")
    assert "screen=off\n" in phone.text(shell, "describe.sh")


def test_a_denied_zone_and_a_missing_service_are_left_out(phone: ToyboxPhone, shell: str) -> None:
    phone.zone(0, "BIG", "41250")
    phone.zone(1, "battery", "30000")
    (phone.sysfs / "class/thermal/thermal_zone1/temp").unlink()
    for tool in ("dumpsys", "getprop", "df"):
        (phone.tools / tool).unlink()
    found = dict(line.split("=", 1) for line in phone.text(shell, "describe.sh").splitlines())
    assert found["thermal.BIG"] == "41250"
    assert found["cores"] == "0"
    assert found.keys().isdisjoint({"thermal.battery", "screen", "data_free_kb", "ro.build.version.sdk"})


def test_an_offline_core_is_counted(phone: ToyboxPhone, shell: str) -> None:
    phone.core(0, cpuinfo_max_freq=1704000)
    phone.core(1)
    found = dict(line.split("=", 1) for line in phone.text(shell, "describe.sh").splitlines())
    assert found["cores"] == "2"
    assert found["cpu0.cpuinfo_max_freq"] == "1704000"
    assert not any(key.startswith("cpu1.") for key in found)


def test_a_script_that_comes_through_standard_input_runs_to_its_end(phone: ToyboxPhone, shell: str) -> None:
    """As in `adb shell sh < describe.sh`: no tool may take the rest of the script for its input."""
    phone.core(0, cpuinfo_max_freq=1704000)
    for tool in ("getprop", "dumpsys"):
        phone.tool(tool, f"cat >/dev/null\n{(phone.tools / tool).read_text()}")
    for script, last in (("describe.sh", b"loadavg="), ("conditions.sh", b"uptime_s=1000.25")):
        with device_script_path(script).open("rb") as source:
            done = subprocess.run(
                [str(shutil.which(shell))], stdin=source, env=dict(phone.environment), capture_output=True, timeout=60
            )
        assert last in done.stdout.splitlines()[-1]
        assert done.stderr == b""
