"""A real adb server of our own, and its command line."""

import os
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from netlathe.profiler.adb.server import AdbServer


class Adb:
    """A private adb server, and its command line."""

    def __init__(self, home: Path, scratch: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.server = AdbServer("127.0.0.1", free.getsockname()[1])
        # otherwise the server looks for emulators on this computer's ports from 5555 on
        limits = {"ADB_LOCAL_TRANSPORT_MAX_PORT": "5553", "TMPDIR": str(scratch), "HOME": str(home)}
        self._environment = {"PATH": os.environ["PATH"], **limits}

    def __call__(self, *words: str) -> str:
        command = ["adb", "-P", str(self.server.port), *words]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=60)
        return done.stdout + done.stderr

    def listens(self) -> bool:
        with suppress(OSError), socket.create_connection((self.server.host, self.server.port), timeout=5):
            return True
        return False


def wait_until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Fails if it does not become true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
