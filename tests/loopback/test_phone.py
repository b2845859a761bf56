"""The phone's own side: what its shell, its tools and its files say."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .phone import ANDROID_9, LoopbackPhone, loopback_unavailable
from .phone_shell import TIMEOUT_S, output, shell
from .tool_calls import until
from .tree import BIG_KHZ, LITTLE_KHZ, MID_KHZ, pixel_8_cores

pytestmark = pytest.mark.skipif(loopback_unavailable() is not None, reason=str(loopback_unavailable()))


@pytest.fixture
def phone(tmp_path: Path) -> Iterator[LoopbackPhone]:
    with LoopbackPhone(tmp_path / "phone") as phone:
        yield phone


@pytest.fixture
def nine_cores(tmp_path: Path) -> Iterator[LoopbackPhone]:
    with LoopbackPhone(tmp_path / "phone", cores_khz=pixel_8_cores(9)) as phone:
        yield phone


def test_the_shell_is_mksh_and_finds_only_the_phones_commands(phone):
    assert "MIRBSD KSH" in output(phone, "echo $KSH_VERSION")
    assert output(phone, "command -v toybox tar timeout taskset sha256sum flock pgrep pkill dd tr") == "\n".join(
        f"/system/bin/{name}"
        for name in ("toybox", "tar", "timeout", "taskset", "sha256sum", "flock", "pgrep", "pkill", "dd", "tr")
    )
    for missing in ("awk", "bash", "python3", "su"):
        assert shell(phone, f"command -v {missing}").returncode != 0


def test_exit_codes_and_signals_are_those_of_the_phones_shell(phone):
    assert shell(phone, "exit 7").returncode == 7
    assert shell(phone, "no_such_command").returncode == 127
    assert shell(phone, "timeout 0.1 sleep 60").returncode == 124
    result = shell(phone, "sh -c 'kill -SEGV $$'; echo rc=$?")
    assert (result.stdout, result.stderr.strip()) == ("rc=139\n", "Segmentation fault")


def test_a_program_of_another_processor_is_not_executable(phone):
    other = phone.path("/data/local/tmp/other")
    other.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xf3\x00" + bytes(44))
    other.chmod(0o755)
    result = shell(phone, "/data/local/tmp/other")
    assert result.returncode != 0
    assert "not executable: 64-bit ELF file" in result.stderr


def test_data_allows_programs_and_sdcard_does_not(phone):
    script = "printf '#!/system/bin/sh\\necho ran\\n' >{0}/x; chmod 755 {0}/x; {0}/x"
    assert output(phone, script.format("/data/local/tmp")) == "ran"
    assert shell(phone, script.format("/sdcard")).returncode == 126


def test_the_phone_has_its_own_root_and_home(phone):
    assert output(phone, "pwd; echo $HOME $ANDROID_DATA; id -un") == "/\n/ /data\nshell"
    assert shell(phone, "ls /home /root").returncode != 0


def test_the_hosts_own_files_cannot_be_written(phone):
    assert shell(phone, "echo x >/usr/written").returncode != 0
    assert not Path("/usr/written").exists()


def test_pgrep_and_kill_reach_the_phones_processes_only(phone):
    host = subprocess.Popen(["sleep", "3600"])
    try:
        assert shell(phone, "pgrep -x sleep").returncode == 1
        found = output(phone, "sleep 3600 & until pgrep -x sleep; do :; done; pkill -x sleep; wait; echo done")
        assert found.endswith("\ndone")
        assert host.poll() is None
    finally:
        host.kill()
        host.wait()


def test_orphans_are_reaped(phone):
    output(phone, "for i in 1 2 3; do (sleep 0.1 &) ; done")
    until(lambda: "sleep" not in output(phone, "ps -A -o NAME,STAT"), "orphans stay as zombies")


def test_a_mask_decides_the_cores_of_a_command(phone):
    cores = len(phone.cores_khz)
    for core in range(cores):
        assert output(phone, f"taskset {1 << core:x} grep Cpus_allowed_list /proc/self/status").split()[-1] == str(core)
    result = shell(phone, f"taskset {1 << (cores + 600):x} true")
    assert result.returncode == 1


def test_the_cores_are_a_pixel_8_as_wide_as_the_host(phone):
    assert len(phone.cores_khz) == os.cpu_count()
    folders = output(phone, "ls -d /sys/devices/system/cpu/cpu[0-9]*").split()
    assert len(folders) == os.cpu_count()


def test_nine_cores_come_in_three_groups(nine_cores):
    found = output(
        nine_cores,
        "cd /sys/devices/system/cpu; for i in 0 1 2 3 4 5 6 7 8; do cat cpu$i/cpufreq/cpuinfo_max_freq; done",
    )
    assert [int(khz) for khz in found.split()] == [LITTLE_KHZ] * 4 + [MID_KHZ] * 4 + [BIG_KHZ]
    assert output(nine_cores, "cat /sys/devices/system/cpu/cpu5/cpufreq/related_cpus") == "4 5 6 7"


def test_a_cap_lowers_a_whole_group_and_can_be_taken_away(nine_cores):
    command = "cd /sys/devices/system/cpu; cat cpu[3-5]/cpufreq/scaling_max_freq cpu4/cpufreq/scaling_cur_freq"
    nine_cores.cap_frequency(5, 1_500_000)
    assert output(nine_cores, command).split() == [str(LITTLE_KHZ), "1500000", "1500000", "1500000"]
    nine_cores.cap_frequency(4, None)
    assert output(nine_cores, command).split() == [str(LITTLE_KHZ), *[str(MID_KHZ)] * 3]


def test_files_of_sys_can_be_denied_or_gone_and_are_never_writable(phone):
    cpufreq = "/sys/devices/system/cpu/cpu0/cpufreq"
    phone.make_unreadable(f"{cpufreq}/scaling_cur_freq")
    result = shell(phone, f"cat {cpufreq}/scaling_cur_freq")
    assert (result.returncode, "Permission denied" in result.stderr) == (1, True)
    assert "Permission denied" in shell(phone, f"echo performance >{cpufreq}/scaling_governor").stderr
    phone.set_core_offline(0)
    assert output(phone, "ls /sys/devices/system/cpu/cpu0") == "online"


def test_getprop_knows_the_phone_and_its_processor(phone):
    assert output(phone, "getprop ro.product.model") == "Pixel 8"
    assert output(phone, "getprop no.such.key") == ""
    assert output(phone, "getprop no.such.key other") == "other"
    assert (
        output(phone, "getprop ro.product.cpu.abilist")
        == {"x86_64": "x86_64", "aarch64": "arm64-v8a"}[os.uname().machine]
    )
    assert "[ro.soc.model]: [Tensor G3]" in output(phone, "getprop")
    phone.properties["ro.product.model"] = "Pixel 9"
    assert output(phone, "getprop ro.product.model") == "Pixel 9"
    assert shell(phone, "setprop ro.product.model x").returncode == 1


def test_the_thermal_service_prints_status_and_fresh_temperatures_beside_stale_ones(phone):
    phone.set_thermal(2, {"CPU": 57.9, "SKIN": 44.0})
    text = output(phone, "dumpsys thermalservice")
    assert "Thermal Status: 2\n" in text
    cached, current = text.split("Current temperatures from HAL:\n")
    assert "\tTemperature{mValue=57.9, mType=0, mName=CPU, mStatus=0}\n" in current
    assert "\tTemperature{mValue=44.0, mType=3, mName=SKIN, mStatus=2}\n" in current
    assert "mValue=57.9" not in cached
    assert "mName=CPU" in cached
    assert (
        output(phone, "cat /sys/class/thermal/thermal_zone0/type /sys/class/thermal/thermal_zone0/temp") == "CPU\n57900"
    )


def test_an_old_android_has_no_thermal_service_and_no_fixed_performance(tmp_path):
    with LoopbackPhone(tmp_path / "old", properties=ANDROID_9) as phone:
        result = shell(phone, "dumpsys thermalservice")
        assert (result.stdout, result.stderr) == ("", "Can't find service: thermalservice\n")
        assert shell(phone, "cmd power set-fixed-performance-mode-enabled true").returncode == 255
        assert output(phone, "getprop ro.soc.model") == ""


def test_the_battery_says_level_temperature_and_source(phone):
    phone.set_battery(level=41, celsius=36.4, powered="ac")
    text = output(phone, "dumpsys battery")
    for line in ("AC powered: true", "USB powered: false", "level: 41", "temperature: 364"):
        assert f"  {line}\n" in text


def test_settings_are_null_until_put_and_deleted_again(phone):
    key = "global stay_on_while_plugged_in"
    assert output(phone, f"settings get {key}") == "null"
    assert output(phone, f"svc power stayon usb; settings get {key}") == "2"
    assert phone.settings["stay_on_while_plugged_in"] == "2"
    assert output(phone, f"settings put {key} 7; settings get {key}") == "7"
    output(phone, f"settings delete {key}")
    assert dict(phone.settings) == {}


def test_fixed_performance_is_kept_as_set_or_refused(phone):
    command = "cmd power set-fixed-performance-mode-enabled"
    output(phone, f"{command} true")
    assert phone.power["fixed_performance"] == "true"
    output(phone, f"{command} false")
    assert phone.power["fixed_performance"] == "false"
    phone.refuse_fixed_performance()
    result = shell(phone, f"{command} true")
    assert result.returncode == 255
    assert result.stderr.startswith("Failed to set FIXED_PERFORMANCE mode\n")
    assert phone.power["fixed_performance"] == "false"


def test_keys_put_the_screen_to_sleep_and_wake_it(phone):
    wakefulness = "dumpsys power | grep mWakefulness="
    assert output(phone, f"input keyevent KEYCODE_SLEEP; {wakefulness}").strip() == "mWakefulness=Asleep"
    assert output(phone, f"input keyevent KEYCODE_WAKEUP; {wakefulness}").strip() == "mWakefulness=Awake"


def test_load_and_uptime_are_the_phones_own(tmp_path):
    with LoopbackPhone(tmp_path / "phone", uptime_s=100.0) as phone:
        phone.set_load(12.5, 3.0, 1.0)
        assert output(phone, "cat /proc/loadavg").startswith("12.50 3.00 1.00 ")
        first, second = (float(output(phone, "cat /proc/uptime").split()[0]) for _ in range(2))
        assert 99 < first <= second < 100 + TIMEOUT_S


def test_missing_tools_are_missing(phone):
    phone.remove_tools("tar", "flock")
    assert shell(phone, "command -v tar || command -v flock").returncode != 0


def test_a_full_disk_is_really_full(tmp_path):
    with LoopbackPhone(tmp_path / "phone", data_mb=1) as phone:
        result = shell(phone, "cd /data/local/tmp; head -c 2000000 /dev/zero >big")
        assert result.returncode != 0
        assert "No space left on device" in result.stderr
        phone.path("/data/local/tmp/big").unlink()
        output(phone, "cd /data/local/tmp; head -c 200000 /dev/zero >small")
