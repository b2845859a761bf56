"""Programs that use the bus: each a process of its own, as the preload library has to be there from its start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .bus import UsbBus

ROOT = Path(__file__).parents[3]


class UsbClient:
    """A Python program on the bus that talks to the test by lines. Use it in `with`; it is killed at the end.

    One that is not privileged obeys the modes of files, also as root.
    """

    def __init__(self, bus: UsbBus, home: Path, program: str, *arguments: object, is_privileged: bool = True) -> None:
        environment = {**os.environ, **bus.environment, "HOME": str(home), "PYTHONPATH": str(ROOT)}
        environment["ANDROID_ADB_SERVER_PORT"] = "1"
        start = [] if is_privileged or os.getuid() else ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
        self.process = subprocess.Popen(
            [*start, sys.executable, "-c", program, *map(str, arguments)], env=environment, cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def line(self) -> str:
        """The next line that it prints; '' when it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def say(self, text: str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def end(self, timeout_s: float = 120.0) -> str:
        """All that it still prints. Fails unless it ends in good order."""
        stdout, stderr = self.process.communicate(timeout=timeout_s)
        assert self.process.returncode == 0, stderr[-3000:]
        return stdout

    def kill(self) -> None:
        """As `kill -9`."""
        self.process.kill()
        self.process.communicate()

    def __enter__(self) -> UsbClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def run(bus: UsbBus, home: Path, program: str, *arguments: object, is_privileged: bool = True) -> str:
    """What a program prints that has ended in good order."""
    with UsbClient(bus, home, program, *arguments, is_privileged=is_privileged) as client:
        return client.end()
