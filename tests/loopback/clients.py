"""Clients that others wrote: Debian's adb, and adb-shell."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .adbd import AdbDaemon

TIMEOUT_S = 60.0


class Adb:
    """Debian's adb with a server and a home of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        # Otherwise the server looks for emulators on this computer's ports from 5555 on.
        own = {"HOME": str(folder), "TMPDIR": str(folder), "ADB_LOCAL_TRANSPORT_MAX_PORT": "5553"}
        self._environment = {"PATH": os.environ["PATH"], **own}

    def argv(self, *words: str | Path) -> list[str]:
        return ["adb", "-P", str(self._port), *map(str, words)]

    def __call__(self, *words: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.argv(*words), env=self._environment, input=stdin, capture_output=True, timeout=TIMEOUT_S
        )

    def start(self, *words: str | Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.argv(*words), env=self._environment, stdin=subprocess.DEVNULL)

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0


class Connected:
    """adb's commands for one phone."""

    def __init__(self, adb: Adb, daemon: AdbDaemon) -> None:
        self.adb = adb
        self.serial = f"127.0.0.1:{daemon.port}"

    def __call__(self, *words: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return self.adb("-s", self.serial, *words, stdin=stdin)

    def state(self) -> str:
        """How `adb devices` calls it; empty where it does not know it."""
        lines = [line.split() for line in self.adb("devices").stdout.decode().splitlines()]
        return next((words[1] for words in lines if words[:1] == [self.serial]), "")


@contextlib.contextmanager
def adb_shell_device(daemon: AdbDaemon, *keys: Path) -> Iterator[Any]:
    """adb-shell's device, connected."""
    from adb_shell.adb_device import AdbDeviceTcp
    from adb_shell.auth.sign_pythonrsa import PythonRSASigner

    signers = [PythonRSASigner(key.with_suffix(".pub").read_text(), key.read_text()) for key in keys]
    device = AdbDeviceTcp("127.0.0.1", daemon.port, default_transport_timeout_s=TIMEOUT_S)
    try:
        device.connect(rsa_keys=signers, auth_timeout_s=1.0)
        yield device
    finally:
        device.close()
