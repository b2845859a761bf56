"""The daemon, judged by adb-shell."""

import os
from io import BytesIO
from pathlib import Path

import pytest

pytest.importorskip("adb_shell")

from adb_shell.auth.keygen import keygen
from adb_shell.exceptions import AdbCommandFailureException, DeviceAuthError, TcpTimeoutException

from .adbd import AdbDaemon
from .clients import adb_shell_device
from .phone import LoopbackPhone
from .trust import Trust


def test_adb_shell_connects_with_a_key_and_runs_commands(phone: LoopbackPhone, tmp_path: Path) -> None:
    keygen(str(tmp_path / "key"))
    trust = Trust()
    with AdbDaemon(phone, auth=trust) as daemon:
        for _ in range(2):
            with adb_shell_device(daemon, tmp_path / "key") as device:
                assert device.shell("echo hello") == "hello\n"
                packets = device._service(b"shell,v2,raw", b"echo out; exit 5", decode=False)
                assert packets == b"\1\4\0\0\0out\n" + b"\3\1\0\0\0\5"
    assert trust.dialogs == 1


def test_adb_shell_is_kept_out_without_a_key_or_an_answer(phone: LoopbackPhone, tmp_path: Path) -> None:
    keygen(str(tmp_path / "key"))
    with AdbDaemon(phone, auth=Trust(answer_s=None)) as daemon:
        with pytest.raises(DeviceAuthError), adb_shell_device(daemon):
            pass
        with pytest.raises(TcpTimeoutException), adb_shell_device(daemon, tmp_path / "key"):
            pass


def test_adb_shell_pushes_pulls_and_lists(daemon: AdbDaemon) -> None:
    content = os.urandom(500_000)
    back = BytesIO()
    with adb_shell_device(daemon) as device:
        device.push(BytesIO(content), "/data/local/tmp/theirs/file", mtime=1_500_000_000)
        assert device.stat("/data/local/tmp/theirs/file")[1:] == (500_000, 1_500_000_000)
        assert device.stat("/data/local/tmp/theirs/missing") == (0, 0, 0)
        assert {bytes(entry.filename) for entry in device.list("/data/local/tmp/theirs")} == {b".", b"..", b"file"}
        device.pull("/data/local/tmp/theirs/file", back)
        assert back.getvalue() == content
        with pytest.raises(AdbCommandFailureException, match="No such file or directory"):
            device.pull("/data/local/tmp/theirs/missing", BytesIO())
