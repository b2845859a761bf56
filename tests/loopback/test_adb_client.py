"""The daemon, judged by Debian's adb."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .adbd import AdbDaemon
from .clients import TIMEOUT_S, Adb, Connected, adb_shell_device
from .phone import LoopbackPhone, loopback_unavailable
from .trust import Trust
from .watch import eventually, runs


@pytest.fixture(scope="module")
def adb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adb]:
    if shutil.which("adb") is None:
        pytest.skip("no adb here (Debian: apt install adb)")
    adb = Adb(tmp_path_factory.mktemp("adb"))
    assert adb("start-server").returncode == 0
    yield adb
    adb("kill-server")
    assert eventually(lambda: not adb.listens())


@pytest.fixture
def connected(adb: Adb, daemon: AdbDaemon) -> Iterator[Connected]:
    connected = Connected(adb, daemon)
    assert b"connected to" in adb("connect", connected.serial).stdout
    yield connected
    adb("disconnect", connected.serial)


def test_adb_lists_the_phone_with_its_model(connected: Connected, phone: LoopbackPhone) -> None:
    lines = connected.adb("devices", "-l").stdout.decode().splitlines()
    words = next(line for line in lines if line.startswith(connected.serial)).split()
    assert words[1] == "device"
    assert f"model:{phone.properties['ro.product.model'].replace(' ', '_')}" in words


def test_adb_shell_has_exit_code_stderr_and_stdin(connected: Connected) -> None:
    done = connected("shell", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    content = os.urandom(2_000_000)
    done = connected("shell", "sha256sum; exit 3", stdin=content)
    assert (done.returncode, done.stdout.split()[0].decode()) == (3, hashlib.sha256(content).hexdigest())
    assert connected("shell", "-x", "echo out; echo err >&2; exit 7").stdout == b"out\nerr\n"
    assert b"42\r\n" in connected("shell", "-tt", "echo $((6*7))").stdout


def test_adb_exec_out_passes_binary_data_unchanged(connected: Connected, phone: LoopbackPhone) -> None:
    content = bytes(range(256)) + os.urandom(1_000_000)
    phone.path("/data/local/tmp/binary").write_bytes(content)
    assert connected("exec-out", "cat /data/local/tmp/binary").stdout == content


def test_adb_pushes_and_pulls_a_large_file(connected: Connected, phone: LoopbackPhone, tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * 50
    (tmp_path / "large").write_bytes(content)
    try:
        assert connected("push", tmp_path / "large", "/data/local/tmp/large").returncode == 0
        digest = connected("shell", "sha256sum </data/local/tmp/large").stdout.split()[0].decode()
        assert digest == hashlib.sha256(content).hexdigest()
        assert connected("pull", "/data/local/tmp/large", tmp_path / "back").returncode == 0
        assert (tmp_path / "back").read_bytes() == content
    finally:
        phone.path("/data/local/tmp/large").unlink(missing_ok=True)


def test_adb_pushes_and_pulls_a_folder_of_500_files(connected: Connected, tmp_path: Path) -> None:
    files = {f"part{number % 7}/{number}.tflite": os.urandom(number * 40) for number in range(500)}
    for name, content in files.items():
        path = tmp_path / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    done = connected("push", tmp_path / "models", "/data/local/tmp/")
    assert b"500 files pushed" in done.stdout
    assert b"500 files pulled" in connected("pull", "/data/local/tmp/models", tmp_path / "back").stdout
    assert {name: (tmp_path / "back" / name).read_bytes() for name in files} == files


def test_adb_push_keeps_the_mode_and_the_time(connected: Connected, phone: LoopbackPhone, tmp_path: Path) -> None:
    (tmp_path / "tool").write_bytes(b"#!/system/bin/sh\necho ran\n")
    (tmp_path / "tool").chmod(0o755)
    os.utime(tmp_path / "tool", (1_500_000_000, 1_500_000_000))
    connected("push", tmp_path / "tool", "/data/local/tmp/tool")
    assert phone.path("/data/local/tmp/tool").stat().st_mtime == 1_500_000_000
    assert connected("shell", "/data/local/tmp/tool").stdout == b"ran\n"


def test_adb_ls_shows_what_is_in_a_folder(connected: Connected, phone: LoopbackPhone) -> None:
    folder = phone.path("/data/local/tmp/shown")
    folder.mkdir()
    (folder / "five").write_bytes(b"12345")
    lines = connected("ls", "/data/local/tmp/shown").stdout.decode().splitlines()
    modes = {line.split()[3]: line.split()[:2] for line in lines}
    assert set(modes) == {".", "..", "five"}
    assert [int(word, 16) for word in modes["five"]] == [(folder / "five").stat().st_mode, 5]


def test_adb_reports_what_is_missing(connected: Connected, tmp_path: Path) -> None:
    done = connected("pull", "/data/local/tmp/nowhere", tmp_path / "nowhere")
    assert done.returncode == 1
    assert (
        b"failed to stat remote object '/data/local/tmp/nowhere': No such file or directory"
        in done.stdout + done.stderr
    )


def test_adb_push_says_why_it_failed(connected: Connected, phone: LoopbackPhone, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(300_000))
    phone.path("/data/local/tmp/closed").mkdir(mode=0o555)
    done = connected("push", tmp_path / "file", "/data/local/tmp/closed/file")
    assert done.returncode == 1
    assert b"remote couldn't create file: Permission denied" in done.stdout + done.stderr


@pytest.mark.skipif(loopback_unavailable() is not None, reason=str(loopback_unavailable()))
def test_adb_push_says_that_the_disk_is_full(adb: Adb, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(20 << 20))
    with LoopbackPhone(tmp_path / "phone", data_mb=8) as phone, AdbDaemon(phone) as daemon:
        connected = Connected(adb, daemon)
        adb("connect", connected.serial)
        done = connected("push", tmp_path / "large", "/data/local/tmp/large")
        assert done.returncode == 1
        assert b"remote write failed: No space left on device" in done.stdout + done.stderr
        assert not phone.path("/data/local/tmp/large").exists()
        assert connected("shell", "echo alive").stdout == b"alive\n"
        adb("disconnect", connected.serial)


def test_adb_killed_in_the_middle_of_a_push_leaves_a_part_and_the_connection(
    connected: Connected, daemon: AdbDaemon, phone: LoopbackPhone, tmp_path: Path
) -> None:
    (tmp_path / "large").write_bytes(os.urandom(1 << 20) * 200)
    target = phone.path("/data/local/tmp/killed")
    for _ in range(3):
        before = daemon.bytes_in
        with connected.adb.start("-s", connected.serial, "push", tmp_path / "large", "/data/local/tmp/killed") as push:
            assert eventually(lambda before=before: daemon.bytes_in - before > 5 << 20)
            push.kill()
        assert connected("shell", "echo alive").stdout == b"alive\n"
        assert 0 < target.stat().st_size < 200 << 20
    target.unlink()


def test_adb_waits_for_the_user_and_remembers_the_answer(adb: Adb, phone: LoopbackPhone) -> None:
    trust = Trust(answer_s=1.0)
    with AdbDaemon(phone, auth=trust) as daemon:
        connected = Connected(adb, daemon)
        adb("connect", connected.serial)
        assert connected("wait-for-device", "shell", "echo in").stdout == b"in\n"
        adb("disconnect", connected.serial)
        adb("connect", connected.serial)
        assert connected("wait-for-device", "shell", "echo again").stdout == b"again\n"
        adb("disconnect", connected.serial)
    assert trust.dialogs == 1


def test_adb_calls_a_phone_that_does_not_let_it_in_unauthorized(adb: Adb, phone: LoopbackPhone) -> None:
    with AdbDaemon(phone, auth=Trust(answer_s=None)) as daemon:
        connected = Connected(adb, daemon)
        adb("connect", connected.serial)
        assert connected.state() == "unauthorized"
        done = connected("shell", "echo in")
        assert done.returncode == 1
        assert b"device unauthorized" in done.stderr
        adb("disconnect", connected.serial)


def test_adb_disconnect_ends_the_running_command(connected: Connected, phone: LoopbackPhone) -> None:
    with connected.adb.start("-s", connected.serial, "shell", "sleep 4901; true") as process:
        assert eventually(lambda: runs(phone, "sleep 4901"))
        connected.adb("disconnect", connected.serial)
        process.wait(TIMEOUT_S)
    assert eventually(lambda: not runs(phone, "sleep 4901"))


def test_adb_calls_a_phone_offline_after_a_cut_until_it_connects_again(connected: Connected, daemon: AdbDaemon) -> None:
    daemon.cut()
    assert eventually(lambda: connected.state() == "offline")
    assert b"device offline" in connected("shell", "echo hello").stderr
    connected.adb("disconnect", connected.serial)
    connected.adb("connect", connected.serial)
    assert connected("shell", "echo back").stdout == b"back\n"


def test_adb_reboots_the_phone(adb: Adb, connected: Connected, daemon: AdbDaemon) -> None:
    boot_id = connected("shell", "cat /proc/sys/kernel/random/boot_id").stdout
    connected("reboot")
    assert eventually(lambda: connected.state() == "offline" and daemon.is_plugged)
    adb("disconnect", connected.serial)
    adb("connect", connected.serial)
    assert connected("shell", "cat /proc/sys/kernel/random/boot_id").stdout not in (boot_id, b"")


def test_two_clients_work_at_once(adb: Adb, connected: Connected, daemon: AdbDaemon) -> None:
    pytest.importorskip("adb_shell")
    script = "while ! test -e /data/local/tmp/go; do sleep 0.05; done"
    with adb.start("-s", connected.serial, "shell", script) as waiting, adb_shell_device(daemon) as device:
        assert device.shell("touch /data/local/tmp/go; echo done") == "done\n"
        assert waiting.wait(TIMEOUT_S) == 0
