"""Loopback phones start, reboot, stand side by side, and leave nothing behind."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from .phone import PIXEL_8, LoopbackPhone, loopback_unavailable
from .phone_shell import TIMEOUT_S, output
from .tool_calls import until

pytestmark = pytest.mark.skipif(loopback_unavailable() is not None, reason=str(loopback_unavailable()))


def mounts_under(folder: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if line.split()[4].startswith(str(folder))]


def processes_of(folder: Path) -> list[str]:
    """Command lines, of living processes of this computer, that name the folder."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(folder) in line:
                found.append(line)
    return found


@pytest.mark.parametrize("data_mb", [None, 4])
def test_a_reboot_ends_processes_and_modes_and_keeps_files_and_settings(tmp_path, data_mb):
    with LoopbackPhone(tmp_path / "phone", data_mb=data_mb) as phone:
        running = subprocess.Popen(phone.shell_argv("exec sleep 3600"), env=phone.environment)
        output(phone, "echo kept >/data/local/tmp/file; settings put global x 1; setprop debug.x 1")
        output(phone, "cmd power set-fixed-performance-mode-enabled true; input keyevent KEYCODE_SLEEP")
        before = output(phone, "cat /proc/sys/kernel/random/boot_id")
        phone.reboot()
        assert running.wait(TIMEOUT_S) == -signal.SIGKILL
        assert output(phone, "cat /data/local/tmp/file; settings get global x; getprop debug.x") == "kept\n1"
        assert phone.path("/data/local/tmp/file").read_text() == "kept\n"
        assert (phone.power["fixed_performance"], phone.power["wakefulness"]) == ("false", "Awake")
        assert output(phone, "cat /proc/sys/kernel/random/boot_id") == phone.boot_id != before
        assert float(output(phone, "cat /proc/uptime").split()[0]) < TIMEOUT_S


def test_phones_do_not_see_one_another(tmp_path):
    properties = {**PIXEL_8, "ro.serialno": "OTHER"}
    with LoopbackPhone(tmp_path / "a") as one, LoopbackPhone(tmp_path / "b", properties=properties) as other:
        output(one, "echo one >/data/local/tmp/file")
        assert not other.path("/data/local/tmp/file").exists()
        assert output(other, "getprop ro.serialno") == "OTHER"


def test_close_leaves_no_process_and_no_mount(tmp_path):
    phone = LoopbackPhone(tmp_path / "phone", data_mb=1)
    running = subprocess.Popen(phone.shell_argv("setsid sleep 3600 & exec sleep 3600"), env=phone.environment)
    phone.reboot()
    phone.close()
    phone.close()
    running.wait(TIMEOUT_S)
    assert processes_of(tmp_path) == []
    assert mounts_under(tmp_path) == []


def test_a_killed_test_run_leaves_nothing_behind(tmp_path):
    program = textwrap.dedent(f"""
        import signal
        from pathlib import Path
        from {__package__}.phone import LoopbackPhone
        phone = LoopbackPhone(Path({str(tmp_path / "phone")!r}))
        print(flush=True)
        signal.pause()
    """)
    top = Path(__file__).parents[__package__.count(".") + 1]
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(top)}
    )
    with process:
        assert process.stdout.readline() == b"\n"
        assert processes_of(tmp_path)
        process.kill()
    until(lambda: processes_of(tmp_path) == [], "processes stay")


def test_phones_run_by_hand_tell_how_to_use_them_and_leave_with_a_signal(tmp_path):
    top = Path(__file__).parents[__package__.count(".") + 1]
    environment = {**os.environ, "PYTHONPATH": str(top), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", __package__, "--phones", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        lines = [process.stdout.readline().split() for _ in range(2)]
        assert lines[0][:3:2] == lines[1][:3:2] == ["--device", "--benchmark-binary"]
        assert all(line[1].startswith("tcp:127.0.0.1:") and os.access(line[3], os.X_OK) for line in lines)
        assert lines[0][1] != lines[1][1]
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0
    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []
