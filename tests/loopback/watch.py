"""Waiting for what happens on a phone."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

from .phone import LoopbackPhone

PATIENCE_S = 20.0


def eventually(condition: Callable[[], object]) -> bool:
    """Whether the condition becomes true before patience ends."""
    end_s = time.monotonic() + PATIENCE_S
    while not (met := bool(condition())) and time.monotonic() < end_s:
        time.sleep(0.02)
    return met


def runs(phone: LoopbackPhone, command: str) -> bool:
    """Whether a process of the phone has exactly this command line; a shell that will start it does not count."""
    argv = phone.shell_argv(f"pgrep -fx '{command}'")
    return subprocess.run(argv, env=phone.environment, capture_output=True).returncode == 0
